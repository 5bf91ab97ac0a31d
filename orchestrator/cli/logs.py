"""``survey logs``: what a trial's program and its job wrote."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import message
from orchestrator.cli.target import RootOption, find_folder
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.site import Site
    from orchestrator.model import Attempt

__all__ = ["logs"]

_FILES = ("stdout", "stderr", "job.log")
_TAIL = 200


def logs(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    study: Annotated[str, typer.Option("--study", help="study.yaml, a study's folder or its name; the latest.")] = "",
    root: RootOption = Path("runs"),
    run: Annotated[int, typer.Option("--run", help="Which run; the first without a result, or 1, if 0.", min=0)] = 0,
    attempt: Annotated[int, typer.Option("--attempt", help="Which attempt; the last if 0.", min=0)] = 0,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Last lines of each file.", min=1)] = _TAIL,
) -> None:
    """Show the last lines of a trial's stdout, stderr and job log, and where they lie."""
    from orchestrator.config.site import load_site
    from orchestrator.jobs.fetch import is_far
    from orchestrator.search.layout import StudyFolder, run_of, trial_key, trial_number
    from orchestrator.store.ledger import Ledger
    from orchestrator.studies.reader import trial_directory

    folder = find_folder(study, root)
    ledger = Ledger(folder)
    runs = {run_of(key): ledger.attempts(key) for key in ledger.keys(trial_key(trial))}
    if not runs:
        known = sorted({trial_number(key) for key in ledger.keys()})  # noqa: SIM118  a ledger is no dict
        there = f"trials {known[0]} to {known[-1]} have" if known else "none has"
        raise UsageError(f"trial {trial} of {folder.name} has no attempt", hint=f"{there}; see `survey status`")
    if run and run not in runs:
        raise UsageError(f"trial {trial} has no run {run}", hint=f"it has: {', '.join(map(str, sorted(runs)))}")
    run = run or _telling(runs)
    attempts = runs[run]
    chosen = next((each for each in attempts if each.number == attempt), attempts[-1] if attempt == 0 else None)
    name = f"trial {trial}, run {run}" if "/" in attempts[0].key else f"trial {trial}"
    if chosen is None:
        have = ", ".join(str(each.number) for each in attempts)
        raise UsageError(f"{name} has no attempt {attempt}", hint=f"it has: {have}")
    ended = chosen.outcome
    words = f"{ended.verdict} {ended.reason}".rstrip() if ended is not None else f"in flight as {chosen.job_id or '-'}"
    message(f"{name}, attempt {chosen.number} of {len(attempts)}: {words}")
    kept = StudyFolder(folder).site_of(chosen.site)
    site = load_site(kept) if kept.is_file() else None
    if site is not None and is_far(site):
        asyncio.run(_show_from_afar(site, folder, chosen, lines))
        return
    place = Path(ended.directory) if ended is not None and ended.directory else trial_directory(folder, chosen)
    shown = [name for name in _FILES if _show(place / name, lines)]
    if not shown:
        message(f"nothing was printed; its files are in {place}" if place.is_dir() else f"there is no {place} here")


def _telling(runs: Mapping[int, Sequence[Attempt]]) -> int:
    """The run that people want to see first: one that has gone wrong."""
    from orchestrator.search.ending import decisive

    ended = {run: attempts[-1].outcome for run, attempts in runs.items()}
    wrong = {run: outcome for run, outcome in ended.items() if outcome is not None and not outcome.succeeded}
    return decisive(wrong) if wrong else min(runs)


def _show(path: Path, lines: int) -> bool:
    """Print the last lines of a file; whether it has any."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        _print(str(path), file, lines)
    return True


def _print(name: str, content: Iterable[str], lines: int) -> None:
    message(f"==> {name} <==")
    for line in deque(content, maxlen=lines):
        typer.echo(line.rstrip("\n"))


async def _show_from_afar(site: Site, folder: Path, attempt: Attempt, lines: int) -> None:
    """The same, of a site whose files are had through its transport."""
    from orchestrator.jobs.fetch import far_site, fetch_tails
    from orchestrator.studies.reader import trial_directory

    async with far_site(site) as (transport, there):
        known = attempt.outcome.directory if attempt.outcome is not None else ""
        place = known or str(trial_directory(folder, attempt, user=there.user, home=there.home))
        tails = await fetch_tails(transport, place, _FILES)
    for name, tail in tails.items():
        _print(f"{site.transport.host}:{place}/{name}", tail.decode("utf-8", "replace").splitlines(), lines)
    if not tails:
        message(f"nothing was printed; its files are in {site.transport.host}:{place}")
