"""``survey retry``: ask for failed trials again, each in its own place of the budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import emit_json, message
from orchestrator.cli.target import JsonOption, RootOption, find_folder
from orchestrator.errors import UsageError

__all__ = ["retry"]


def retry(
    trials: Annotated[
        list[int] | None, typer.Argument(help="Numbers of the trials.", min=0, metavar="TRIAL...")
    ] = None,
    study: Annotated[str, typer.Option("--study", help="study.yaml, a study's folder or its name; the latest.")] = "",
    root: RootOption = Path("runs"),
    every: Annotated[bool, typer.Option("--all", help="All failed trials that were not asked for again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for failed trials again; the next `survey run` of the study runs them.

    Each becomes a new trial with the same parameters and a seed of its own. It has the failed one's
    place in the budget, so that the study does not grow. It is run also where a rule of `stop:` on values
    has ended the study, and not beyond a limit of hours. While a driver runs nothing can be asked for.
    """
    from orchestrator.clock import SystemClock
    from orchestrator.config.study import Study
    from orchestrator.search.layout import StudyFolder
    from orchestrator.store.lease import Lease
    from orchestrator.store.retrying import failed_trials, retry_trials
    from orchestrator.store.studydb import StudyDatabase
    from orchestrator.studies.reader import read_study

    if bool(trials) == every:
        raise UsageError(
            "name the trials that are to run again, or say --all", hint="`survey status` shows which failed"
        )
    folder = StudyFolder(find_folder(study, root))
    found, clock = Study.load(folder.study), SystemClock()
    with (
        Lease.acquire(folder.root, clock) as lease,
        StudyDatabase.open(
            folder.root,
            name=found.name,
            directions=[item.direction for item in found.targets],
            url=found.storage_url(),
            definition=found.frozen(),
            guard=lease.check,
        ) as database,
    ):
        pairs = retry_trials(database, failed_trials(database) if every else trials or ())
        with folder.events.open("a", encoding="utf-8") as events:
            for old, new in pairs:
                event = {"time": clock.now(), "event": "asked-again", "number": new, "retry_of": old}
                events.write(json.dumps(event) + "\n")
    if as_json:
        emit_json({"study": found.name, "retries": [{"trial": new, "retry_of": old} for old, new in pairs]})
        return
    for old, new in pairs:
        typer.echo(f"trial {old} is asked for again, as trial {new}")
    if pairs and (record := read_study(folder.root)).state == "done":
        message(
            f"it does not run as long as a limit of the study is reached ({record.message}): raise it in study.yaml"
        )
    typer.echo(
        f"`survey run {found.name}` runs {'them' if len(pairs) > 1 else 'it'}" if pairs else "no trial has failed"
    )
