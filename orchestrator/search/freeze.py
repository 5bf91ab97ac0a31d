"""The study's folder keeps what was run: the study, the site, and where they came from.

A study that is run again may grow in a few ways; anything else ends with a diff, before a single
trial is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ResumeMismatch
from orchestrator.search.warm_start import facts as warm_start_facts
from orchestrator.search.warm_start import keep
from orchestrator.store.atomic import make_directory, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from orchestrator.config.site import Site
    from orchestrator.config.study import Study
    from orchestrator.model import Json
    from orchestrator.search.layout import StudyFolder

__all__ = ["freeze", "freeze_imported", "refuse_another", "refuse_elsewhere"]


def freeze(
    study: Study,
    sites: Sequence[Site],
    folder: StudyFolder,
    *,
    origin: Path,
    now: float,
    on_change: Callable[[list[str]], None],
    on_warm_start: Callable[[tuple[str, ...]], None] = lambda _lines: None,
) -> Mapping[str, Json]:
    """Compare with what the folder holds, or fill it; returns the study's provenance.

    Parameters
    ----------
    on_change : callable
        Told what has changed since the last run, and may.
    on_warm_start : callable
        Told, before the first run, what the study begins with and what of it does not match.

    Raises
    ------
    ResumeMismatch
        If the folder holds another study, or this one with something changed that may not change.
    UsageError, SurveyError
        If the earlier trials that the study is to begin with cannot be used, or are gone.
    """
    if folder.study.exists():
        if allowed := refuse_another(study, folder):
            on_change(allowed)
        refuse_elsewhere(sites, folder)
    # Before the study itself: a folder that has one has its earlier trials, too.
    if lines := keep(study, folder, origin):
        on_warm_start(lines)
    _write_with_origin(folder.study, study.to_yaml(), f"study {study.name}, from {origin}")
    _write_sites(sites, folder)
    return _provenance(study, folder, origin, now, on_change)


def freeze_imported(
    study: Study, folder: StudyFolder, imported: Mapping[str, Json], *, origin: Path, now: float
) -> None:
    """Fill the folder of a study whose first trials come from elsewhere, and which no site has seen yet.

    Raises
    ------
    UsageError, SurveyError
        If the earlier trials that the study is to begin with beside these cannot be used.
    """
    from orchestrator.store.provenance import collect

    keep(study, folder, origin)
    facts = collect(origin, study.command, _data(study, origin, folder.root), now=now)
    write_json(folder.provenance, {**facts, **warm_start_facts(folder), "imported": imported, "runs": []})
    _write_with_origin(folder.study, study.to_yaml(), f"study {study.name}, from {origin}")


def refuse_another(study: Study, folder: StudyFolder) -> list[str]:
    """Lines of what has changed since the study in ``folder`` was begun, and may.

    Raises
    ------
    ResumeMismatch
        If something has changed that may not.
    """
    from orchestrator.config.study import Study as StudyModel
    from orchestrator.config.study import compare

    forbidden, allowed = compare(StudyModel.load(folder.study), study)
    if forbidden:
        lines = "\n".join(f"    {line}" for line in forbidden)
        raise ResumeMismatch(
            f"study {study.name!r} in {folder.root} was begun with another definition:\n{lines}",
            hint="give the new study another name, or put the old values back",
        )
    return allowed


def refuse_elsewhere(sites: Sequence[Site], folder: StudyFolder) -> None:
    """Refuse other sites as long as jobs are in flight: they know nothing of them, and would run them again.

    Raises
    ------
    ResumeMismatch
        Naming the trials in flight and their site.
    """
    from orchestrator.config.site import load_site
    from orchestrator.store.ledger import Ledger

    now = {_identity(site) for site in sites}
    before = [load_site(path) for path in folder.sites]
    gone = [site.name for site in before if _identity(site) not in now]
    if not gone:
        return
    ledger = Ledger(folder.root)
    latest = {key: ledger.latest(key) for key in ledger.keys()}  # noqa: SIM118  a ledger is no dict
    flying = [
        key
        for key, attempt in latest.items()
        if attempt is not None and attempt.outcome is None and (attempt.site or gone[0]) in gone
    ]
    if flying:
        here = ", ".join(repr(site.name) for site in sites)
        more = f" and {len(flying) - 5} more" if len(flying) > 5 else ""
        raise ResumeMismatch(
            f"trials of the study in {folder.root} are in flight on site {gone[0]!r} and cannot be followed"
            f" from site {here}: {', '.join(flying[:5])}{more}",
            hint=f"run it with --site {gone[0]} until they have ended (one interrupt drains it), then change the site",
        )


def _identity(site: Site) -> tuple[str, str, str | None]:
    return site.name, site.scheduler, site.work_root


def _write_sites(sites: Sequence[Site], folder: StudyFolder) -> None:
    words = "as it was at the latest run"
    _write_with_origin(folder.site, sites[0].to_yaml(), f"site {sites[0].name}, {words}")
    several = {folder.site_called(site.name): site for site in sites} if len(sites) > 1 else {}
    for path in folder.sites:
        if path != folder.site and path not in several:
            path.unlink()
    for path, site in several.items():
        make_directory(path.parent)
        _write_with_origin(path, site.to_yaml(), f"site {site.name}, {words}")


def _provenance(
    study: Study, folder: StudyFolder, origin: Path, now: float, on_change: Callable[[list[str]], None]
) -> Mapping[str, Json]:
    from orchestrator.store.provenance import collect

    known: Any = read_json(folder.provenance)
    facts = collect(origin, study.command, _data(study, origin, folder.root), now=now)
    if isinstance(known, dict) and "runs" in known:
        before = known.get("files", {})
        if changed := [name for name, mark in facts["files"].items() if before.get(name, mark) != mark]:
            on_change([f"{name} is not what it was when the study was begun" for name in changed])
        brief: dict[str, Any] = {name: facts[name] for name in ("time", "host", "user", "git", "argv") if name in facts}
        known["runs"].append({**brief, **({"changed": changed} if changed else {})})
        write_json(folder.provenance, known)
        return known
    first = {**facts, **warm_start_facts(folder), "runs": []}
    write_json(folder.provenance, first)
    return first


def _data(study: Study, origin: Path, record: Path) -> list[Path]:
    """Files and folders that the study names: under `data`, and as words of its command."""
    folder = origin if study.workdir is None else origin / study.workdir
    words = study.command.split() if isinstance(study.command, str) else study.command
    named = [folder / word for word in words if not word.startswith("-")]
    return list(
        dict.fromkeys([*(origin / name for name in study.data), *(path for path in named if _is_data(path, record))])
    )


def _is_data(path: Path, record: Path) -> bool:
    """Whether ``path`` is there, and not a folder (``.``, ``/``) that changes because the study's record lies in it."""
    try:
        return path.exists() and not record.is_relative_to(path.resolve())
    except (OSError, ValueError):  # a line for the shell is cut into words that may be no names at all
        return False


def _write_with_origin(path: Path, text: str, words: str) -> None:
    header = f"# {json.dumps(words, ensure_ascii=False)[1:-1]}\n"
    write_bytes(path, (header + text).encode())
