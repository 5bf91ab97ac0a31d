"""``survey best --evaluate``: the best trials run again on the test cases, with fresh seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.output import emit_json, message, print_table
from orchestrator.errors import TooManyFailures, UsageError

if TYPE_CHECKING:
    from orchestrator.store.evaluation import EvaluatedTrial, EvaluationRecord

__all__ = ["evaluate", "tested"]

_TOLD = {"waiting", "held", "trouble", "retry"}


def evaluate(study: str, root: Path, *, count: int, site: str, ask: bool, as_json: bool) -> None:
    """Run the best trials again as the study's ``evaluate:`` says, and show what came of it.

    Raises
    ------
    TooManyFailures
        Some runs have no result.
    """
    from orchestrator.cli.consent import announce
    from orchestrator.cli.manners import be_nice, be_private, hold_threads
    from orchestrator.cli.run import drive
    from orchestrator.cli.target import find_folder, load_target
    from orchestrator.search.evaluation import EvaluationDriver
    from orchestrator.search.freeze import refuse_another
    from orchestrator.search.layout import StudyFolder
    from orchestrator.search.places import places_of
    from orchestrator.studies.forecast import cost_on
    from orchestrator.studies.reader import read_study

    be_private()
    hold_threads()
    target = load_target(study, root)
    folder = StudyFolder(find_folder(study, root))
    refuse_another(target.study, folder)
    how, record = target.study.evaluate, read_study(folder.root)
    trials = record.best(count or (how.best if how is not None else 1))
    if not trials:
        words = record.nothing_feasible or "it has no complete trial yet"
        raise UsageError(f"study {record.name!r} has no best trial: {words}", hint="see `survey status`")
    places = places_of(target.study, target.origin, target.chosen(site))
    be_nice([place.site for place in places])

    def heard(event: Mapping[str, Any]) -> None:
        if event["event"] == "evaluated":
            said = ", ".join(
                f"{name} {event['metrics'][name]:.6g}" for name in driver.metrics if name in event["metrics"]
            )
            said = said or f"{event['verdict']}: {event['message']}"
            message(f"trial {event['number']}, run {event['run']}: {said}  [{event['left']} to come]")
        elif event["event"] in _TOLD:
            message(f"{event['event']}: {event['message']}")

    driver = EvaluationDriver(target.study, places, folder, trials, origin=target.origin, on_event=heard)
    assert how is not None
    if any(place.site.scheduler != "local" for place in places):
        names = ", ".join(place.site.name for place in places)
        headline = f"{record.name} on {names}: {len(trials)} trials x {how.repeats} runs on the test cases"
        cost = cost_on(places[0].study.model_copy(update={"repeats": how.repeats}), places[0].site, len(trials))
        announce([headline], cost, ask=ask)
    found, code = drive(driver, folder.root, on_hangup=driver.leave)
    if as_json:
        emit_json({"study": record.name, "evaluation": dataclasses.asdict(found)})
    else:
        _show(found, record.objectives)
    failed = [(trial, run) for trial in found.trials for run in trial.runs if run.verdict != "succeeded"]
    if failed and code == 0:
        trial, run = failed[0]
        raise TooManyFailures(
            f"{len(failed)} of {sum(len(each.runs) for each in found.trials)} runs have no result, the first one is run"
            f" {run.run} of trial {trial.number}: {run.verdict}: {run.reason}",
            hint=f"see {run.directory}; the same command runs those again that have none",
        )
    raise typer.Exit(code)


def tested(trial: EvaluatedTrial, metrics: tuple[str, ...]) -> str:
    """What a trial came to on the test cases: ``pauc 0.71 ± 0.02 (3 runs)``."""
    parts = []
    for name in metrics:
        if (result := trial.result(name)) is not None:
            middle, spread, count = result
            of = "1 run" if count == 1 else f"{count} runs"
            parts.append(f"{name} {middle:.6g}" + ("" if spread is None else f" ± {spread:.2g}") + f" ({of})")
    return ", ".join(parts)


def _show(found: EvaluationRecord, objectives: tuple[str, ...]) -> None:
    rows = []
    for trial in found.trials:
        chosen = ", ".join(f"{value:.6g}" for value in trial.values)
        rows.append((str(trial.number), chosen, tested(trial, found.metrics) or "no result"))
    print_table(("trial", f"chosen by {', '.join(objectives)}", "on the test cases"), rows, fold=True)
