"""``survey logs``: what a trial's program and its job wrote."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import message
from orchestrator.cli.target import RootOption, find_folder
from orchestrator.errors import UsageError

__all__ = ["logs"]

_FILES = ("stdout", "stderr", "job.log")
_TAIL = 200


def logs(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    study: Annotated[str, typer.Option("--study", help="study.yaml, a study's folder or its name; the latest.")] = "",
    root: RootOption = Path("runs"),
    attempt: Annotated[int, typer.Option("--attempt", help="Which attempt; the last if 0.", min=0)] = 0,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Last lines of each file.", min=1)] = _TAIL,
) -> None:
    """Show the last lines of a trial's stdout, stderr and job log, and where they lie."""
    from orchestrator.search.layout import trial_key, trial_number
    from orchestrator.search.reader import trial_directory
    from orchestrator.store.ledger import Ledger

    folder = find_folder(study, root)
    ledger = Ledger(folder)
    attempts = ledger.attempts(trial_key(trial))
    if not attempts:
        known = sorted({trial_number(key) for key in ledger.keys()})  # noqa: SIM118  a ledger is no dict
        there = f"trials {known[0]} to {known[-1]} have" if known else "none has"
        raise UsageError(f"trial {trial} of {folder.name} has no attempt", hint=f"{there}; see `survey status`")
    chosen = next((each for each in attempts if each.number == attempt), attempts[-1] if attempt == 0 else None)
    if chosen is None:
        have = ", ".join(str(each.number) for each in attempts)
        raise UsageError(f"trial {trial} has no attempt {attempt}", hint=f"it has: {have}")
    ended = chosen.outcome
    words = f"{ended.verdict} {ended.reason}".rstrip() if ended is not None else f"in flight as {chosen.job_id or '-'}"
    message(f"trial {trial}, attempt {chosen.number} of {len(attempts)}: {words}")
    place = Path(ended.directory) if ended is not None and ended.directory else trial_directory(folder, chosen)
    shown = [name for name in _FILES if _show(place / name, lines)]
    if not shown:
        message(f"nothing was printed; its files are in {place}" if place.is_dir() else f"there is no {place} here")


def _show(path: Path, lines: int) -> bool:
    """Print the last lines of a file; whether it has any."""
    if not path.is_file() or not path.stat().st_size:
        return False
    message(f"==> {path} <==")
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            typer.echo(line.rstrip("\n"))
    return True
