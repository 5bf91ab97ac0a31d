"""``survey run`` and ``survey resume``: drive a study to the end of its budget."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from orchestrator.cli.login import AcceptOption, accepting
from orchestrator.cli.manners import hold_threads
from orchestrator.cli.output import console, emit_json, state
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, load_target
from orchestrator.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Paused, SurveyError, TooManyFailures
from orchestrator.search.layout import StudyFolder
from orchestrator.search.reader import read_study
from orchestrator.store.atomic import told_in_words

if TYPE_CHECKING:
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["YesOption", "best_before", "drive", "goals", "print_result", "resume", "run"]

Result_co = TypeVar("Result_co", covariant=True)

_SiteOption = Annotated[str, typer.Option("--site", help="A site's name (`survey sites`) or a site file.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")]


def run(
    study: Annotated[str, typer.Argument(help="study.yaml, or the folder or name of a study that was begun.")],
    root: RootOption = Path("runs"),
    site: _SiteOption = "",
    as_json: JsonOption = False,
    yes: YesOption = False,
    accept_host_key: AcceptOption = "",
) -> None:
    """Run a study, or go on with it.

    On a cluster the cost is said first, and at a terminal asked about, unless it was agreed to before.
    Interrupt once to end after the trials in flight; twice to leave their jobs running and end at once.
    Running it again takes up what was left, in either case.
    """
    hold_threads()
    from orchestrator.cli.consent import announce
    from orchestrator.cli.live import make_display
    from orchestrator.cli.tally import Tally
    from orchestrator.search.driver import StudyDriver
    from orchestrator.search.forecast import dearest, forecast
    from orchestrator.search.places import places_of

    target = load_target(study, root)
    places = [
        dataclasses.replace(place, site=accepting(place.site, accept_host_key))
        for place in places_of(target.study, target.origin, target.chosen(site))
    ]
    among = [place.site for place in places]
    goal = target.study.targets[0]
    folder = StudyFolder((target.root / target.study.name).resolve())
    found = [forecast(place.study, place.site, root=target.root, origin=target.origin, among=among) for place in places]
    for one in found:
        one.refuse()
    if any(place.site.scheduler != "local" for place in places):
        new = any(one.new for one in found)
        announce([one.headline for one in found], dearest([one.cost for one in found]), ask=new and not yes)
    tally = Tally(goal.metric, maximize=goal.direction == "maximize", best=best_before(folder))
    try:
        with make_display(console(), tally, verbosity=state().verbosity) as display:
            driver = StudyDriver(target.study, places, target.root, origin=target.origin, on_event=display.show)
            record, code = drive(driver, folder.root)
    except (TooManyFailures, Paused) as failure:
        with contextlib.suppress(SurveyError):  # what stopped the study says more than that it left no record
            left = read_study(folder.root)
            if isinstance(failure, TooManyFailures) or left.state == "paused":
                _show(left, as_json=as_json)
        raise
    _show(record, as_json=as_json)
    raise typer.Exit(code)


def resume(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    site: _SiteOption = "",
    as_json: JsonOption = False,
    yes: YesOption = False,
) -> None:
    """Go on with a study that was begun: the latest one, or the one that is named; the same as `survey run` of it."""
    run(study, root, site, as_json, yes)


def best_before(folder: StudyFolder) -> tuple[str, float] | None:
    """The best trial of earlier runs, for the display; None where nobody knows."""
    if not folder.begun:
        return None
    with contextlib.suppress(SurveyError):  # the driver will say what is wrong, if it is
        for trial in read_study(folder.root).best():
            return (str(trial.number), trial.values[0]) if trial.values else None
    return None


def _show(record: StudyRecord, *, as_json: bool) -> None:
    if as_json:
        emit_json({"study": record.to_json()})
    else:
        print_result(record)


class _Driver(Protocol[Result_co]):
    @property
    def draining(self) -> bool: ...
    def drain(self) -> None: ...
    def leave(self) -> None: ...
    async def run(self) -> Result_co: ...


def drive(driver: _Driver[Result_co], root: Path) -> tuple[Result_co, int]:
    """Run ``driver`` with the signals of a terminal; the second item is the exit code.

    Raises
    ------
    Paused, UsageError, SurveyError
        What `told_in_words` makes of an operating system's error below ``root``: a full disk is no bug.
    """
    try:
        return asyncio.run(_driven(driver))
    except (OSError, BaseExceptionGroup) as failure:
        cause = _first_os_error(failure)
        if cause is None:
            raise
        with told_in_words(Path(os.fsdecode(cause.filename)) if isinstance(cause.filename, str | bytes) else root):
            raise cause from failure


def _first_os_error(failure: BaseException) -> OSError | None:
    if isinstance(failure, BaseExceptionGroup):
        return next((found for one in failure.exceptions if (found := _first_os_error(one))), None)
    return failure if isinstance(failure, OSError) else None


async def _driven(driver: _Driver[Result_co]) -> tuple[Result_co, int]:
    code = [0]

    def interrupted() -> None:
        code[0] = EXIT_INTERRUPTED
        if driver.draining:
            driver.leave()
        else:
            driver.drain()

    def terminated() -> None:
        code[0] = EXIT_TERMINATED
        driver.leave()

    with _handlers({signal.SIGINT: interrupted, signal.SIGTERM: terminated}):
        return await driver.run(), code[0]


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def print_result(record: StudyRecord) -> None:
    """What a study came to, in a few lines on stdout."""
    counts = {word: sum(trial.state == word for trial in record.trials) for word in ("complete", "pruned", "failed")}
    shown = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no trial finished"
    typer.echo(f"{record.name}: {record.state}, {shown}, {record.planned} planned")
    for trial in record.best():
        typer.echo(f"best: trial {trial.number}, {goals(record, trial)}")
        for name, param in trial.params.items():
            typer.echo(f"  {name} = {param:.6g}" if isinstance(param, float) else f"  {name} = {param}")
    typer.echo(f"record: {record.root}")


def goals(record: StudyRecord, trial: TrialRecord) -> str:
    """The objectives of a trial in words: ``loss = 0.25``."""
    pairs = zip(record.objectives, trial.values or (), strict=False)
    return ", ".join(f"{name} = {value:.6g}" for name, value in pairs)
