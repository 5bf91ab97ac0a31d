"""A study's record is its owner's alone, unless study.yaml names a Unix group that may read it.

Then its folders get the mode 2750 and its files 0640, whatever the umask. What trials write below
``trials/`` stays private in any case: it is made by their own jobs, on any machine.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from contextvars import ContextVar
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["settled", "settled_folder", "shared"]

_FOLDER = 0o2750
_FILE = 0o640
_PRIVATE_FOLDER = 0o700
_PASSABLE = 0o711
# Of the site's work root, which is the same folder where the driver runs on the site; and what is for the owner's eyes.
_NOT_OF_THE_RECORD = {"trials", "lib", ".localq", "driver.log", "evaluation"}

_ROOT: ContextVar[Path | None] = ContextVar("root of the record that a group may read", default=None)


@contextlib.contextmanager
def shared(root: Path, group: str | None) -> Iterator[None]:
    """What is written below ``root`` in this context may be read by ``group``; by its owner alone if that is None.

    Raises
    ------
    UsageError
        There is no such group, or its members do not include us.
    """
    if group is None:
        _make_private(root)
        yield
        return
    _open_to(root, group)
    token = _ROOT.set(root)
    try:
        yield
    finally:
        _ROOT.reset(token)


def settled(descriptor: int, path: Path) -> int:
    """Give a new file of ``path`` its mode; returns ``descriptor``."""
    if _is_shared(path):
        os.fchmod(descriptor, _FILE)
    return descriptor


def settled_folder(path: Path) -> None:
    """Give a new folder its mode; its group it has from the folder above."""
    if _is_shared(path):
        os.chmod(path, _FOLDER)


def _is_shared(path: Path) -> bool:
    root = _ROOT.get()
    return root is not None and path.is_relative_to(root)


def _open_to(root: Path, group: str) -> None:
    number = _number(group)
    missing = [folder for folder in root.parents if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
    for folder in missing:
        os.chmod(folder, _PASSABLE)  # to be passed through by those who know the name below, not to be looked into
    try:
        for path in _record(root):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                # A change of group takes the set-group-id bit away: the mode comes after it.
                os.fchown(descriptor, -1, number)
                os.fchmod(descriptor, _FOLDER if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _FILE)
            finally:
                os.close(descriptor)
    except PermissionError as error:
        mine = ", ".join(sorted(_groups_of_mine()))
        raise UsageError(
            f"{error.filename or root} cannot be given to the group {group!r}: {error.strerror}",
            hint=f"`readers:` takes one of your groups: {mine}",
        ) from error


def _record(root: Path) -> Iterator[Path]:
    """The folder of a record and all that lies in it, no symbolic link followed."""
    yield root
    for folder, folders, files in os.walk(root):
        here = root if folder == str(root) else root / os.path.relpath(folder, root)
        if here == root:
            folders[:] = [name for name in folders if name not in _NOT_OF_THE_RECORD]
            files[:] = [name for name in files if name not in _NOT_OF_THE_RECORD]
        for name in (*folders, *files):
            if stat.S_ISDIR(mode := (here / name).lstat().st_mode) or stat.S_ISREG(mode):
                yield here / name


def _make_private(root: Path) -> None:
    """Close a folder that was open to a group, and was so by us."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(root.stat().st_mode) == _FOLDER:
            os.chmod(root, _PRIVATE_FOLDER)


def _number(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        mine = ", ".join(sorted(_groups_of_mine()))
        raise UsageError(f"readers: there is no group {group!r} here", hint=f"your groups: {mine}") from None


def _groups_of_mine() -> set[str]:
    names = set()
    for number in {os.getgid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.getuid())
        names.update(entry.gr_name for entry in grp.getgrall() if user.pw_name in entry.gr_mem)
    return names
