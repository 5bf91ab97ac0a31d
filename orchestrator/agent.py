"""The agent: the one file that a job runs on the compute node.

``python3 agent.py run DIR...`` carries out the attempts whose folders are given: it claims each,
runs its command, keeps its time and writes ``exit.json``. ``look`` and ``revoke`` are the driver's
eyes and its hand on the same folders; a driver elsewhere calls them as ``agent.py look`` (JSON on
stdin and stdout) and ``agent.py revoke DIR TAG``.

Python 3.6, the standard library, no other file of ours: it is copied to wherever jobs run.
"""

import errno
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

VERSION = 1
EXIT_NO_ROOM = 75  # EX_TEMPFAIL of sysexits.h: exit.json could not be written
EXIT_NO_ORDER = 78  # EX_CONFIG: there is no order to carry out
EXIT_NO_GPU = 69  # EX_UNAVAILABLE

RESULT_LIMIT = 4 << 20
PROGRESS_LIMIT = 1 << 20  # per look; what is longer comes with the next one
ORDER_DELAYS = (1, 2, 4, 8, 15)  # seconds until another node's new folder must be visible
WRITE_DELAYS = (1, 4, 10, 15, 30)  # seconds between attempts to write exit.json
SIGNAL_DOUBT = 1.0  # seconds in which a signal that ended the command may reach us too
SWEEP_GRACE = 2.0  # seconds from SIGTERM to SIGKILL for what a command leaves behind
GPU_PERIOD = 10.0
GPU_PATIENCE = 30.0  # nvidia-smi hangs on a broken GPU
CANCEL_PERIOD = 3.0  # seconds between looks for the order to end one attempt of several
CHECKPOINT_FILES = 10000  # more than these of a checkpoint folder are not looked at

CANCELLED = "cancelled by the driver; the attempts beside it go on"

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
WARNINGS = ("SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM")  # what an order may ask for ahead of the walltime

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


# --- files -----------------------------------------------------------------------------------------------------


