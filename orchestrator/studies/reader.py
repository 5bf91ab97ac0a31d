"""A study's record for readers: made by the driver, or from the database where no driver runs."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import SurveyError, UsageError
from orchestrator.search.layout import StudyFolder
from orchestrator.store.record import StudyRecord

if TYPE_CHECKING:
    from orchestrator.model import Attempt

__all__ = ["read_study", "studies_below", "trial_directory"]


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
    site, study = load_site(folder.site_of(attempt.site)), Study.load(folder.study)
    study = study.on(site.name)
    mark = read_json(root / "id")
    name = f"{study.name}-{mark['id']}" if isinstance(mark, dict) and site.work_root is not None else study.name
    work_root = site.resolved_work_root(root.parent, name, group=site.group_of(study.batch), user=user, home=home)
    return Path(attempt_directory(work_root, attempt.key, attempt.number))


def _from_database(folder: StudyFolder) -> StudyRecord:
    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.search.chronicle import study_record
    from orchestrator.search.places import Place
    from orchestrator.search.stopping import why_stop
    from orchestrator.search.usage import Hours, Usage
    from orchestrator.store.atomic import read_json
    from orchestrator.store.ledger import Ledger
    from orchestrator.store.studydb import read_trials

    study = Study.load(folder.study)
    trials = read_trials(folder.root, name=study.name, url=study.storage_url())
    flying = any(trial.state == "running" for trial in trials)
    updated = max((trial.ended or trial.created or 0.0 for trial in trials), default=0.0)
    sites = [load_site(path) for path in folder.sites]
    used, enough = Hours(), ""
    if sites:  # a study whose first trials were imported may have none yet
        with contextlib.suppress(SurveyError):  # a ledger that cannot be read is the driver's to judge
            usage = Usage(Ledger(folder.root), [Place(study=study.on(site.name), site=site) for site in sites])
            usage.load(trials)
            used = usage.total
            enough = why_stop(study.stop, trials, usage, direction=study.targets[0].direction, now=updated)
    again = {trial.retry_of for trial in trials}
    ended = sum(trial.state in {"complete", "pruned", "failed"} and trial.number not in again for trial in trials)
    done = ended >= study.trials or bool(trials and enough and not flying)
    return study_record(
        study,
        trials,
        site=", ".join(site.name for site in sites),
        state="done" if done else ("interrupted" if trials else "new"),
        message=enough if done else "",
        root=folder.root,
        planned=study.trials,
        updated=updated,
        used=dataclasses.asdict(used),
        provenance=read_json(folder.provenance) or {},
    )
