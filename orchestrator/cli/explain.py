"""``survey explain``: why nothing runs, why a trial was retried, what happens next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import emit_json
from orchestrator.cli.target import JsonOption, RootOption, find_folder
from orchestrator.errors import UsageError

__all__ = ["explain"]


def explain(
    trial: Annotated[int | None, typer.Argument(help="Number of a trial; the whole study if left out.", min=0)] = None,
    study: Annotated[str, typer.Option("--study", help="study.yaml, a study's folder or its name; the latest.")] = "",
    root: RootOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Say in sentences why nothing runs, why a trial was run again, what happens next.

    It reads what lies in the study's folder, and asks neither driver nor scheduler.
    """
    from orchestrator.studies.account import Account

    folder = find_folder(study, root)
    account = Account.of(folder)
    if trial is None:
        subject, lines = f"{account.record.name} on {account.record.site}", account.study()
    else:
        found = next((each for each in account.record.trials if each.number == trial), None)
        if found is None:
            there = len(account.record.trials)
            raise UsageError(
                f"{folder.name} has no trial {trial}",
                hint=f"it has trials 0 to {there - 1}; see `survey status`" if there else "none was begun yet",
            )
        subject, lines = f"Trial {trial} of {account.record.name}", account.trial(found)
    if as_json:
        emit_json({"root": str(folder), "trial": trial, "sentences": [line.strip() for line in lines]})
        return
    typer.echo(f"{subject}:")
    for line in lines:
        typer.echo(line)