def _read(path: str, folder: "Optional[int]" = None, limit: int = 1 << 20, offset: int = 0) -> "Optional[bytes]":
    """At most ``limit`` bytes from ``offset``; None where there is no such file.

    Always a fresh open: that is what makes a network file system show what another node has closed.
    """
    for last in (False, True):
        try:
            descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
            with open(descriptor, "rb") as stream:
                stream.seek(offset)
                return stream.read(limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            # Replaced on another node between look-up and read: the new file is found by its name.
            if error.errno != errno.ESTALE or last:
                raise
    return None


def _read_record(path: str, folder: "Optional[int]" = None) -> "Optional[Dict[str, Any]]":
    """Read a JSON object; None where it is missing or not whole (yet)."""
    content = _read(path, folder)
    try:
        data = json.loads((content or b"").decode())
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _write(path: str, content: bytes) -> None:
    """Create ``path``, which must not be there, durably; nothing is left of it on failure."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as stream:  # NFS tells of a full disk at fsync or close at the latest
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
    except OSError:
        os.unlink(path)
        raise


def _beside(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, ".{}.{}".format(name, os.urandom(6).hex()))


def _sync_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: str, content: bytes) -> None:
    """Put ``content`` at ``path`` whole and durably."""
    temporary = _beside(path)
    _write(temporary, content)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _sync_folder(path)


def _create(path: str, content: bytes) -> bool:
    """Put ``content`` at ``path`` whole unless something is there already; whether it is ours that is there."""
    temporary = _beside(path)
    _write(temporary, content)
    try:
        os.link(temporary, path)
        made = True
    except FileExistsError:
        # An NFS server that is asked twice because its first answer was lost says this of our own link.
        made = _read(path) == content
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        made = _create_without_links(path, content)
    finally:
        os.unlink(temporary)
    _sync_folder(path)
    return made


def _create_without_links(path: str, content: bytes) -> bool:
    try:
        _write(path, content)
    except FileExistsError:
        return False
    return True


def _dump(data: "Mapping[str, Any]") -> bytes:
    return (json.dumps(data) + "\n").encode()


# --- claims ----------------------------------------------------------------------------------------------------


def _boot() -> str:
    content = _read("/proc/sys/kernel/random/boot_id")
    return (content or b"").decode().strip()


def _job() -> "Tuple[str, Optional[int]]":
    """Id of the batch job around us, and how often its scheduler started it again (None: it does not say).

    The local queue comes first: a driver inside a batch job hands that job's variables to its own jobs.
    """
    get = os.environ.get
    if get("SURVEY_LOCAL_JOB"):
        return get("SURVEY_LOCAL_JOB", ""), None
    if get("SLURM_JOB_ID"):
        # SLURM_JOB_ID of an array's element is a number of its own, which no list shows first.
        array, task = get("SLURM_ARRAY_JOB_ID"), get("SLURM_ARRAY_TASK_ID")
        job_id = "{}_{}".format(array, task) if array and task else get("SLURM_JOB_ID", "")
        return job_id, int(get("SLURM_RESTART_COUNT") or 0)
    if get("PBS_JOBID"):
        return get("PBS_JOBID", ""), None
    if get("PJM_JOBID"):
        bulk = get("PJM_BULKNUM")
        return get("PJM_JOBID", "") + ("[{}]".format(bulk) if bulk else ""), None
    if get("JOB_ID"):  # Grid Engine
        task = get("SGE_TASK_ID", "undefined")
        return get("JOB_ID", "") + ("" if task == "undefined" else "." + task), None
    return "", None


def _claimant(tag: str, by: str) -> "Dict[str, Any]":
    job_id, restarts = _job() if by == "agent" else ("", None)
    return {
        "tag": tag,
        "by": by,
        "job_id": job_id,
        "restarts": restarts or 0,
        "host": os.uname().nodename,
        "boot": _boot(),
        "pid": os.getpid(),
        "time": time.time(),
    }


def _started_again(old: "Mapping[str, Any]", new: "Mapping[str, Any]") -> "Optional[int]":
    """Which restart of the claim's own job we are, or None if we are not one.

    Slurm counts its restarts; of PBS, PJM and Grid Engine only the claimant's death can be seen.
    """
    if old.get("by") != "agent" or not new["job_id"] or old.get("job_id") != new["job_id"]:
        return None
    before = int(old.get("restarts") or 0)
    if _job()[1] is not None:
        return new["restarts"] if new["restarts"] > before else None
    if (old.get("host"), old.get("boot")) == (new["host"], new["boot"]) and _alive(int(old.get("pid") or 0)):
        return None
    return before + 1


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _take(directory: str, tag: str) -> "Tuple[Optional[Dict[str, Any]], str]":
    """Our claim, or None and why the attempt is not ours to run."""
    path = os.path.join(directory, "claim")
    mine = _claimant(tag, "agent")
    if _create(path, _dump(mine)):
        return mine, ""
    held = _read_record(path) or {}
    restart = _started_again(held, mine)
    if restart is None:
        return None, "claimed by {} (job {}, pid {} on {})".format(
            *(held.get(name) or "?" for name in ("by", "job_id", "pid", "host"))
        )
    ended = _read_record(os.path.join(directory, "exit.json"))
    if ended is not None and ended.get("cause") != "signalled":
        return None, "restart {}, but the attempt has ended already".format(restart)
    mine["restarts"] = restart
    # A marker for each restart, so that of two starters of the same one only one goes on.
    if not _create("{}-{}".format(path, restart), _dump(mine)):
        return None, "restart {} is claimed already".format(restart)
    _replace(path, _dump(mine))
    for name in ("exit.json", "stop"):
        content = _read(os.path.join(directory, name))
        # A stop that the driver asked for holds; one for the walltime of the last start does not.
        if content is not None and (name != "stop" or content.startswith(b"walltime")):
            os.unlink(os.path.join(directory, name))
    with open(os.path.join(directory, "restarts.jsonl"), "ab") as stream:
        stream.write(_dump({"claim": mine, "before": held, "exit": ended}))
    return mine, ""


def revoke(directory: str, tag: str) -> bool:
    """Take the claim for the driver, so that no late starter can follow.

    Returns
    -------
    bool
        True if the driver holds the claim now, False if an agent does (or may).
    """
    directory = os.path.abspath(directory)
    os.makedirs(directory, 0o700, exist_ok=True)
    path = os.path.join(directory, "claim")
    if _create(path, _dump(_claimant(tag, "driver"))):
        return True
    return (_read_record(path) or {}).get("by") == "driver"


# --- looking ---------------------------------------------------------------------------------------------------


def look(request: "Mapping[str, Any]") -> "Dict[str, Any]":
    """Tell what is new in the attempts' folders, and the answer of one command.

    Parameters
    ----------
    request : mapping
        ``{"attempts": {DIR: {"progress": offset, "result": bool, "claim": bool}}, "query": {"argv", "stdin", "timeout"} or None}``

    Returns
    -------
    dict
        ``{"now", "host", "attempts": {DIR: {"exists", "claim", "exit", "result", "progress", "offset"}}, "query"}``.
        What is missing or not whole yet is None; ``error`` is there only where a folder could not be read.
    """
    # The query first: then the files are never older than what the scheduler says of them.
    query = request.get("query")
    answer = _ask(query) if query else None
    attempts = {}
    for directory, wanted in (request.get("attempts") or {}).items():
        attempts[directory] = _look_at(directory, wanted or {})
    return {"now": time.time(), "host": os.uname().nodename, "attempts": attempts, "query": answer}


def _look_at(directory: str, wanted: "Mapping[str, Any]") -> "Dict[str, Any]":
    offset = int(wanted.get("progress") or 0)
    nothing = {"exists": False, "claim": None, "exit": None, "result": None, "progress": "", "offset": offset}
    for last in (False, True):
        try:
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return dict(nothing, exists=True, **_look_inside(folder, offset, wanted))
            finally:
                os.close(folder)
        except FileNotFoundError:
            return nothing
        except (OSError, ValueError) as error:
            if last or getattr(error, "errno", None) != errno.ESTALE:
                # All or nothing: a report without the result that could not be read would be misjudged.
                return dict(nothing, error=str(error))
    return nothing


def _look_inside(folder: int, offset: int, wanted: "Mapping[str, Any]") -> "Dict[str, Any]":
    seen: "Dict[str, Any]" = {"exit": _read_record("exit.json", folder)}
    # exit.json is written last: once it is seen, all that is read after it is complete.
    if wanted.get("claim", True):
        seen["claim"] = _read_record("claim", folder)
    if wanted.get("result") or seen["exit"] is not None:
        content = _read("result.json", folder, limit=RESULT_LIMIT + 1)
        if content is not None and len(content) > RESULT_LIMIT:
            seen["result"] = {"too_long": os.stat("result.json", dir_fd=folder).st_size}
        elif content is not None:
            seen["result"] = content.decode("utf-8", "replace")
    content = _read("progress.jsonl", folder, limit=PROGRESS_LIMIT, offset=offset)
    if offset and content == b"" and os.stat("progress.jsonl", dir_fd=folder).st_size < offset:
        offset = 0  # a program that was started again has written it anew
    content = content or b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole and len(content) == PROGRESS_LIMIT:
        offset += len(content)  # a "line" of a megabyte is none of ours: step over it
    seen["progress"] = whole.decode("utf-8", "replace")
    seen["offset"] = offset + len(whole)
    return seen


def _ask(query: "Mapping[str, Any]") -> "Dict[str, Any]":
    import subprocess

    try:
        process = subprocess.Popen(
            query["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        return {"returncode": code, "stdout": "", "stderr": "{}: {}".format(query["argv"][0], error.strerror)}
    timeout = float(query.get("timeout") or 60.0)
    returncode: "Optional[int]" = None
    with process:
        try:
            out, err = process.communicate((query.get("stdin") or "").encode(), timeout=timeout)
            returncode = process.returncode
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            out, err = b"", "no answer within {:g} s".format(timeout).encode()
    texts = {"stdout": out.decode("utf-8", "replace"), "stderr": err.decode("utf-8", "replace")}
    return dict(texts, returncode=returncode)


# --- processes -------------------------------------------------------------------------------------------------


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; whether there is such a group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _group_lives(group: int) -> bool:
    """Whether a process group has a member that is more than a zombie."""
    if not _signal_group(group, 0):
        return False
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                content = _read("/proc/{}/stat".format(name)) or b""
            except OSError:
                continue
            fields = content.rpartition(b")")[2].split()
            if len(fields) > 2 and int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
                return True
    return False


def _oom_kills() -> int:
    """How many processes of our control group the kernel killed for want of memory; 0 where it cannot be seen."""
    try:
        for line in (_read("/proc/self/cgroup") or b"").decode().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                source = "/sys/fs/cgroup/memory" + path + "/memory.oom_control"
            elif not controllers:
                source = "/sys/fs/cgroup" + path + "/memory.events"
            else:
                continue
            for word in (_read(source) or b"").decode().splitlines():
                if word.startswith("oom_kill "):
                    return int(word.split()[1])
    except (OSError, ValueError):
        pass  # not every site lets us see this
    return 0


class _Signals:
    """Signals as a queue that can be waited on: none is lost, whenever it comes."""

    def __init__(self) -> None:
        self._pending: "List[int]" = []
        self._kept: "Dict[int, Any]" = {}

    def __enter__(self) -> "_Signals":  # noqa: PYI034 typing.Self is newer than Python 3.6
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer)
        for number in ENDING + FORWARDED + (signal.SIGCHLD,):
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                self._kept[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._pending.append(number)

    def ending(self) -> "Optional[int]":
        """First signal so far that asks us to end; it stays in the queue."""
        return next((number for number in self._pending if number in ENDING), None)

    def take(self) -> "List[int]":
        taken = list(self._pending)
        del self._pending[: len(taken)]  # and no more: another may have come meanwhile
        return taken

    def wait(self, seconds: float) -> None:
        import select

        if select.select([self._reader], [], [], max(0.0, seconds))[0]:
            os.read(self._reader, 4096)


# --- GPUs ------------------------------------------------------------------------------------------------------


def visible_gpus() -> "List[str]":
    """List the job's GPUs, as CUDA_VISIBLE_DEVICES names them or, where it is not set, by number."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        names: "List[str]" = []
        for name in said.split(","):
            # CUDA itself stops at the first name that is none; NoDevFiles is what Slurm says for "none".
            if name.strip() in ("", "-1", "NoDevFiles", "void"):
                break
            names.append(name.strip())
        return names
    import subprocess

    count = 0
    try:
        listed = subprocess.check_output(["nvidia-smi", "-L"], stderr=subprocess.DEVNULL, timeout=GPU_PATIENCE)
        count = sum(line.startswith(b"GPU ") for line in listed.splitlines())
    except (OSError, subprocess.SubprocessError):
        pass  # without a working nvidia-smi the device files have to do
    if not count:
        count = sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))
    return [str(number) for number in range(count)]


