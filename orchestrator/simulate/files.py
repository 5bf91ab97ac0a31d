"""A shared file system in memory, on which other nodes' writes may show up late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Files"]


@dataclass(slots=True)
class _Late:
    """A file that a compute node wrote: others see ``before`` until it has come through."""

    content: bytes
    visible: float
    before: bytes | None


class Files:
    """Files by folder.

    ``now`` of a reader is what decides which version of a file it sees; a reader without it is on the
    node that wrote the file, or the file server itself.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bytes | _Late]] = {}
        self._below: dict[str, dict[str, None]] = {}

    def write(self, path: str, content: bytes, *, visible: float | None = None, now: float = 0.0) -> None:
        """Put ``content`` at ``path`` whole; for others from the time ``visible`` on."""
        folder, _, name = path.rpartition("/")
        files = self._folders.get(folder)
        if files is None:
            files = self._folders[folder] = {}
            self._link(folder)
        if visible is None or visible <= now:
            files[name] = content
        else:
            old = files.get(name)
            before = (
                old if isinstance(old, bytes) or old is None else (old.content if old.visible <= now else old.before)
            )
            files[name] = _Late(content, visible, before)

    def create(self, path: str, content: bytes, *, visible: float | None = None, now: float = 0.0) -> bool:
        """Put ``content`` at ``path`` unless something is there; the file server decides, so no lag counts."""
        if self.read(path) is not None:
            return False
        self.write(path, content, visible=visible, now=now)
        return True

    def append(self, path: str, content: bytes) -> None:
        """Add to the end of ``path``."""
        self.write(path, (self.read(path) or b"") + content)

    def read(self, path: str, now: float | None = None) -> bytes | None:
        """Content of ``path`` as a reader at the time ``now`` sees it."""
        folder, _, name = path.rpartition("/")
        return self.inside(folder, name, now)

    def inside(self, folder: str, name: str, now: float | None = None) -> bytes | None:
        """Content of the file ``name`` in ``folder`` as a reader at the time ``now`` sees it."""
        files = self._folders.get(folder)
        file = None if files is None else files.get(name)
        if isinstance(file, _Late):
            return file.content if now is None or file.visible <= now else file.before
        return file

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder ``path``."""
        return path in self._folders or path in self._below

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder."""
        return list(self._folders.get(folder, {}))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is below it; what is not there is fine."""
        folder, _, name = path.rpartition("/")
        self._folders.get(folder, {}).pop(name, None)
        for found in list(self._walk(path)):
            self._folders.pop(found, None)
            self._below.pop(found, None)
        self._below.get(folder, {}).pop(path, None)

    def _walk(self, folder: str) -> Iterator[str]:
        yield folder
        for below in list(self._below.get(folder, ())):
            yield from self._walk(below)

    def _link(self, folder: str) -> None:
        while folder:
            above = folder.rpartition("/")[0]
            below = self._below.setdefault(above, {})
            if folder in below:
                return
            below[folder] = None
            folder = above
