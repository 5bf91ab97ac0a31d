"""The local machine's batch queue: submit, status, find, cancel and prune, without a daemon.

``localq.py submit`` leaves behind a detached process, the job's keeper, which waits for free GPUs,
runs the script and records how it ended in the spool folder. So jobs outlive whoever submitted
them, and a driver that is killed meets the same case here as on a cluster.

A job is known by the keeper's identity (pid, start time, boot of the machine); a pid alone is never
believed. Python 3.6, the standard library, no other file of ours. Records are replaced by rename but
not fsynced: a machine that loses power loses its jobs too.
"""

import errno
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NoReturn, Optional, Sequence, Set, Tuple

# 1 is missing on purpose: it is what an interpreter says that broke off in the middle.
EXIT_USAGE = 2
EXIT_THERE_ALREADY = 3
EXIT_FAILED = 4  # certainly not done: no room, no processes; later it may work
EXIT_REFUSED = 5  # certainly not done: it cannot be

KILL_GRACE = 30.0  # seconds from SIGTERM to SIGKILL: the agent needs its own grace before it can report
SWEEP_GRACE = 2.0
GPU_POLL = 0.25
SAVE_DELAYS = (1, 4, 10, 15, 30)  # seconds between attempts to record a job's end on a full disk

HEADER = "ID STATE EXIT SIGNAL NAME SUBMITTED STARTED ENDED REASON"
OVER = ("ended", "cancelled", "vanished", "rebooted")


class _RefusedError(Exception):
    """Words for stderr and an exit code."""

    def __init__(self, message: str, code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.code = code


# --- identity and records --------------------------------------------------------------------------------------


def _slurp(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _boot() -> str:
    return _slurp("/proc/sys/kernel/random/boot_id").strip()


def _stat(pid: int) -> "Optional[List[str]]":
    """Fields of ``/proc/PID/stat`` from the third (state) on, or None where there is no such process."""
    try:
        return _slurp("/proc/{}/stat".format(pid)).rpartition(")")[2].split()
    except OSError:
        return None


def _start(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22); 0 for none, or a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else 0


def _lives(pid: int, start: int) -> bool:
    """Whether the process that began at ``start`` is there; 0, of one that was over when it was recorded, never is."""
    return bool(start) and _start(pid) == start


def _record_path(spool: str, name: str) -> str:
    if not name or name.startswith(".") or "/" in name or any(ord(letter) < 33 for letter in name):
        raise _RefusedError("{!r} cannot be a job's name".format(name), EXIT_USAGE)
    return os.path.join(spool, name + ".json")


def _load(spool: str, name: str) -> "Optional[Dict[str, Any]]":
    try:
        record = json.loads(_slurp(_record_path(spool, name)))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _name_of(spool: str, job_id: str) -> "Optional[str]":
    if "/" in job_id or job_id.startswith("."):
        return None
    try:
        return _slurp(os.path.join(spool, "ids", job_id))
    except FileNotFoundError:
        return None


def _save(spool: str, record: "Dict[str, Any]", only_new: bool = False) -> None:
    """Write a record whole; ``only_new`` raises FileExistsError where the name was used before."""
    path = _record_path(spool, record["name"])
    temporary = os.path.join(spool, ".{}.{}".format(record["name"], os.urandom(6).hex()))
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(record, stream)
    if not only_new:
        os.rename(temporary, path)
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: take the name first, then put the record there.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _state(record: "Dict[str, Any]") -> "Tuple[str, str]":
    """State word and reason of a job, its processes looked at where the record says that it lives."""
    state, reason = record["state"], record.get("reason") or ""
    if state in OVER:
        return state, reason
    if record["boot"] != _boot():
        if record["host"] != os.uname().nodename:
            return "unknown", "kept on {}".format(record["host"])
        return "rebooted", "the machine was started anew"
    if _lives(record["pid"], record["start"]):
        return state, reason
    if record.get("child") and _lives(record["child"], record["child_start"]):
        return "running", "its keeper was killed"
    return "vanished", "its keeper was killed before it could record the end"


def _line(record: "Dict[str, Any]") -> str:
    def word(value: object) -> str:
        return "-" if value is None else "{:.3f}".format(value) if isinstance(value, float) else str(value)

    state, reason = _state(record)
    times = [record.get(key) for key in ("submitted", "started", "ended")]
    fields = [record["id"], state, record.get("exit_code"), record.get("signal"), record["name"], *times]
    return " ".join([word(field) for field in fields] + (reason.split() or ["-"]))


# --- GPUs ------------------------------------------------------------------------------------------------------


def _all_gpus() -> "List[str]":
    """Names of the GPUs that this machine's jobs may use."""
    for variable in ("SURVEY_GPUS", "CUDA_VISIBLE_DEVICES"):
        said = os.environ.get(variable)
        if said is not None:
            return [name.strip() for name in said.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    import subprocess

    try:
        listed = subprocess.check_output(["nvidia-smi", "-L"], stderr=subprocess.DEVNULL, timeout=30.0)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith(b"GPU ") for line in listed.splitlines()))]


