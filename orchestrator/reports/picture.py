"""The picture that a trial left: ``overview.png`` among its artefacts, for the report.

What cannot be shown is left out without an error: a report is read long after trials were cleaned away.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.store.record import StudyRecord

__all__ = ["MOST_BYTES", "NAME", "Picture", "best_picture"]

NAME = "overview.png"
MOST_BYTES = 4 * 2**20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The picture of trial ``number``, or, in words, why it is not shown.

    Attributes
    ----------
    uri : str
        The image as a ``data:`` URI; empty where it is not shown.
    """

    number: int
    uri: str = ""
    left_out: str = ""


def best_picture(record: StudyRecord, *, most: int = MOST_BYTES) -> Picture | None:
    """The picture of the best trial, of several objectives the first on the front; of several runs the first with one.

    Files are looked for where this machine sees the work root. Only what draws the image is taken: texts and times in
    the file, which may name a patient, are not.

    Parameters
    ----------
    most : int
        A larger file, in bytes, is left out with a word.

    Returns
    -------
    Picture or None
        None where no trial is best yet, it kept no picture, or the file is damaged.
    """
    for trial in record.best(1):
        for directory in trial.directories:
            path = Path(directory, "artifacts", NAME)
            try:
                # A device or a pipe would never end.
                size = path.stat().st_size if path.is_file() else 0
                if size > most:
                    words = f"{NAME} has {size / 2**20:.1f} MiB, more than the {most / 2**20:.3g} MiB that are shown"
                    return Picture(number=trial.number, left_out=words)
                image = _bare(path.read_bytes()) if size else b""
            except (OSError, ValueError):
                continue
            if image:
                uri = "data:image/png;base64," + base64.b64encode(image).decode()
                return Picture(number=trial.number, uri=uri)
    return None


def _bare(content: bytes) -> bytes:
    """A PNG file without its texts, times and profiles.

    Raises
    ------
    ValueError
        If it is no PNG, cut short, or damaged.
    """
    kept = [(name, chunk) for name, chunk in _chunks(content) if name in NEEDED]
    names = [name for name, _ in kept]
    if names[:1] != [b"IHDR"] or names[-1:] != [b"IEND"] or b"IDAT" not in names:
        raise ValueError("not a whole PNG")
    return SIGNATURE + b"".join(chunk for _, chunk in kept)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name of each chunk, and the chunk: length, name, data, checksum (PNG specification, W3C 2003, section 5.3)."""
    if not content.startswith(SIGNATURE):
        raise ValueError("not a PNG")
    place = len(SIGNATURE)
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        chunk = content[place:end]
        if end > len(content) or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise ValueError("cut short, or damaged")
        yield chunk[4:8], chunk
        if chunk[4:8] == b"IEND":
            return
        place = end
