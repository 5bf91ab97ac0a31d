"""A study's record for readers: made by the driver, or from the database where no driver runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.search.layout import StudyFolder
from orchestrator.store.record import StudyRecord

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.model import Attempt, Json
    from orchestrator.store.record import TrialRecord

__all__ = ["read_study", "studies_below", "study_record", "trial_directory"]


def study_record(
    study: Study,
    trials: tuple[TrialRecord, ...],
    *,
    site: str,
    state: str,
    message: str,
    root: Path,
    planned: int,
    updated: float,
    provenance: Mapping[str, Json],
) -> StudyRecord:
    """The study as readers see it."""
    frozen = study.frozen()
    return StudyRecord(
        name=study.name,
        objectives=tuple(item.metric for item in study.targets),
        directions=tuple(item.direction for item in study.targets),
        space=frozen["space"],
        sampler=frozen["sampler"],
        planned=planned,
        parallel=study.parallel,
        site=site,
        state=state,
        message=message,
        updated=updated,
        root=str(root),
        trials=trials,
        provenance=provenance,
    )


def read_study(root: Path) -> StudyRecord:
    """The record of the study in ``root``; never disturbs a driver that runs.

    Raises
    ------
    UsageError
        If there is no study.
    """
    from orchestrator.store.snapshot import read

    folder = StudyFolder(root)
    if not folder.begun:
        raise UsageError(f"{root} holds no study", hint="name the folder of a study, or its study.yaml")
    return read(root, loader=lambda root: _from_database(StudyFolder(root)))


def studies_below(root: Path) -> list[Path]:
    """Folders of studies below ``root`` (those of comparisons too), the latest first."""
    found = {path.parent for pattern in ("*/events.jsonl", "*/*/events.jsonl") for path in root.glob(pattern)}
    return sorted(found, key=lambda folder: (folder / "events.jsonl").stat().st_mtime, reverse=True)


def trial_directory(root: Path, attempt: Attempt, *, user: str | None = None, home: str | None = None) -> Path:
    """Folder in which an attempt of the study in ``root`` runs; ``user`` and ``home`` are the site's if not ours."""
    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.jobs.staging import attempt_directory
    from orchestrator.store.atomic import read_json

    folder = StudyFolder(root)
    several = folder.site_called(attempt.site)
    site, study = load_site(several if several.is_file() else folder.site), Study.load(folder.study)
    for choice in study.sites:
        if site.name == choice.name:
            study = study.at(choice)
    mark = read_json(root / "id")
    name = f"{study.name}-{mark['id']}" if isinstance(mark, dict) and site.work_root is not None else study.name
    work_root = site.resolved_work_root(root.parent, name, group=site.group_of(study.batch), user=user, home=home)
    return Path(attempt_directory(work_root, attempt.key, attempt.number))


def _from_database(folder: StudyFolder) -> StudyRecord:
    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.store.atomic import read_json
    from orchestrator.store.studydb import read_trials

    study = Study.load(folder.study)
    trials = read_trials(folder.root, name=study.name, url=study.storage_url())
    finished = [trial for trial in trials if trial.state in {"complete", "pruned", "failed"}]
    done = len(finished) >= study.trials
    return study_record(
        study,
        trials,
        site=", ".join(load_site(path).name for path in folder.sites),
        state="done" if done else ("interrupted" if trials else "new"),
        message="",
        root=folder.root,
        planned=study.trials,
        updated=max((trial.ended or trial.created or 0.0 for trial in trials), default=0.0),
        provenance=read_json(folder.provenance) or {},
    )
