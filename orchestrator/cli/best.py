"""``survey best``: the best trials, and their models and predictions."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import emit_json, message
from orchestrator.cli.run import SiteOption, YesOption, goals
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, find_folder
from orchestrator.errors import UsageError
from orchestrator.reports.picture import NAME
from orchestrator.store.atomic import told_in_words

if TYPE_CHECKING:
    from orchestrator.store.record import StudyRecord, TrialRecord
    from orchestrator.transports.remote import RemoteTransport

__all__ = ["best"]


def best(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    count: Annotated[
        int, typer.Option("--count", "-n", help="How many; 0: one, of several objectives the whole front.", min=0)
    ] = 0,
    export: Annotated[
        Path | None, typer.Option("--export", help="Copy their parameters, metrics and artefacts into this folder.")
    ] = None,
    evaluated: Annotated[
        bool, typer.Option("--evaluate", help="Run them again on the test cases, as `evaluate:` in study.yaml says.")
    ] = False,
    site: SiteOption = "",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the best trials; with --export, copy what they left (model, predictions, metrics per case).

    With --evaluate they are run again on the test cases, with seeds that the search has not used: it goes on
    where it was stopped, and what has failed is run again. Neither the sampler nor the ranking learns of it.
    """
    from orchestrator.cli.evaluate import evaluate, tested
    from orchestrator.store.evaluation import read_evaluation
    from orchestrator.studies.reader import read_study

    if evaluated:
        evaluate(study, root, count=count, site=site, ask=not yes, as_json=as_json)
    record = read_study(find_folder(study, root))
    chosen = record.best(count or (1 if len(record.objectives) == 1 else max(1, len(record.front()))))
    if not chosen:
        words = record.nothing_feasible or "it has no complete trial yet"
        raise UsageError(f"study {record.name!r} has no best trial: {words}", hint="see `survey status`")
    front = {trial.number for trial in record.front()} if len(record.objectives) > 1 else set()
    if export is not None:
        with told_in_words(export):
            places = [export / f"{rank:02d}-trial-{trial.number:05d}" for rank, trial in enumerate(chosen, start=1)]
            for trial, place in zip(chosen, places, strict=True):
                _write_facts(record, trial, place)
            asyncio.run(_copy_artifacts(Path(record.root), list(zip(chosen, places, strict=True))))
        message(f"exported {len(chosen)} trial{'s' if len(chosen) > 1 else ''} to {export}")
    if as_json:
        emit_json({"study": record.name, "best": [dataclasses.asdict(trial) for trial in chosen]})
        return
    evaluation = read_evaluation(Path(record.root))
    on_test = {each.number: each for each in evaluation.trials} if evaluation is not None else {}
    metrics = evaluation.metrics if evaluation is not None else ()
    for trial in chosen:
        behind = ", behind the front" if front and trial.number not in front else ""
        typer.echo(f"trial {trial.number}: {goals(record, trial)}{behind}")
        for name, value in trial.params.items():
            typer.echo(f"  {name} = {value:.6g}" if isinstance(value, float) else f"  {name} = {value}")
        others = {name: value for name, value in trial.metrics.items() if name not in record.objectives}
        if others:
            typer.echo("  " + ", ".join(f"{name} {value:.4g}" for name, value in others.items()))
        if trial.number in on_test and (said := tested(on_test[trial.number], metrics)):
            typer.echo(f"  on the test cases: {said}")
        typer.echo(f"  {trial.directory}")
        for directory in trial.directories:
            if (picture := Path(directory, "artifacts", NAME)).is_file():
                typer.echo(f"  {picture}")


def _write_facts(record: StudyRecord, trial: TrialRecord, place: Path) -> None:
    """Write what is known of a trial into ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    facts = {
        "study": record.name,
        "trial": trial.number,
        "params": trial.params,
        "values": trial.values,
        "metrics": trial.metrics,
        "constraints": trial.constraints,
        "info": trial.info,
    }
    (place / "trial.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


async def _copy_artifacts(root: Path, places: Sequence[tuple[TrialRecord, Path]]) -> None:
    """Copy what trials left into a folder of each; from a site that is out of sight, through its transport."""
    from orchestrator.config.site import load_site
    from orchestrator.jobs.fetch import far_site, fetch_tree, is_far
    from orchestrator.search.layout import StudyFolder

    connected: dict[Path, RemoteTransport] = {}
    async with contextlib.AsyncExitStack() as stack:
        for trial, place in places:
            found = False
            for run, directory, name in _left_by(root, trial):
                file = StudyFolder(root).site_of(name)
                site = load_site(file) if file.is_file() else None
                if site is not None and is_far(site) and file not in connected:
                    connected[file], _ = await stack.enter_async_context(far_site(site))
                source, target = Path(directory) / "artifacts", place / "artifacts" / run
                if (far := connected.get(file)) is not None:
                    found |= bool(await fetch_tree(far, str(source), target))
                elif source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                    found = True
            if not found:
                message(f"trial {trial.number} kept no artefacts (see `keep:` in study.yaml)")


def _left_by(root: Path, trial: TrialRecord) -> list[tuple[str, str, str]]:
    """Where a trial, or each of its runs, has left its files: a name for the run, the folder, the site."""
    from orchestrator.search.layout import trial_key
    from orchestrator.store.ledger import Ledger

    if trial.runs:
        return [(f"run-{run.run}", run.directory, run.site) for run in trial.runs if run.directory]
    attempt = Ledger(root).latest(trial_key(trial.number))
    return [("", trial.directory, attempt.site if attempt is not None else "")]