class _GpuMeter:
    """Names and peak memory of some GPUs, by nvidia-smi now and then; nobody ever waits for it."""

    def __init__(self, devices: "Sequence[str]") -> None:
        self.names: "List[str]" = []
        self.peak: "Optional[float]" = None
        self._devices = devices
        self._next = 0.0
        self._process: "Optional[subprocess.Popen[bytes]]" = None

    def tick(self, now: float) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                if now < self._next + GPU_PATIENCE:
                    return
                self.close()
            else:
                self._collect()
        if self._devices and now >= self._next:
            self._next = now + GPU_PERIOD
            self._start()

    def _start(self) -> None:
        import subprocess

        columns = ["--query-gpu=name,memory.used", "--format=csv,noheader,nounits"]
        try:
            self._process = subprocess.Popen(
                ["nvidia-smi", *columns, "-i", ",".join(self._devices)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._devices = ()  # there is no nvidia-smi

    def _collect(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        with process:
            output = process.communicate()[0].decode("utf-8", "replace")
        if process.returncode == 0:
            rows = [line.rsplit(",", 1) for line in output.splitlines() if "," in line]
            self.names = [name.strip() for name, _ in rows]
            used = [float(text) for _, text in rows if text.strip().replace(".", "", 1).isdigit()]
            self.peak = max(used + ([] if self.peak is None else [self.peak])) if used else self.peak

    def close(self) -> None:
        if self._process is not None:
            if self._process.poll() is not None:
                self._collect()
                return
            self._process.kill()
            with self._process:
                self._process = None


# --- metrics of programs that do not write result.json ---------------------------------------------------------


class _Reader:
    """Carries out an order's ``read`` rules once the command has ended."""

    def __init__(self, directory: str, workdir: str, rules: "Sequence[Mapping[str, str]]") -> None:
        self._folders = (workdir, directory)
        self._stdout = os.path.join(directory, "stdout")
        self._rules = rules
        # A working folder may be shared by trials: what lies there unchanged is another's.
        self._before = {path: self._mark(path) for rule in rules for path in self._candidates(rule)}

    def read(self) -> "Tuple[Dict[str, float], List[str]]":
        """Metrics, and a complaint for each that could not be read."""
        metrics, complaints = {}, []
        for rule in self._rules:
            try:
                if "stdout" in rule:
                    text = self._last_match(rule["stdout"])
                elif "json" in rule:
                    text = self._json_value(self._fresh(rule), rule["json"].rpartition(":")[2])
                else:
                    text = self._csv_value(self._fresh(rule), rule["csv"].rpartition(":")[2])
                metrics[rule["metric"]] = float(text)
            except Exception as error:  # whatever is wrong with one rule must not cost the report
                complaints.append("metric {!r} could not be read: {}".format(rule.get("metric"), error))
        return metrics, complaints

    @staticmethod
    def _mark(path: str) -> "Optional[Tuple[int, int, int]]":
        try:
            status = os.stat(path)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _candidates(self, rule: "Mapping[str, str]") -> "List[str]":
        name = (rule.get("json") or rule.get("csv") or "").rpartition(":")[0]
        return [os.path.join(folder, name) for folder in self._folders] if name else []

    def _fresh(self, rule: "Mapping[str, str]") -> str:
        candidates = self._candidates(rule)
        if not candidates:
            raise ValueError("the rule names no file and place in it (file:place)")
        stale = False
        for path in candidates:
            mark = self._mark(path)
            if mark is not None and mark != self._before[path]:
                return path
            stale = stale or mark is not None
        if stale:
            raise ValueError("{} was there before the command and has not changed".format(candidates[0]))
        raise ValueError("there is no file {}".format(candidates[0]))

    def _last_match(self, pattern: str) -> str:
        import re

        expression, found = re.compile(pattern), None
        with open(self._stdout, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                for match in expression.finditer(line):
                    found = match
        if found is None:
            raise ValueError("no line of stdout matches {!r}".format(pattern))
        return str(found.group(1))

    @staticmethod
    def _json_value(path: str, place: str) -> "Any":
        with open(path, encoding="utf-8") as stream:
            value = json.load(stream)
        for name in place.split("."):
            try:
                value = value[int(name)] if isinstance(value, list) else value[name]
            except (KeyError, IndexError, TypeError, ValueError):
                raise ValueError("{} has nothing at {!r}".format(path, place)) from None
        return value

    @staticmethod
    def _csv_value(path: str, column: str) -> str:
        import csv

        with open(path, encoding="utf-8", newline="") as stream:
            last = None
            for row in csv.DictReader(stream):
                last = row
        if last is None or last.get(column) is None:
            raise ValueError("{} has no value in column {!r}".format(path, column))
        return str(last[column])


# --- checkpoints -----------------------------------------------------------------------------------------------


def _newest(folder: str) -> "Optional[float]":
    """When the newest file below ``folder`` was written; None where there is none.

    Names that begin with a dot are files in the making: what a killed program leaves of them is no state.
    """
    newest: "Optional[float]" = None
    looked_at = 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            looked_at += 1
            if looked_at > CHECKPOINT_FILES:
                return newest
            try:
                written = os.lstat(os.path.join(place, name)).st_mtime
            except OSError:
                continue  # the program's own cleaning has taken it
            newest = written if newest is None else max(newest, written)
    return newest


# --- one attempt -----------------------------------------------------------------------------------------------


class _Attempt:
    """One claimed attempt, from the start of its command to its ``exit.json``."""

    def __init__(self, directory: str, order: "Dict[str, Any]", claim: "Dict[str, Any]") -> None:
        self.directory = directory
        self.order = order
        self.gpus = int(order.get("gpus") or 0)
        self.devices: "Optional[List[str]]" = None
        self.code = 0  # what the agent returns for it
        self.done = False
        self.beside_others = False  # then the scheduler cannot end it alone: the driver's file ``cancel`` does
        self.wake = float("inf")  # monotonic time of the next thing to do
        self._claim = claim
        self._grace = float(order.get("kill_grace") or 0.0)
        self._workdir = os.path.join(directory, order.get("workdir") or "")
        self._checkpoint = os.path.normpath(os.path.join(directory, order.get("checkpoint") or "checkpoint"))
        self._checkpoint_before: "Optional[float]" = None
        self._pid = 0
        self._running = False
        self._stop_at = self._term_at = self._kill_at = float("inf")
        self._walltime = 0.0
        self._warned: "Optional[int]" = None
        self._next_cancel_look = 0.0
        self._give_up_at = float("inf")
        self._doubt_until = 0.0
        self._cause = ""
        self._message = ""
        self._exit_code: "Optional[int]" = None
        self._signal: "Optional[int]" = None
        self._max_rss: "Optional[float]" = None
        self._started = time.time()
        self._meter = _GpuMeter(())

    def refuse(self, cause: str, message: str, code: int, exit_code: "Optional[int]" = None) -> None:
        """End the attempt without having started its command."""
        self._cause, self._message, self._exit_code, self.code = cause, message, exit_code, code
        self._finish([], {})

    def start(self) -> None:
        """Start the command, or say in ``exit.json`` why that cannot be."""
        command = self.order.get("command")
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command or ())
        try:
            if self.order.get("version") != VERSION:
                raise ValueError("the order is of version {}, not {}".format(self.order.get("version"), VERSION))
            if not os.path.isdir(self._workdir):
                raise FileNotFoundError(errno.ENOENT, "no such working folder", self._workdir)
            if self.order.get("warn_signal") and self.order["warn_signal"] not in WARNINGS:
                raise ValueError("no signal to warn with: {!r}".format(self.order["warn_signal"]))
            self._reader = _Reader(self.directory, self._workdir, self.order.get("read") or ())
            self._kills_before = _oom_kills()
            self._checkpoint_before = _newest(self._checkpoint)
            self._keep_time()
            self._spawn(argv)
        except Exception as error:  # whatever is wrong with an order, its report must say so
            code = 127 if isinstance(error, FileNotFoundError) else 126
            self.refuse("cannot-start", "cannot start {!r}: {}".format((argv or ["nothing"])[0], error), code, code)
            return
        self._running = True
        self._meter = _GpuMeter(self.devices or () if self.gpus else ())

    def _spawn(self, argv: "List[str]") -> None:
        import subprocess

        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        out = os.open(os.path.join(self.directory, "stdout"), flags, 0o600)
        err = os.open(os.path.join(self.directory, "stderr"), flags, 0o600)
        try:
            self._started = time.time()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._workdir,
                env=self._environment(),
                start_new_session=True,
            )
        finally:
            os.close(out)
            os.close(err)
        self._pid = process.pid
        process.returncode = 0  # it is wait4 that reaps it, for the sake of ru_maxrss

    def _environment(self) -> "Dict[str, str]":
        order = self.order
        artifacts = os.path.join(self.directory, "artifacts")
        for folder in (self._checkpoint, artifacts):
            os.makedirs(folder, 0o700, exist_ok=True)
        ours = {
            "SURVEY_DIR": self.directory,
            "SURVEY_PARAMS": os.path.join(self.directory, "params.json"),
            "SURVEY_RESULT": os.path.join(self.directory, "result.json"),
            "SURVEY_PROGRESS": os.path.join(self.directory, "progress.jsonl"),
            "SURVEY_STOP": os.path.join(self.directory, "stop"),
            "SURVEY_CHECKPOINT": self._checkpoint,
            "SURVEY_ARTIFACTS": artifacts,
            "SURVEY_TAG": order.get("tag"),
            "SURVEY_STUDY": order.get("study"),
            "SURVEY_TRIAL": order.get("number"),
            "SURVEY_ATTEMPT": order.get("attempt"),
            "SURVEY_RUN": order.get("run"),
            "SURVEY_RUNS": order.get("runs"),
            "SURVEY_SEED": order.get("seed"),
            "SURVEY_DEADLINE": None if self._term_at == float("inf") else "{:.3f}".format(self._deadline),
        }
        environment = dict(os.environ)
        environment.update(order.get("environment") or {})
        for name, value in ours.items():
            environment.pop(name, None)  # a survey inside a survey must not see the outer one's
            if value is not None:
                environment[name] = str(value)
        if order.get("lib"):
            before = environment.get("PYTHONPATH")
            library = os.path.normpath(os.path.join(self.directory, order["lib"]))
            environment["PYTHONPATH"] = before + os.pathsep + library if before else library
        if self.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        if order.get("launched"):
            self._write_environment(environment, list(ours) + list(order.get("environment") or {}))
        return environment

    def _write_environment(self, environment: "Dict[str, str]", names: "List[str]") -> None:
        """Leave what a launcher may not take to the other nodes where each of its processes reads it."""
        names += ["PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS"]
        # PATH is this node's: a job's nodes are of one kind.
        lines = [
            "export {}='{}'\n".format(name, environment[name].replace("'", "'\\''"))
            for name in sorted(set(names))
            if name in environment
        ]
        path = os.path.join(self.directory, "environment.sh")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(lines)

    def _keep_time(self) -> None:
        """Set our own deadlines so that the last one leaves time to report before the scheduler's kill."""
        walltime = float(self.order.get("walltime") or 0.0)
        now, wall = time.monotonic(), time.time()
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        if end.isdigit() and float(end) > wall and not os.environ.get("SURVEY_LOCAL_JOB"):
            # The job's clock started before ours did; and a queue's own limit is in no order.
            walltime = min(walltime or float("inf"), float(end) - wall)
        if not walltime:
            return
        self._walltime = float(self.order.get("walltime") or 0.0) or walltime
        reserve = min(2.0 * self._grace, walltime / 4.0)
        margin = max(min(float(self.order.get("margin") or 0.0), walltime / 2.0), reserve)
        self._stop_at = now + walltime - margin
        self._term_at = now + walltime - reserve
        self._deadline = wall + walltime - reserve
        self._time_grace = min(self._grace, reserve / 2.0)

    def take(self, number: int) -> None:
        """Pass on a signal that we got; one that ends us starts the clock for the kill."""
        if not self._running:
            if number in ENDING and number == self._signal and not self._cause:
                self._cause, self._message = "signalled", "the job got {}".format(signal.Signals(number).name)
                self._doubt_until = 0.0
            return
        if number in ENDING:
            self._cause = self._cause or "signalled"
            self._message = self._message or "the job got {}".format(signal.Signals(number).name)
            self._kill_at = min(self._kill_at, time.monotonic() + self._grace)
        elif number == signal.SIGXCPU:
            self._ask_to_stop()  # PJM's and Grid Engine's word that the limit is near
        _signal_group(self._pid, number)

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._running:
            pid, status, usage = os.wait4(self._pid, os.WNOHANG)
            if pid:
                self._ended(now, status, usage.ru_maxrss / 1024.0)
            else:
                self._watch(now)
        if not self._running and not self.done:
            self._sweep(now)

    def _watch(self, now: float) -> None:
        self._meter.tick(now)
        if now >= self._stop_at:
            self._stop_at = float("inf")
            self._ask_to_stop()
            if self.order.get("warn_signal"):
                self._warned = signal.Signals[self.order["warn_signal"]]
                _signal_group(self._pid, self._warned)
        if now >= self._term_at:
            self._term_at = float("inf")
            self._cause = self._cause or "timeout"
            self._message = self._message or "the walltime of {:.0f} s".format(self._walltime)
            self._kill_at = min(self._kill_at, now + self._time_grace)
            _signal_group(self._pid, signal.SIGTERM)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            _signal_group(self._pid, signal.SIGKILL)
        if self.beside_others and now >= self._next_cancel_look:
            self._next_cancel_look = now + CANCEL_PERIOD
            if self.is_cancelled() and not self._cause:
                self._cause, self._message = "signalled", CANCELLED
                self._kill_at = min(self._kill_at, now + self._grace)
                _signal_group(self._pid, signal.SIGTERM)
        self.wake = min(self._stop_at, self._term_at, self._kill_at)
        if self.beside_others and not self._cause:
            self.wake = min(self.wake, self._next_cancel_look)
        if self.gpus:
            self.wake = min(self.wake, now + GPU_PERIOD)

    def is_cancelled(self) -> bool:
        """Whether the driver has asked for the end of this attempt alone."""
        try:
            return _read(os.path.join(self.directory, "cancel"), limit=1) is not None
        except OSError:
            return False  # an order that cannot be read now is read at the next look

    def _ask_to_stop(self) -> None:
        try:
            _create(os.path.join(self.directory, "stop"), b"walltime\n")
        except OSError as error:
            print("agent: {}".format(error), file=sys.stderr)  # the program then meets SIGTERM unwarned

    def _ended(self, now: float, status: int, max_rss: float) -> None:
        self._running = False
        self._max_rss = round(max_rss, 1)
        self._meter.close()
        if os.WIFSIGNALED(status):
            self._signal = os.WTERMSIG(status)
            self.code = 128 + self._signal
        else:
            self._exit_code = self.code = os.WEXITSTATUS(status)
        if self._warned and self._warned in (self._signal, (self._exit_code or 0) - 128) and not self._cause:
            words = "the program has no handler for {}, the warning ahead of the walltime of {:.0f} s"
            self._cause = "timeout"
            self._message = words.format(signal.Signals(self._warned).name, self._walltime)
        killed = self._signal == signal.SIGKILL or self._exit_code == 128 + signal.SIGKILL
        if killed and not self._cause and _oom_kills() > self._kills_before:
            self._cause, self._message = "out-of-memory", "the kernel killed it: the job's memory was used up"
        if self._signal in ENDING and not self._cause:
            # A scheduler signals command and agent alike, in either order: our own may be on its way.
            self._doubt_until = now + SIGNAL_DOUBT
        _signal_group(self._pid, signal.SIGTERM)
        self._kill_at, self._give_up_at = now + SWEEP_GRACE, now + 2.0 * SWEEP_GRACE

    def _sweep(self, now: float) -> None:
        """See to it that nothing of the ended command's group stays."""
        if _group_lives(self._pid) and now < self._give_up_at:
            if now >= self._kill_at:
                _signal_group(self._pid, signal.SIGKILL)
            self.wake = now + 0.05
            return
        if now < self._doubt_until:
            self.wake = self._doubt_until
            return
        metrics, complaints = self._reader.read()
        self._finish(complaints, metrics)

    def _new_checkpoint(self) -> "Optional[float]":
        """When the program wrote the newest of its checkpoint; None where it wrote none in this attempt."""
        newest = _newest(self._checkpoint) if self._pid else None
        before = self._checkpoint_before
        # Both times are the file system's: no clock is compared with another.
        return newest if newest is not None and (before is None or newest > before) else None

    def _finish(self, complaints: "List[str]", metrics: "Dict[str, float]") -> None:
        self.done = True
        self.wake = float("inf")
        report = {
            "version": VERSION,
            "tag": self._claim["tag"],
            "exit_code": self._exit_code,
            "signal": self._signal,
            "host": self._claim["host"],
            "started": self._started,
            "ended": time.time(),
            "max_rss": self._max_rss,
            "gpus": self._meter.names,
            "gpu_memory": self._meter.peak,
            "cause": self._cause,
            "message": "; ".join(([self._message] if self._message else []) + complaints),
            "job_id": self._claim["job_id"],
            "restarts": self._claim["restarts"],
            "checkpoint": self._new_checkpoint(),
        }
        if self.order.get("read"):
            report["metrics"] = metrics
        path = os.path.join(self.directory, "exit.json")
        for delay in (*WRITE_DELAYS, None):
            try:
                _replace(path, _dump(report))
            except OSError as error:
                # A folder that was deleted does not come back; room on a disk may.
                if delay is None or isinstance(error, FileNotFoundError):
                    print("agent: cannot write {}: {}".format(path, error), file=sys.stderr)
                    self.code = EXIT_NO_ROOM
                    return
                time.sleep(delay)
            else:
                return


# --- the run ---------------------------------------------------------------------------------------------------


def _prepare(directory: str) -> "Tuple[Optional[_Attempt], int]":
    """Make the attempt if it is ours to run, else tell what to return."""
    directory = os.path.abspath(directory)
    path = os.path.join(directory, "job.json")
    order = _read_record(path)
    for delay in ORDER_DELAYS:
        if order is None:
            time.sleep(delay)
            order = _read_record(path)
    if order is None or not order.get("tag"):
        print("agent: {} is missing or not an order".format(path), file=sys.stderr)
        return None, EXIT_NO_ORDER
    try:
        claim, why = _take(directory, order["tag"])
    except OSError as error:
        print("agent: {}: cannot claim {}: {}".format(directory, order["tag"], error), file=sys.stderr)
        return None, EXIT_NO_ROOM
    if claim is None:
        print("agent: {}: not run: {}".format(directory, why), file=sys.stderr)
        return None, 0
    return _Attempt(directory, order, claim), 0


def _share_gpus(attempts: "Sequence[_Attempt]") -> None:
    """Give each attempt its own of the job's GPUs; one that gets too few is refused."""
    if not any(attempt.gpus for attempt in attempts):
        return
    free = visible = visible_gpus()
    for attempt in attempts:
        if attempt.gpus > len(free):
            message = "GPUs needed: {}; GPUs that the job sees on {}: {}; not taken by attempts beside it: {}".format(
                attempt.gpus, os.uname().nodename, len(visible), len(free)
            )
            attempt.refuse("no-gpu", message, EXIT_NO_GPU)
        elif attempt.gpus or len(attempts) > 1:
            attempt.devices, free = free[: attempt.gpus], free[attempt.gpus :]


def run(directories: "Sequence[str]") -> int:
    """Carry out the attempts in ``directories``, side by side; main thread only.

    Returns
    -------
    int
        The command's exit code (128 + n for signal n), the first that is not 0 where there are several;
        0 for an attempt that is not ours to run; 69, 75 or 78 for what the agent itself could not do.
    """
    umask = os.umask(0o077)
    try:
        with _Signals() as signals:
            return _run(directories, signals)
    finally:
        os.umask(umask)


def _run(directories: "Sequence[str]", signals: _Signals) -> int:
    prepared = [_prepare(directory) for directory in directories]
    attempts = [attempt for attempt, _ in prepared if attempt is not None]
    _share_gpus(attempts)
    for attempt in attempts:
        attempt.beside_others = len(directories) > 1
        early = signals.ending()
        if early is not None and not attempt.done:
            name = signal.Signals(early).name
            attempt.refuse("signalled", "the job got {} before the command was started".format(name), 128 + early)
        elif attempt.beside_others and not attempt.done and attempt.is_cancelled():
            attempt.refuse("signalled", CANCELLED, 0)
        elif not attempt.done:
            attempt.start()
    while not all(attempt.done for attempt in attempts):
        for number in signals.take():
            for attempt in attempts:
                attempt.take(number)
        for attempt in attempts:
            if not attempt.done:
                attempt.tick()
        if not all(attempt.done for attempt in attempts):
            wake = min(attempt.wake for attempt in attempts)
            signals.wait(min(wake - time.monotonic(), 60.0))
    codes = [code if attempt is None else attempt.code for attempt, code in prepared]
    return next((code for code in codes if code), 0)


def main(arguments: "Sequence[str]") -> int:
    """Command line: ``run DIR...``, ``look``, ``revoke DIR TAG``."""
    verb, rest = (arguments[0] if arguments else ""), list(arguments[1:])
    if verb == "run" and rest:
        return run(rest)
    if verb == "look" and not rest:
        print(json.dumps(look(json.load(sys.stdin))))
        return 0
    if verb == "revoke" and len(rest) == 2:
        print(json.dumps(revoke(rest[0], rest[1])))
        return 0
    print("usage: agent.py run DIR... | look | revoke DIR TAG", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
