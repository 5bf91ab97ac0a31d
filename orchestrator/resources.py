"""One finder for the data that ships beside the code: ``templates/`` and ``sites/``.

A user's own files come first, then the system's, then the ones that ship. In a wheel the shipped
ones lie in ``orchestrator/data``; in a checkout (editable installs too) at the top level.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["APP", "find", "folders", "names"]

APP = "survey-orchestrator"


def _shipped(kind: str) -> Path:
    package = Path(__file__).resolve().parent
    inside = package / "data" / kind
    return inside if inside.is_dir() else package.parent / kind


def folders(kind: str) -> tuple[Path, ...]:
    """Folders that are searched for ``kind`` (``"templates"`` or ``"sites"``), first match wins."""
    import platformdirs

    return (
        Path(platformdirs.user_config_dir(APP)) / kind,
        Path("/etc") / APP / kind,
        _shipped(kind),
    )


def find(kind: str, name: str) -> Path | None:
    """Path of the file ``name`` of ``kind``, or None where no folder has it."""
    for folder in folders(kind):
        path = folder / name
        if path.is_file():
            return path
    return None


def names(kind: str, suffix: str) -> dict[str, Path]:
    """All files of ``kind`` by stem, the one that wins for each, sorted by name."""
    found: dict[str, Path] = {}
    for folder in reversed(folders(kind)):
        if folder.is_dir():
            found.update({path.name.removesuffix(suffix): path for path in sorted(folder.glob(f"*{suffix}"))})
    return dict(sorted(found.items()))
