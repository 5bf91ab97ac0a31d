"""Logs, models and artefacts of a study whose work root is out of sight, brought here on request.

A driver may be at work meanwhile: nothing is locked, and of what is there only files that have ended
are taken whole.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site
from orchestrator.errors import SurveyError
from orchestrator.transports.registry import make_transport
from orchestrator.transports.remote import Greeting, RemoteTransport

__all__ = ["far_site", "fetch_tails", "fetch_tree", "is_far"]

_PIECE = 8 << 20  # bytes of one request: what is lost where a connection is cut
_FILES = 500  # of one request


def is_far(site: Site) -> bool:
    """Whether the site's files can only be had through its transport."""
    return site.transport.kind != "local"


@contextlib.asynccontextmanager
async def far_site(site: Site) -> AsyncIterator[tuple[RemoteTransport, Greeting]]:
    """Connect to a site whose files are out of sight, and let go of it again.

    Raises
    ------
    SurveyError
        What is wrong and what to do, as `RemoteTransport.open`.
    """
    transport = make_transport(site, SystemClock())
    assert isinstance(transport, RemoteTransport)
    try:
        yield transport, await transport.open()
    finally:
        await transport.close()


async def fetch_tails(
    transport: RemoteTransport, directory: str, names: Sequence[str], *, limit: int = 1 << 20
) -> dict[str, bytes]:
    """The last ``limit`` bytes of those files in ``directory`` that are there and not empty, in one request."""
    pieces = [(posixpath.join(directory, name), -limit, limit) for name in names]
    return {name: found for name, found in zip(names, await transport.read(pieces), strict=True) if found}


async def fetch_tree(transport: RemoteTransport, directory: str, target: Path) -> int | None:
    """Copy all files below ``directory`` into the folder ``target``; links are left out.

    Each file appears whole, by rename. Large ones come in pieces, so that a connection that is cut costs
    one of them.

    Returns
    -------
    int or None
        How many files there were; None if there is no such folder.

    Raises
    ------
    SurveyError
        If a file changed, or went away, meanwhile; if the site has a name for a file that cannot be one here.
    """
    files = await transport.tree(directory)
    if files is None:
        return None
    places = {name: _inside(target, name) for name in files}
    for batch in _batches(files):
        pieces = [(posixpath.join(directory, name), offset, length) for name, offset, length in batch]
        for (name, offset, length), content in zip(batch, await transport.read(pieces), strict=True):
            if content is None or len(content) != length:
                raise SurveyError(
                    f"{directory}/{name} changed while it was fetched", hint="try again once nothing writes there"
                )
            _write(places[name], offset, content, last=offset + length == files[name])
    return len(files)


def _batches(files: Mapping[str, int]) -> Iterator[list[tuple[str, int, int]]]:
    """Pieces of files, those of small ones together."""
    batch: list[tuple[str, int, int]] = []
    held = 0
    for name, size in sorted(files.items()):
        for offset in range(0, max(size, 1), _PIECE):
            length = min(_PIECE, size - offset)
            if batch and (held + length > _PIECE or len(batch) == _FILES):
                yield batch
                batch, held = [], 0
            batch.append((name, offset, length))
            held += length
    if batch:
        yield batch


def _inside(target: Path, name: str) -> Path:
    """Where a file goes; what the site says is not let out of ``target``."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise SurveyError(f"the site names a file {name!r}, which would lie outside of {target}")
    return target.joinpath(*parts)


def _write(path: Path, offset: int, content: bytes, *, last: bool) -> None:
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if offset else "wb") as stream:
        stream.write(content)
    if last:
        os.replace(part, path)
