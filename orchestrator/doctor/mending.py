"""What the doctor does when it is told to: a study's database, made again from its attempt files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.doctor.findings import Finding, Level
from orchestrator.doctor.study import examine_study
from orchestrator.jobs.life import ABORTED, FORGOTTEN, MOVED
from orchestrator.model import Verdict
from orchestrator.search import space as space_tools
from orchestrator.search.ending import ending
from orchestrator.search.layout import StudyFolder, run_of
from orchestrator.store.lease import read_holder
from orchestrator.store.rebuild import rebuild

if TYPE_CHECKING:
    from orchestrator.model import Attempt, Outcome
    from orchestrator.store.rebuild import Rebuilt
    from orchestrator.store.trials import Ending

__all__ = ["rebuild_study"]

_TELLING = {"database", "ledger", "values"}
_SURE = {Verdict.SUCCEEDED, Verdict.STOPPED}
_TO_BE_RUN_AGAIN = {ABORTED, FORGOTTEN, MOVED}


def rebuild_study(root: Path, *, now: float) -> Rebuilt | None:
    """Make the database of the study in the folder ``root`` again; None where it is well, and nothing was done.

    What a sampler has noted for itself is in no attempt file, so that a database that is well is left alone.

    Raises
    ------
    HeldByAnother
        A driver works on the study.
    Paused, SurveyError
        As `orchestrator.store.rebuild.rebuild`.
    """
    _, alive = read_holder(root, now=now)
    if not alive and not _needed(examine_study(root, now=now)):
        return None
    folder = StudyFolder(root)
    study = Study.load(folder.study)

    def ended(runs: Mapping[str, Sequence[Attempt]], seen: bool) -> Ending | None:
        outcomes: dict[int, Outcome] = {}
        sites: dict[int, str] = {}
        for key, attempts in runs.items():
            last = attempts[-1]
            if last.outcome is None:
                return None
            # A failure that nobody has seen told may be one that is tried again: the next driver decides.
            if not seen and (last.outcome.verdict not in _SURE or not _TO_BE_RUN_AGAIN.isdisjoint(last.notes)):
                return None
            outcomes[run_of(key)] = last.outcome
            sites[run_of(key)] = last.site or load_site(folder.site).name
        whole = len(outcomes) == study.repeats or not all(outcome.succeeded for outcome in outcomes.values())
        return ending(study, outcomes, sites) if whole else None

    return rebuild(
        root,
        name=study.name,
        directions=[item.direction for item in study.targets],
        url=study.storage_url(),
        definition=study.frozen(),
        suggest=lambda trial: space_tools.suggest(study.space, trial),
        ended=ended,
    )


def _needed(findings: Sequence[Finding]) -> bool:
    return any(finding.level is Level.ERROR and finding.subject in _TELLING for finding in findings)
