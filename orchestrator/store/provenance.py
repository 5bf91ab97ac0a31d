"""What a study was run with: code, packages, machine, data. It never fails a study: what cannot be had is said.

Environment variables are not recorded, apart from the loaded modules: they hold secrets.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import itertools
import os
import platform
import socket
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store.atomic import write_json
from orchestrator.store.database import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["collect", "write"]

PROVENANCE = "provenance.json"
_DIFF_LIMIT = 256 * 1024
_WHOLE_FILE_LIMIT = 64 * 2**20  # larger files that are named are known by size and time only
_SMALL_FILE_LIMIT = 2**20
_SMALL_FILES = 100
_FILES_LIMIT = 20_000  # a parallel file system gives a few thousand a second
_GIT_SECONDS = 20.0


def collect(
    workdir: Path,
    command: str | Sequence[str],
    extra_files: Iterable[Path] = (),
    *,
    now: float,
) -> dict[str, Any]:
    """Gather what is needed to run the study again.

    Parameters
    ----------
    workdir : Path
        Where the trials' code lies; its git commit, branch and uncommitted changes are recorded.
    command : str or sequence of str
        The trials' command.
    extra_files : iterable of Path
        Files and folders whose content is fingerprinted: the study file, data sets. With a
        ``dataset.json`` its whole folder is.
    now : float
        Seconds since the epoch.

    Returns
    -------
    dict
        Plain JSON data; an entry that could not be had is ``{"missing": reason}``.
    """
    return {
        "time": now,
        "argv": [redact(word) for word in sys.argv],
        "command": redact(command) if isinstance(command, str) else [redact(word) for word in command],
        "workdir": str(workdir),
        "git": _had(lambda: _git(workdir)),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": _had(_packages),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "user": _had(getpass.getuser),
        "modules": [module for module in os.environ.get("LOADEDMODULES", "").split(":") if module],
        "files": {str(path): _had(functools.partial(_fingerprint, path)) for path in extra_files},
    }


def write(root: Path, data: dict[str, Any]) -> None:
    """Write ``provenance.json`` into the study's folder."""
    write_json(root / PROVENANCE, data)


def _had(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception as error:  # a study must not fail on what is only good to know
        return {"missing": f"{type(error).__name__}: {error}"}


def _git(workdir: Path) -> dict[str, Any]:
    def git(*words: str) -> str:
        # Without optional locks: reading must not get into the way of the user's own git.
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(workdir), *words],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise RuntimeError(said or f"git exited with {done.returncode}")
        return done.stdout.decode(errors="replace")

    commit = git("rev-parse", "--verify", "HEAD").strip()
    diff = git("diff", "HEAD", "--no-ext-diff", "--no-color")
    untracked = git("ls-files", "--others", "--exclude-standard").splitlines()
    return {
        "commit": commit,
        "branch": git("rev-parse", "--abbrev-ref", "HEAD").strip(),
        "dirty": bool(diff),
        "diff": diff[:_DIFF_LIMIT],
        "diff_cut": len(diff) > _DIFF_LIMIT,
        "untracked": untracked[:_SMALL_FILES],
    }


@functools.cache
def _packages() -> dict[str, str]:
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: str(item[0]).lower()))


def _fingerprint(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _manifest(path)
    found = _file(path, _WHOLE_FILE_LIMIT)
    if path.name == "dataset.json":
        found["folder"] = _manifest(path.parent)
    return found


def _file(path: Path, limit: int) -> dict[str, Any]:
    status = path.stat()
    found: dict[str, Any] = {"size": status.st_size, "modified": status.st_mtime}
    # A device or a pipe that a command names (/dev/zero) has no end.
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        with path.open("rb") as file:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    """Fingerprint a folder by the names, sizes and times of its files; small ones by content too."""
    lines: list[str] = []
    total = 0
    small: dict[str, str] = {}
    paths = (Path(parent) / name for parent, _, names in _walk(folder) for name in names)
    for path in itertools.islice(paths, _FILES_LIMIT):
        status = path.stat() if path.exists() else path.lstat()
        relative = str(path.relative_to(folder))
        lines.append(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}")
        total += status.st_size
        if path.is_file() and status.st_size <= _SMALL_FILE_LIMIT and len(small) < _SMALL_FILES:
            small[relative] = _file(path, _SMALL_FILE_LIMIT)["sha256"]
    digest = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    return {
        "files": len(lines),
        "bytes": total,
        "manifest_sha256": digest,
        "sha256": small,
        "cut": next(paths, None) is not None,
    }


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in the order of names, so that equal folders have equal fingerprints."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        names.sort()
        yield parent, folders, names
