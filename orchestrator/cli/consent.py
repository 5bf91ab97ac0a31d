"""What a study will cost is said before it starts, and on a terminal asked about."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.output import message
from orchestrator.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.studies.forecast import Cost

__all__ = ["announce"]


def announce(headlines: Sequence[str], cost: Cost, *, ask: bool) -> None:
    """Say the cost; with ``ask``, and at a terminal, start only if the person there says yes.

    Raises
    ------
    typer.Exit
        With the code of an interrupt, if the answer is anything but yes: nothing was written or submitted.
    """
    asks = ask and sys.stdin.isatty() and sys.stderr.isatty()
    for line in (*headlines, str(cost)):
        # Nobody can agree to what -q has hidden.
        message(line, verbosity=-1 if asks else 0)
    if asks and not _agreed():
        message("nothing was submitted", verbosity=-1)
        raise typer.Exit(EXIT_INTERRUPTED)


def _agreed() -> bool:
    try:
        typer.echo("Start? [y/N] ", nl=False, err=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if not answer.endswith("\n"):
        typer.echo(err=True)  # the terminal is still on the line of the question
    return answer.strip().lower() in {"y", "yes"}
