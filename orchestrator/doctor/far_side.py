"""What the doctor runs on the site's side: one program over stdin, one line of JSON back, and it is gone.

Python 3.6 and the standard library, no other file of ours; `orchestrator.doctor.site` sends its source.
It asks the commands that it is told to ask, all at once, each with a deadline of its own, and tries the
work root's file system while they think. What it writes it removes; the environment it never shows.
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

    Facts = Dict[str, Any]

MARK = "survey-doctor "
LONGEST = 400000  # characters of a command's output that travel
WRITTEN = 1 << 20  # bytes of the trial write: a full disk and a used-up quota are met by writing only
CHILD = 20.0  # seconds that a second process may take

# What a second process says of locks that the first one holds, and of a file that it has just renamed.
_SECOND = """
import errno, fcntl, os, sys, time
folder = sys.argv[1]
def taken(lock, name):
    with open(os.path.join(folder, name), "r+b") as stream:
        try:
            lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
    return False
begun = time.time()
while "renamed" not in os.listdir(folder) and time.time() - begun < 10:
    time.sleep(0.01)
print(int(taken(fcntl.lockf, "lockf")), int(taken(fcntl.flock, "flock")), "%.3f" % (time.time() - begun))
"""


# --- commands --------------------------------------------------------------------------------------------------


def ask(argv: "Sequence[str]", timeout: float) -> "Facts":
    """Run a command without input in a process group of its own, which is killed at the deadline."""
    begun = time.time()
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as failure:
        code = 127 if failure.errno == errno.ENOENT else 126
        words = "{}: {}".format(argv[0], failure.strerror)
        return {"argv": list(argv), "returncode": code, "stdout": "", "stderr": words, "seconds": 0.0}
    in_time = True
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        in_time = False
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            out, err = process.communicate(timeout=2)
        except subprocess.TimeoutExpired:  # what has left the group may hold the pipes open for ever
            out, err = b"", b""
    return {
        "argv": list(argv),
        "returncode": process.returncode if in_time else None,
        "stdout": out.decode("utf-8", "replace")[:LONGEST],
        "stderr": err.decode("utf-8", "replace")[:LONGEST],
        "seconds": round(time.time() - begun, 3),
    }


def within(seconds: float, jobs: "Mapping[str, Callable[[], Any]]") -> "Facts":
    """Do all jobs at once; what has not ended in time is None."""
    done: "Facts" = {}

    def work(name: str, job: "Callable[[], Any]") -> None:
        done[name] = job()

    threads = [threading.Thread(target=work, args=item, daemon=True) for item in jobs.items()]
    for thread in threads:
        thread.start()
    end = time.time() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.time()))
    return {name: done.get(name) for name in jobs}


# --- the file system -------------------------------------------------------------------------------------------


def mount_of(path: str, table: "Optional[str]" = None) -> "Dict[str, str]":
    """Kind, source and place of the mount that ``path`` lies on (proc(5), mountinfo)."""
    found = {"kind": "", "source": "", "place": ""}
    try:
        if table is None:
            with open("/proc/self/mountinfo", "rb") as stream:
                table = stream.read().decode("utf-8", "replace")
    except OSError:
        return found
    for line in table.splitlines():
        left, dash, right = line.partition(" - ")
        words, more = left.split(), right.split()
        if not dash or len(words) < 5 or len(more) < 2 or more[0] == "autofs":
            continue
        place = words[4].replace("\\040", " ")
        inside = place in ("/", path) or path.startswith(place + "/")
        if inside and len(place) >= len(found["place"]):
            found = {"kind": more[0], "source": more[1], "place": place}
    return found


def room(path: str) -> "Facts":
    """Space and inodes left for us; None for what the file system does not count."""
    seen = os.statvfs(path)
    return {
        "free": seen.f_bavail * seen.f_frsize,
        "size": seen.f_blocks * seen.f_frsize,
        "inodes_free": seen.f_favail if seen.f_files else None,
        "inodes": seen.f_files or None,
        "read_only": bool(seen.f_flag & 1),
    }


def quotas(place: str) -> "Facts":
    """What the quota commands say that this machine has."""
    import grp
    import pwd

    asked = {}
    user = pwd.getpwuid(os.getuid()).pw_name
    if shutil.which("quota"):
        asked["quota"] = ["quota", "-w"]
    if shutil.which("lfs") and mount_of(place)["kind"] == "lustre":
        asked["lfs quota of the user"] = ["lfs", "quota", "-q", "-u", user, place]
        try:
            group = grp.getgrgid(os.getgid()).gr_name
            asked["lfs quota of the group"] = ["lfs", "quota", "-q", "-g", group, place]
        except KeyError:
            pass
    return {name: ask(argv, 15.0) for name, argv in asked.items()}


def examine_folder(path: str) -> "Facts":
    """Try in ``path`` what a study does there; missing folders are made, and taken away again."""
    facts: "Facts" = {"path": path, "error": None, "tried": {}}
    made: "List[str]" = []
    try:
        missing = []
        folder = path
        while folder and not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        facts["there"] = folder
        # The mount first: it is known even where nothing may be written.
        real = os.path.realpath(folder)
        facts["mount"] = mount_of(real)
        facts["room"] = room(real)
        for each in reversed(missing):
            if os.path.lexists(each):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), each)
            os.mkdir(each, 0o700)
            made.append(each)
        trial = os.path.join(path, ".survey-doctor-" + os.urandom(6).hex())
        os.mkdir(trial, 0o700)
        try:
            _try(trial, facts)
        finally:
            shutil.rmtree(trial, ignore_errors=True)
        facts["quotas"] = quotas(facts["mount"]["place"])
    except OSError as failure:
        facts["error"] = {
            "errno": failure.errno,
            "message": failure.strerror or str(failure),
            "path": str(failure.filename or path),
        }
    finally:
        for each in reversed(made):
            try:
                os.rmdir(each)
            except OSError:
                break
    return facts


def _try(folder: str, facts: "Facts") -> None:
    import fcntl

    def path(name: str) -> str:
        return os.path.join(folder, name)

    tried = facts["tried"]
    begun = time.time()
    with open(path("whole"), "wb") as stream:
        stream.write(b"\0" * WRITTEN)
        stream.flush()
        os.fsync(stream.fileno())
    tried["write"] = round(time.time() - begun, 3)
    before = time.time()
    with open(path("fresh"), "wb") as stream:
        stream.write(b"new\n")
    # The clock of the file server against this machine's.
    facts["file_clock"] = round(os.stat(path("fresh")).st_mtime - (before + time.time()) / 2, 3)
    with open(path("renamed"), "wb") as stream:
        stream.write(b"old\n")
    os.rename(path("fresh"), path("renamed"))
    with open(path("renamed"), "rb") as seen:
        tried["rename"] = seen.read() == b"new\n" and not os.path.exists(path("fresh"))
    try:
        os.close(os.open(path("renamed"), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        tried["exclusive"] = False
    except FileExistsError:
        tried["exclusive"] = True
    tried.update(dict.fromkeys(("lockf", "flock"), None))
    with contextlib.ExitStack() as held:
        for name, lock in (("lockf", fcntl.lockf), ("flock", fcntl.flock)):
            locked = held.enter_context(open(path(name), "w+b"))
            try:
                lock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as failure:
                tried[name] = failure.strerror or str(failure)
        second = ask([sys.executable, "-I", "-S", "-c", _SECOND, folder], CHILD)
    said = second["stdout"].split()
    if second["returncode"] == 0 and len(said) == 3:
        tried["seen"] = float(said[2])
        for index, name in enumerate(("lockf", "flock")):
            if tried[name] is None:
                tried[name] = said[index] == "1"


# --- what runs on a compute node ---------------------------------------------------------------------------------


def gpus() -> "Facts":
    """GPUs that a process of ours sees, by NVIDIA's tool and by the devices that are there."""
    said = ask(["nvidia-smi", "-L"], 30.0)
    listed = [line.split(" (UUID")[0] for line in said["stdout"].splitlines() if line.startswith("GPU ")]
    return {
        "listed": listed if said["returncode"] == 0 else [],
        "devices": len(glob.glob("/dev/nvidia[0-9]*")),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def node() -> None:
    """Be the probe job's program: leave a file for the login node to see, and tell of this node in the result."""
    mark = os.path.join(os.environ["SURVEY_DIR"], "node-was-here")
    before = time.time()
    with open(mark + ".new", "w"):
        pass
    written = os.stat(mark + ".new").st_mtime
    os.rename(mark + ".new", mark)
    facts = {
        "host": os.uname().nodename,
        "machine": os.uname().machine,
        "python": ".".join(str(number) for number in sys.version_info[:3]),
        "cpus": len(os.sched_getaffinity(0)),
        "written": written,
        "file_clock": round(written - (before + time.time()) / 2, 3),
        "mount": mount_of(os.path.realpath(os.environ["SURVEY_DIR"])),
        "gpus": gpus(),
    }
    result = {"tag": os.environ["SURVEY_TAG"], "metrics": {"answered": 1.0}, "info": facts}
    target = os.environ["SURVEY_RESULT"]
    with open(target + ".new", "w") as stream:
        json.dump(result, stream)
    os.rename(target + ".new", target)


# --- requests --------------------------------------------------------------------------------------------------


def watch(request: "Mapping[str, Any]") -> "Facts":
    """Wait until a file is to be seen here, and tell when that was."""
    end = time.time() + request["seconds"]
    while not os.path.exists(request["path"]):
        if time.time() > end:
            return {"seen": None}
        time.sleep(0.2)
    return {"seen": time.time()}


def examine(request: "Mapping[str, Any]") -> "Facts":
    """Tell of this machine, of the scheduler's commands and of a folder."""
    jobs = {"folder": lambda: examine_folder(request["folder"])} if request["folder"] else {}
    if request["gpus"]:
        jobs["gpus"] = gpus

    def asking(question: "Mapping[str, Any]") -> "Callable[[], Facts]":
        return lambda: ask(question["argv"], question["timeout"])

    for question in request["questions"]:
        jobs["ask " + question["name"]] = asking(question)
    answers = within(request["seconds"], jobs)
    return {
        "host": os.uname().nodename,
        "machine": os.uname().machine,
        "python": ".".join(str(number) for number in sys.version_info[:3]),
        "now": time.time(),
        "programs": {name: shutil.which(name) for name in request["programs"]},
        "folder": answers.get("folder"),
        "gpus": answers.get("gpus"),
        "answers": {name[4:]: answer for name, answer in answers.items() if name.startswith("ask ")},
    }


def main(text: str) -> None:
    """Serve one request and leave, whatever still hangs."""
    request = json.loads(text)
    reply = {"examine": examine, "watch": watch}[request["verb"]](request)
    sys.stdout.write(MARK + json.dumps(reply) + "\n")
    sys.stdout.flush()
    os._exit(0)
