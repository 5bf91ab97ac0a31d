"""One driver per study: a lease with an identity, and a fencing token that only ever grows.

The truth is the highest numbered file in ``lease/``: exactly one process can create it, and its
content says who that is. ``driver.json`` is the same record, with the time of the last renewal, for
people and for readers. A lease is taken over only with proof that its holder is dead (same machine,
another boot or no such process), or, from another machine, after it was not renewed for long.

A lock that two machines both believe in cannot be ruled out on every file system. So the token
goes into every attempt, and a driver that was asleep finds a higher one before its next write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import getpass
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import HeldByAnother, SurveyError
from orchestrator.store.atomic import create_exclusive, encode, make_directory, read_in_words, write_json

if TYPE_CHECKING:
    from orchestrator.clock import Clock

__all__ = ["EXPIRY", "Holder", "Lease", "read_holder"]

DRIVER = "driver.json"
EXPIRY = 600.0  # seconds without renewal; ten renewals of a minute
_FOLDER = "lease"
_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who drives a study; ``driver.json``.

    Attributes
    ----------
    boot_id, pid_namespace, start :
        With ``host`` and ``pid`` they name one process for ever: the machine's boot, the namespace
        that the process id belongs to (containers have their own), the process's start in clock ticks.
    token : int
        Fencing token: higher than that of every driver before.
    released : float or None
        When the driver gave the lease back; None as long as it holds it.
    """

    token: int
    nonce: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start: str
    user: str
    acquired: float
    renewed: float
    released: float | None = None

    @classmethod
    def myself(cls, token: int, now: float) -> Self:
        """Describe this process as the holder of ``token``."""
        pid = os.getpid()
        return cls(
            token=token,
            nonce=secrets.token_hex(8),
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
            pid=pid,
            start=_process_start(pid),
            user=_user(),
            acquired=now,
            renewed=now,
        )

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """Make the record again; None if ``data`` is not one."""
        names = {each.name for each in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in names})
        except (AttributeError, TypeError):
            return None

    @property
    def is_dead(self) -> bool:
        """Whether it is proved that this process no longer runs. False is no proof of life."""
        if self.host != socket.gethostname() or not self.boot_id:
            return False
        if self.boot_id != _boot_id():
            return True
        if self.pid_namespace != _pid_namespace() or not self.start:
            return False
        return _process_start(self.pid) != self.start

    @property
    def is_here(self) -> bool:
        """Whether this machine can see the process if it runs."""
        here = (socket.gethostname(), _boot_id(), _pid_namespace())
        return bool(self.boot_id) and (self.host, self.boot_id, self.pid_namespace) == here

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.acquired))
        return f"process {self.pid} of {self.user} on {self.host}, since {since}"


class Lease:
    """The right to drive the study in one folder. Make it with `Lease.acquire`."""

    def __init__(self, root: Path, clock: Clock, holder: Holder, lock: int | None) -> None:
        self._root = root
        self._clock = clock
        self._lock = lock
        self.holder = holder

    @classmethod
    def acquire(cls, root: Path, clock: Clock, *, expiry: float = EXPIRY) -> Self:
        """Take the lease of the study in ``root``.

        Parameters
        ----------
        expiry : float
            Seconds after which the lease of a driver on another machine, which shows no sign of
            life, may be taken over.

        Raises
        ------
        HeldByAnother
            Another driver holds it, or may hold it; the message says who.
        """
        root = make_directory(root).resolve()
        folder = make_directory(root / _FOLDER)
        lock, busy = _lock(folder / _LOCK)
        try:
            newest = max(_tokens(folder), default=0)
            previous = _current(root, newest)
            if busy and (previous is None or previous.is_here):
                raise _held(root, previous, "")
            if previous is not None:
                _may_be_taken(root, previous, clock, expiry)
            elif newest:
                _unreadable_may_be_taken(folder / _name(newest), expiry)
            token = 1 + max(newest, 0 if previous is None else previous.token)
            holder = Holder.myself(token, clock.now())
            won = create_exclusive(folder / _name(token), encode(dataclasses.asdict(holder)))
            if not won or max(_tokens(folder)) != token:
                # Somebody else was quicker; a name that was tidied away can be made again, but then
                # a higher one is there.
                raise _held(root, _current(root, max(_tokens(folder))), "it was quicker just now")
            lease = cls(root, clock, holder, lock)
            lease._publish(holder)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        for older in _tokens(folder) - {token}:
            with contextlib.suppress(OSError):
                os.unlink(folder / _name(older))
        return lease

    @property
    def token(self) -> int:
        """The fencing token."""
        return self.holder.token

    @property
    def fence(self) -> str:
        """What attempts carry to say which driver planned them."""
        return f"{self.holder.token}-{self.holder.nonce}"

    def renew(self) -> None:
        """Show a sign of life.

        Raises
        ------
        HeldByAnother
            If the lease is lost.
        """
        self.check()
        self._publish(dataclasses.replace(self.holder, renewed=self._clock.now()))

    def check(self) -> None:
        """Look at the disk whether the lease is still ours; to be called before each write.

        Raises
        ------
        HeldByAnother
            If another driver has taken it over, or it is gone.
        """
        newest = max(_tokens(self._root / _FOLDER), default=0)
        if newest == self.token:
            shown = Holder.from_json(read_in_words(self._root / DRIVER))
            if shown is None or shown.token <= self.token:
                return
        if newest < self.token:
            raise HeldByAnother(
                f"the lease of the study in {self._root} is gone from {self._root / _FOLDER}: was the folder removed?",
                hint="nothing more is written; see what happened to the folder, then run the study again",
            )
        raise _held(
            self._root, _current(self._root, newest), "it took the lease over from this driver, which stops writing"
        )

    def release(self) -> None:
        """Give the lease back; does nothing if it is no longer ours."""
        with contextlib.suppress(SurveyError):  # a lease that cannot be given back is taken over by proof of death
            self.check()
            self._publish(dataclasses.replace(self.holder, released=self._clock.now()))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _publish(self, holder: Holder) -> None:
        write_json(self._root / DRIVER, dataclasses.asdict(holder))
        self.holder = holder


