"""``survey best``: the best trials, and their models and predictions."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import emit_json, message
from orchestrator.cli.run import goals
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, find_folder
from orchestrator.errors import UsageError
from orchestrator.store.atomic import told_in_words

if TYPE_CHECKING:
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["best"]


def best(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    count: Annotated[int, typer.Option("--count", "-n", help="How many.", min=1)] = 1,
    export: Annotated[
        Path | None, typer.Option("--export", help="Copy their parameters, metrics and artefacts into this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the best trials; with --export, copy what they left (model, predictions, metrics per case)."""
    from orchestrator.search.reader import read_study

    record = read_study(find_folder(study, root))
    chosen = record.best(count)
    if not chosen:
        raise UsageError(f"study {record.name!r} has no complete trial yet", hint="see `survey status`")
    if export is not None:
        with told_in_words(export):
            for rank, trial in enumerate(chosen, start=1):
                _copy(record, trial, export / f"{rank:02d}-trial-{trial.number:05d}")
        message(f"exported {len(chosen)} trial{'s' if len(chosen) > 1 else ''} to {export}")
    if as_json:
        emit_json({"study": record.name, "best": [dataclasses.asdict(trial) for trial in chosen]})
        return
    for trial in chosen:
        typer.echo(f"trial {trial.number}: {goals(record, trial)}")
        for name, value in trial.params.items():
            typer.echo(f"  {name} = {value:.6g}" if isinstance(value, float) else f"  {name} = {value}")
        others = {name: value for name, value in trial.metrics.items() if name not in record.objectives}
        if others:
            typer.echo("  " + ", ".join(f"{name} {value:.4g}" for name, value in others.items()))
        typer.echo(f"  {trial.directory}")


def _copy(record: StudyRecord, trial: TrialRecord, place: Path) -> None:
    """Copy what is known of a trial, and what it left, into ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    facts = {
        "study": record.name,
        "trial": trial.number,
        "params": trial.params,
        "values": trial.values,
        "metrics": trial.metrics,
        "info": trial.info,
    }
    (place / "trial.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    artifacts = Path(trial.directory) / "artifacts"
    if artifacts.is_dir():
        shutil.copytree(artifacts, place / "artifacts", dirs_exist_ok=True)
    else:
        message(f"trial {trial.number} kept no artefacts (see `keep:` in study.yaml)")
