"""``survey clean``: what a study no longer needs on its work root, told first, removed on demand."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import emit_json, message
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, find_folder

if TYPE_CHECKING:
    from orchestrator.studies.cleaning import Spare

__all__ = ["clean"]


def clean(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    logs: Annotated[bool, typer.Option("--logs", help="Also what complete trials printed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it; without this it is only told.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a study no longer needs on its work root, and how much that is; with --yes, remove it.

    Checkpoints and artefacts of trials that have ended and are not among the best (`keep:` in study.yaml),
    and old versions of the staged library. What is in flight or unfinished, and the record, is never touched.
    """
    from orchestrator.clock import SystemClock
    from orchestrator.doctor.findings import amount
    from orchestrator.store.lease import Lease
    from orchestrator.studies import cleaning

    folder = find_folder(study, root)
    with Lease.acquire(folder, SystemClock()) if yes else contextlib.nullcontext():
        found = cleaning.clean(folder, logs=logs) if yes else cleaning.find_spare(folder, logs=logs)
    total = sum(each.size for each in found)
    if as_json:
        items = [dataclasses.asdict(each) for each in found]
        emit_json({"root": str(folder), "removed": yes, "bytes": total, "items": items})
        return
    for line in _lines(found):
        typer.echo(line)
    if not found:
        message(f"{folder.name}: there is nothing that it does not need")
    elif yes:
        message(f"{folder.name}: removed {amount(total)}")
    else:
        message(f"{folder.name}: {amount(total)} can go; nothing was removed (survey clean {folder} --yes does it)")


def _lines(found: Iterable[Spare]) -> list[str]:
    from orchestrator.doctor.findings import amount
    from orchestrator.studies.cleaning import KINDS

    found, lines = list(found), []
    for site in dict.fromkeys(each.site for each in found):
        for kind in KINDS:
            chosen = [each for each in found if (each.site, each.kind) == (site, kind)]
            if chosen:
                trials = len({each.trial for each in chosen})
                whose = f"{len(chosen)} old" if kind == "libraries" else f"of {trials} trial{'s' if trials > 1 else ''}"
                lines.append(f"{site}: {kind} {whose}, {amount(sum(each.size for each in chosen))}")
    return lines