def read_holder(root: Path, *, now: float, expiry: float = EXPIRY) -> tuple[Holder | None, bool]:
    """Read who drives the study in ``root``, and whether that driver may be alive.

    Returns
    -------
    holder, alive
        The last driver (None if there never was one), and False if it has given the lease back, is
        proved dead, or, on another machine, has not renewed for ``expiry`` seconds.
    """
    holder = _current(root, max(_tokens(root / _FOLDER), default=0))
    if holder is None:
        return None, False
    if holder.released is not None or holder.is_dead:
        return holder, False
    return holder, holder.is_here or now - holder.renewed < expiry


def _may_be_taken(root: Path, previous: Holder, clock: Clock, expiry: float) -> None:
    if previous.released is not None or previous.is_dead:
        return
    if previous.is_here:
        raise _held(root, previous, f"if that is not wanted: kill -INT {previous.pid}")
    silent = min(clock.now() - previous.renewed, _age(root / DRIVER))
    if silent < expiry:
        raise _held(
            root,
            previous,
            f"if {previous.host} is gone for good, the lease expires in {max(1, round(expiry - silent))} s; "
            "else end it there",
        )


def _unreadable_may_be_taken(path: Path, expiry: float) -> None:
    """Judge a token whose content was never written whole: a driver that died, or one at its start."""
    if _age(path) < expiry:
        raise HeldByAnother(
            f"a driver is just starting: {path} has no content yet",
            hint=f"try again in a moment; if none is, remove {path}",
        )


def _held(root: Path, holder: Holder | None, advice: str) -> HeldByAnother:
    who = "another driver" if holder is None else str(holder)
    ago = "" if holder is None else f" (last sign of life {time.strftime('%H:%M:%S', time.localtime(holder.renewed))})"
    return HeldByAnother(
        f"the study in {root} is driven by {who}{ago}",
        hint="wait for it, or watch it with `survey status`" + (f"; {advice}" if advice else ""),
    )


def _current(root: Path, newest: int) -> Holder | None:
    """Read the holder of the token ``newest``: its renewed record if it has one, else its claim."""
    shown = Holder.from_json(read_in_words(root / DRIVER))
    if shown is not None and shown.token >= newest:
        return shown
    return Holder.from_json(read_in_words(root / _FOLDER / _name(newest))) if newest else None


def _name(token: int) -> str:
    return f"{token:08d}.json"


def _tokens(folder: Path) -> set[int]:
    """List the tokens that were ever taken and not tidied away."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise SurveyError(f"cannot read {folder}: {error.strerror}") from error
    return {int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdecimal()}


def _age(path: Path) -> float:
    """Seconds since ``path`` was written, by the clock of its own file system; 0 if it is not there."""
    probe = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.probe")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _lock(path: Path) -> tuple[int | None, bool]:
    """Lock ``path``: the descriptor that holds the lock, and whether another process has it.

    Neither is had where locks do not work. An extra only: success proves nothing (locks may be local
    to a machine), nor does failure across machines (a server may keep a dead client's lock).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None, False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return None, isinstance(error, BlockingIOError)
    return descriptor, False


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _process_start(pid: int) -> str:
    """Read field 22 of ``/proc/<pid>/stat`` (proc(5)); empty if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The command's name, in parentheses, may hold anything, parentheses and spaces too.
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else rest[18]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return str(os.getuid())