def _lock_folder() -> str:
    """Folder of the GPU locks: one for all of a user's drivers on this machine, hence not TMPDIR."""
    path = os.environ.get("SURVEY_LOCKS") or "/tmp/survey-gpus-{}".format(os.getuid())  # noqa: S108 checked below
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        if status.st_uid != os.getuid() or status.st_mode & 0o170077 != 0o040000:
            raise _RefusedError("{} is not a private folder of this user".format(path)) from None
    return path


def _try_lock(path: str) -> "Optional[int]":
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptors: "Iterable[int]") -> None:
    import fcntl

    for descriptor in descriptors:
        # Explicitly: what a job left running may still hold a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


# --- the keeper ------------------------------------------------------------------------------------------------


class _CancelledError(Exception):
    """The keeper was asked to end its job."""


class _Keeper:
    """The detached process that carries one job."""

    def __init__(self, spool: str, record: "Dict[str, Any]", script: str, output: "Optional[str]") -> None:
        self._spool = spool
        self._record = record
        self._script = script
        self._output = output
        self._cancelled = False

    def prepare(self) -> None:
        """Hear signals from now on, and become the parent of whatever the job leaves behind."""
        import signal

        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, lambda *_: None)  # not SIG_IGN: the job would inherit that
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._cancel)

    def run(self) -> None:
        """Wait for GPUs, run the script, record its end."""
        locks: "List[int]" = []
        record, cancelled = self._record, False
        try:
            self._spawn(self._get_gpus(locks), locks)
            self._wait(None)
        except _CancelledError:
            cancelled = True
        except Exception as error:  # the record must tell of it: nobody else hears this process
            record.update(reason=str(error), exit_code=1)
            self._log(str(error))
        if record.get("child"):
            self._end_job(ask=cancelled)
        _unlock(locks)
        record.update(state="cancelled" if cancelled else "ended", ended=time.time())
        self._publish(SAVE_DELAYS)

    def _publish(self, delays: "Sequence[float]" = ()) -> None:
        """Write the record; on a full disk again after each of ``delays``, and then not at all."""
        for delay in (*delays, None):
            try:
                _save(self._spool, self._record)
            except FileNotFoundError:
                return  # the spool was deleted: nobody asks any more
            except OSError:
                if delay is not None:
                    time.sleep(delay)
            else:
                return

    def _cancel(self, _number: int, _frame: object) -> None:
        self._cancelled = True

    def _pause(self, seconds: "Optional[float]") -> None:
        import select

        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def _check(self) -> None:
        if self._cancelled:
            raise _CancelledError

    def _log(self, text: str) -> None:
        if self._output:
            with open(os.path.join(self._output, "job.log"), "a") as stream:
                stream.write("localq: {}\n".format(text))

    def _get_gpus(self, locks: "List[int]") -> "List[str]":
        """Lock as many GPUs as the job needs, waiting for them; its locks are added to ``locks``."""
        wanted = self._record["gpus"]
        if not wanted:
            return []
        every = _all_gpus()
        if wanted > len(every):
            raise _RefusedError("the job needs {} GPU(s), this machine offers {}".format(wanted, len(every)))
        folder = _lock_folder()
        names: "List[str]" = []
        # Only the holder of this lock collects GPUs, and keeps those it has: jobs that need many are
        # not starved by those that need one, and no two wait for each other's.
        head: "Optional[int]" = None
        try:
            while len(names) < wanted:
                self._check()
                head = head or _try_lock(os.path.join(folder, "queue.lock"))
                for name in every if head else ():
                    if name in names or len(names) == wanted:
                        continue
                    lock = _try_lock(os.path.join(folder, "gpu-{}.lock".format(name.replace("/", "_"))))
                    if lock is not None:
                        locks.append(lock)
                        names.append(name)
                if len(names) < wanted:
                    self._pause(GPU_POLL)
        finally:
            if head:
                _unlock([head])
        return names

    def _spawn(self, gpus: "Sequence[str]", locks: "Sequence[int]") -> None:
        import subprocess

        self._check()
        target = os.path.join(self._output, "job.log") if self._output else os.devnull
        log = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES=",".join(gpus), SURVEY_LOCAL_JOB=self._record["id"])
        process = subprocess.Popen(
            ["/bin/bash", self._script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._output or "/",
            env=environment,
            start_new_session=True,
            pass_fds=locks,  # a killed keeper's job keeps its GPUs to itself
        )
        os.close(log)
        process.returncode = 0  # reaped below, together with whatever it leaves to us
        self._record.update(child=process.pid, child_start=_start(process.pid), state="running", started=time.time())
        self._publish()

    def _reap(self) -> bool:
        """Collect ended children; whether the job's script is among them, now or before."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid == self._record["child"]:
                signalled = os.WIFSIGNALED(status)
                self._record["signal"] = os.WTERMSIG(status) if signalled else None
                self._record["exit_code"] = None if signalled else os.WEXITSTATUS(status)
        return "exit_code" in self._record

    def _wait(self, until: "Optional[float]") -> None:
        """Wait for the script's end; until then only a cancellation or the time ends the wait."""
        while not self._reap():
            if until is None:
                self._check()
            elif time.monotonic() >= until:
                return
            self._pause(None if until is None else max(0.0, until - time.monotonic()))

    def _end_job(self, ask: bool) -> None:
        """Leave nothing of the job behind: first its script (``ask`` it to end), then all it has started."""
        import signal

        if ask:
            self._signal([-self._record["child"]], signal.SIGTERM)
            self._wait(time.monotonic() + KILL_GRACE)
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + SWEEP_GRACE
            left = self._descendants()
            self._signal(left, number)
            while left and time.monotonic() < until:
                self._pause(0.05)
                self._reap()
                left = self._descendants()
        self._reap()

    @staticmethod
    def _signal(pids: "Iterable[int]", number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # gone meanwhile, or a set-user-id program that is none of ours

    def _descendants(self) -> "List[int]":
        parents = {int(name): int((_stat(int(name)) or "00")[1]) for name in os.listdir("/proc") if name.isdigit()}
        found: "Set[int]" = {os.getpid()}
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found, grown = found | more, bool(more)
        return [pid for pid in found if pid != os.getpid() and _start(pid)]


def _adopt_orphans() -> None:
    """Become the reaper of the job's orphans (Linux 3.4), so that none escapes the job's end."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
    except (ImportError, OSError, AttributeError):
        pass  # then only the job's own process group is ended with it


def _detach(answer: int) -> None:
    """Cut every tie to the submitter but the pipe for the answer."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != answer:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one that listed the folder


def _keep(answer: int, spool: str, name: str, gpus: int, script: str, output: "Optional[str]") -> None:
    """Be the keeper: publish the record, answer the submitter, carry the job."""
    pid, boot = os.getpid(), _boot()
    record: "Dict[str, Any]" = {
        "name": name,
        "id": "local-{}-{}-{}".format(pid, _start(pid), boot[:8]),
        "pid": pid,
        "start": _start(pid),
        "boot": boot,
        "host": os.uname().nodename,
        "state": "queued",
        "submitted": time.time(),
        "gpus": gpus,
    }
    keeper = _Keeper(spool, record, script, output)
    keeper.prepare()
    index = os.path.join(spool, "ids", record["id"])
    try:
        # The index first, so that every record can be found by its id.
        with open(index, "w") as stream:
            stream.write(name)
        _save(spool, record, only_new=True)
        words = "ok {}".format(record["id"])
    except FileExistsError:
        os.unlink(index)
        words = "there {}".format((_load(spool, name) or {}).get("id", "?"))
    except OSError as error:
        words = "failed {}".format(error)
    try:
        os.write(answer, words.encode())
        os.close(answer)
    except BrokenPipeError:
        pass  # the submitter is gone; the job is queued all the same
    if words.startswith("ok"):
        _adopt_orphans()
        keeper.run()


# --- verbs -----------------------------------------------------------------------------------------------------


def submit(spool: str, name: str, script: str, gpus: int = 0, output: "Optional[str]" = None) -> str:
    """Queue a script and return the job's id; its record is on disk by then."""
    spool, script = os.path.abspath(spool), os.path.abspath(script)
    output = os.path.abspath(output) if output else None
    _record_path(spool, name)
    if not os.path.isfile(script):
        raise _RefusedError("there is no script {}".format(script), EXIT_USAGE)
    if output and not os.path.isdir(output):
        raise _RefusedError("there is no folder {}".format(output), EXIT_USAGE)
    os.makedirs(os.path.join(spool, "ids"), 0o700, exist_ok=True)
    reader, writer = os.pipe()
    middle = os.fork()
    if not middle:
        _become_keeper(reader, writer, spool, name, gpus, script, output)
    os.close(writer)
    os.waitpid(middle, 0)
    with open(reader, "rb") as stream:
        kind, _, words = stream.read().decode().partition(" ")
    if kind == "ok":
        return words
    if kind == "there":
        raise _RefusedError("a job {!r} was submitted before: {}".format(name, words), EXIT_THERE_ALREADY)
    raise _RefusedError(words or "the job's keeper ended at once", EXIT_FAILED)


def _become_keeper(reader: int, writer: int, *job: "Any") -> "NoReturn":
    """Fork once more, so that the keeper is nobody's child; never returns."""
    code = 1
    try:
        os.close(reader)
        _detach(writer)
        if os.fork():
            code = 0
        else:
            _keep(writer, *job)
            code = 0
    except OSError as error:
        os.write(writer, "failed {}".format(error).encode())
    finally:
        os._exit(code)


def status(spool: str, job_ids: "Iterable[str]") -> "List[str]":
    """One line for each of the jobs that the spool knows, the header first."""
    return find(spool, [name for name in (_name_of(spool, job_id) for job_id in job_ids) if name])


def find(spool: str, names: "Iterable[str]") -> "List[str]":
    """One line for each of the jobs of these names that the spool knows, the header first."""
    records = [_load(spool, name) for name in names]
    return [HEADER] + [_line(record) for record in records if record is not None]


def cancel(spool: str, job_ids: "Iterable[str]") -> None:
    """Ask the keepers to end their jobs; jobs that have ended are left alone."""
    import signal

    for job_id in job_ids:
        name = _name_of(spool, job_id)
        record = _load(spool, name) if name else None
        state = _state(record)[0] if record else ""
        if record is None:
            print("localq: there is no job {}".format(job_id), file=sys.stderr)
        elif state == "unknown":
            raise _RefusedError("{} can be cancelled on {} only".format(job_id, record["host"]))
        elif state in OVER:
            continue
        elif _start(record["pid"]) == record["start"]:
            os.kill(record["pid"], signal.SIGTERM)
        else:  # its keeper was killed
            os.killpg(record["child"], signal.SIGTERM)


def prune(spool: str, days: float) -> int:
    """Forget jobs that were over ``days`` ago; return how many."""
    horizon, count = time.time() - 86400.0 * days, 0
    for file_name in sorted(os.listdir(spool)):
        if file_name.startswith(".") or not file_name.endswith(".json"):
            continue
        record = _load(spool, file_name[:-5])
        if record is None or _state(record)[0] not in OVER:
            continue
        if float(record.get("ended") or record["submitted"]) < horizon:
            for path in (os.path.join(spool, "ids", record["id"]), os.path.join(spool, file_name)):
                if os.path.exists(path):
                    os.unlink(path)
            count += 1
    return count


_USAGE = """usage: localq.py submit --spool DIR --name TAG [--gpus N] [--output-dir DIR] SCRIPT
       localq.py status --spool DIR ID...
       localq.py find   --spool DIR NAME...
       localq.py cancel --spool DIR ID...
       localq.py prune  --spool DIR --days N"""


def _arguments(words: "Sequence[str]", options: "Sequence[str]") -> "Tuple[Dict[str, str], List[str]]":
    """Split ``--name value`` from the rest; argparse would cost as much time as all else together."""
    found: "Dict[str, str]" = {}
    rest = list(words)
    while rest and rest[0].startswith("--"):
        if rest[0][2:] not in options or len(rest) < 2:
            raise _RefusedError("unknown option, or no value for it: {}\n{}".format(rest[0], _USAGE), EXIT_USAGE)
        found[rest[0][2:]] = rest[1]
        del rest[:2]
    if "spool" not in found:
        raise _RefusedError("--spool is missing\n{}".format(_USAGE), EXIT_USAGE)
    return found, rest


def _run(verb: str, words: "Sequence[str]") -> None:
    known = {"submit": ("spool", "name", "gpus", "output-dir"), "prune": ("spool", "days")}
    options, rest = _arguments(words, known.get(verb, ("spool",)))
    spool = options["spool"]
    if verb == "submit" and len(rest) == 1 and "name" in options and options.get("gpus", "0").isdigit():
        print(submit(spool, options["name"], rest[0], int(options.get("gpus", "0")), options.get("output-dir")))
    elif verb == "status":
        print("\n".join(status(spool, rest)))
    elif verb == "find":
        print("\n".join(find(spool, rest)))
    elif verb == "cancel":
        cancel(spool, rest)
    elif verb == "prune" and "days" in options and not rest:
        print(prune(spool, float(options["days"])))
    else:
        raise _RefusedError(_USAGE, EXIT_USAGE)


def main(arguments: "Sequence[str]") -> int:
    """Command line; see the usage text."""
    os.umask(0o077)
    try:
        _run(arguments[0] if arguments else "", arguments[1:])
    except _RefusedError as error:
        print("localq: {}".format(error), file=sys.stderr)
        return error.code
    except OSError as error:
        print("localq: {}".format(error), file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
