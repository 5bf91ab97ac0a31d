"""``survey import``: go on with a study that was begun with Optuna elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.manners import be_private
from orchestrator.cli.output import emit_json, message
from orchestrator.cli.target import JsonOption, RootOption

__all__ = ["import_study"]


def import_study(
    url: Annotated[
        str, typer.Argument(help="sqlite:///old.db, journal:old.log, postgresql://me:${PASSWORD}@host/db, mysql://...")
    ],
    study: Annotated[Path, typer.Option("--study", help="study.yaml of the study that is to go on with the trials.")],
    name: Annotated[str, typer.Option("--name", help="The study in the database; needed where it has several.")] = "",
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Take the ended trials of an Optuna study over as the first trials of a new one; `survey run` goes on from there.

    They count in the budget. What is not a point of the new study's space is left out and said; the database
    is only read.
    """
    be_private()
    from orchestrator.config.study import Study
    from orchestrator.studies.importing import import_study as take_over

    plan = Study.load(study)
    done = take_over(plan, url, name or None, root=root, origin=study.resolve().parent)
    if as_json:
        emit_json({"study": plan.name, **dataclasses.asdict(done), "root": str(done.root)})
        return
    for line in done.lines:
        message(line)
    taken = len(done.numbers)
    states = ", ".join(f"{count} {word}" for word, count in done.states.items())
    typer.echo(f"{plan.name}: {taken} trials imported from {done.source} ({states})")
    left = plan.trials - taken
    if left > 0:
        typer.echo(f"{left} of {plan.trials} trials are left: survey run {study}")
    else:
        typer.echo(f"its budget of {plan.trials} trials is spent: raise `trials` in {study} to go on")
