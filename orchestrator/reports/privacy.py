"""What a report may say: parameters and metrics, and no names of files, which can name patients."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.model import Json

__all__ = ["provenance_rows", "without_paths"]

_QUOTED = re.compile(r"""(['"`])(?P<body>[^'"`\n]+)\1""")
_DATA = r"\.(?:nii|dcm|mha|mhd|nrrd|img|hdr|png|jpe?g|tiff?|bmp|npy|npz|h5|hdf5|csv|tsv|json|txt|mat|pkl)(?:\.gz)?\b"
_WORD = re.compile(rf"[^\s'\"`,;()\[\]]*(?:[^\s'\"`,;()\[\]:][/\\][^\s'\"`,;()\[\]]|^/|{_DATA})[^\s'\"`,;()\[\]]*")
_ROOTED = re.compile(r"(?<![\w.])(?:~|\.{1,2})?/[^\s'\"`,;()\[\]]+")
_FRACTION = re.compile(r"[\d.]+/[\d.]+[:.]?|[Nn]/[Aa]\.?|and/or|[Ii]/[Oo]")

PLACEHOLDER = "[path]"

# The rest of a provenance (arguments, file checksums, the diff, the user) stays in provenance.json.
SHOWN = ("commit", "branch", "dirty", "python", "platform", "version", "time", "created", "packages", "git", "modules")


def without_paths(text: str) -> str:
    """Replace what looks like a path or the name of a data file; the rest stays as it is.

    A failed program's last words are often the name of the file that it could not read.
    """
    text = _QUOTED.sub(lambda m: m[1] + PLACEHOLDER + m[1] if _is_path(m["body"]) else m[0], text)
    text = _ROOTED.sub(PLACEHOLDER, text)
    return _WORD.sub(lambda m: m[0] if _FRACTION.fullmatch(m[0]) or PLACEHOLDER in m[0] else PLACEHOLDER, text)


def provenance_rows(provenance: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Choose what a reader needs to run the study again and what names nobody."""
    found: list[tuple[str, str]] = []
    for name in SHOWN:
        value = provenance.get(name)
        if isinstance(value, dict):
            if "missing" in value:
                found.append((name, "not known"))
                continue
            inner = [(str(key), item) for key, item in value.items() if name == "packages" or key in SHOWN]
            if name == "packages":
                found.append((name, ", ".join(f"{key} {item}" for key, item in inner)))
            else:
                found += [(f"{name} {key}", _plain(item)) for key, item in inner]
        elif name in {"time", "created"} and isinstance(value, int | float):
            moment = dt.datetime.fromtimestamp(value, tz=dt.UTC)
            found.append((name, moment.strftime("%Y-%m-%d %H:%M:%S UTC")))
        elif value:
            found.append((name, _plain(value)))
    return found


def _is_path(text: str) -> bool:
    return ("/" in text and not _FRACTION.fullmatch(text)) or bool(re.search(_DATA, text))


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return without_paths(str(value))
