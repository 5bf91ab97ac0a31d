"""``survey run`` and ``survey resume``: drive a study to the end of its budget."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from orchestrator.cli.login import AcceptOption
from orchestrator.cli.output import emit_json, message
from orchestrator.cli.prepare import make_notifier, prepare
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument
from orchestrator.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_TERMINATED, Paused, SurveyError, TooManyFailures
from orchestrator.search.layout import StudyFolder
from orchestrator.store.atomic import told_in_words
from orchestrator.studies.reader import read_study

if TYPE_CHECKING:
    from orchestrator.cli.tally import Tally
    from orchestrator.config.study import Study
    from orchestrator.jobs.session import Event
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = [
    "DetachOption",
    "SiteOption",
    "YesOption",
    "best_lines",
    "both",
    "drive",
    "goals",
    "print_result",
    "resume",
    "run",
    "study_tally",
]

Result_co = TypeVar("Result_co", covariant=True)

SiteOption = Annotated[str, typer.Option("--site", help="A site's name (`survey sites`) or a site file.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Drive it in the background, with the output in its folder's driver.log.")
]


def run(
    study: Annotated[str, typer.Argument(help="study.yaml, or the folder or name of a study that was begun.")],
    root: RootOption = Path("runs"),
    site: SiteOption = "",
    as_json: JsonOption = False,
    yes: YesOption = False,
    accept_host_key: AcceptOption = "",
    detach: DetachOption = False,
) -> None:
    """Run a study, or go on with it.

    On a cluster the cost is said first, and at a terminal asked about, unless it was agreed to before.
    Interrupt once to end after the trials in flight; twice to leave their jobs running and end at once.
    Running it again takes up what was left, in either case.
    """
    ready = prepare(study, root, site, host_key=accept_host_key, ask=not yes)
    from orchestrator.cli.hangup import Lasting
    from orchestrator.search.driver import StudyDriver
    from orchestrator.store.snapshot import published

    target, folder = ready.target, ready.folder
    if detach:
        words = [study or str(folder.root), "--root", str(root), "--yes", *(("--site", site) if site else ())]
        _detached(
            [*words, *(("--accept-host-key", accept_host_key) if accept_host_key else ())], folder, as_json=as_json
        )
        return
    tally = study_tally(target.study, folder)
    notifier, before = make_notifier(target.study, folder.root), published(folder.root)
    try:
        with notifier.watching(), Lasting(tally, log=folder.log) as display:
            driver = StudyDriver(
                target.study,
                ready.places,
                target.root,
                origin=target.origin,
                on_event=both(notifier.hear, display.show),
            )
            record, code = drive(driver, folder.root, on_hangup=display.hang_up)
    except (TooManyFailures, Paused) as failure:
        with contextlib.suppress(SurveyError):  # what stopped the study says more than that it left no record
            left = read_study(folder.root)
            if isinstance(failure, TooManyFailures) or left.state == "paused":
                _show(left, as_json=as_json)
        raise
    _show(record, as_json=as_json)
    notifier.finished(record, before, terminated=code == EXIT_TERMINATED)
    raise typer.Exit(code)


def resume(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    site: SiteOption = "",
    as_json: JsonOption = False,
    yes: YesOption = False,
    accept_host_key: AcceptOption = "",
    detach: DetachOption = False,
) -> None:
    """Go on with a study that was begun: the latest one, or the one that is named; the same as `survey run` of it."""
    run(study, root, site, as_json, yes, accept_host_key, detach)


def _detached(words: Sequence[str], folder: StudyFolder, *, as_json: bool) -> None:
    from orchestrator.cli.detach import launch

    started = launch(["run", *words], folder)
    if started.code is not None:
        message(f"the driver of {folder.root} has ended already; its last words, of {folder.log}:", verbosity=-1)
        message(started.said, verbosity=-1)
        raise typer.Exit(started.code)
    if as_json:
        driver = {"pid": started.pid, "host": started.host, "log": str(folder.log), "under_way": started.under_way}
        emit_json({"driver": driver, "root": str(folder.root)})
        return
    slow = "" if started.under_way else ", and still about to begin"
    typer.echo(f"{folder.root.name}: driven by process {started.pid} on {started.host}{slow}")
    typer.echo(f"output: {folder.log}")
    typer.echo(f"look:   survey status {folder.root}")
    typer.echo(f"stop:   survey stop {folder.root}")


def study_tally(study: Study, folder: StudyFolder) -> Tally:
    """A tally for the display, which knows the best trials of earlier runs."""
    from orchestrator.cli.standing import Standing
    from orchestrator.cli.tally import Tally

    before: dict[str, tuple[float, ...]] = {}
    if folder.begun:
        with contextlib.suppress(SurveyError):  # the driver will say what is wrong, if it is
            record = read_study(folder.root)
            known = record.front() if len(study.targets) > 1 else record.best()
            before = {str(trial.number): trial.values or () for trial in known}
    first = study.targets[0]
    standing = Standing([(each.metric, each.direction) for each in study.targets], before)
    return Tally(first.metric, maximize=first.direction == "maximize", standing=standing)


def both(*listeners: Callable[[Event], None]) -> Callable[[Event], None]:
    """One listener in place of several."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


def _show(record: StudyRecord, *, as_json: bool) -> None:
    if as_json:
        emit_json({"study": record.to_json()})
    else:
        print_result(record)


class _Driver(Protocol[Result_co]):
    @property
    def draining(self) -> bool: ...
    @property
    def stopped(self) -> bool: ...
    def drain(self) -> None: ...
    def leave(self) -> None: ...
    async def run(self) -> Result_co: ...


def drive(driver: _Driver[Result_co], root: Path, *, on_hangup: Callable[[], None]) -> tuple[Result_co, int]:
    """Run ``driver`` with the signals of a terminal; the second item is the exit code.

    Parameters
    ----------
    on_hangup : callable
        Called when the terminal goes away; the driver stays.

    Raises
    ------
    Paused, UsageError, SurveyError
        What `told_in_words` makes of an operating system's error below ``root``: a full disk is no bug.
    """
    try:
        return asyncio.run(_driven(driver, on_hangup))
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


async def _driven(driver: _Driver[Result_co], on_hangup: Callable[[], None]) -> tuple[Result_co, int]:
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

    handlers = {signal.SIGINT: interrupted, signal.SIGTERM: terminated}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        handlers[signal.SIGHUP] = on_hangup
    with _handlers(handlers):
        result = await driver.run()
        return result, code[0] or (EXIT_INTERRUPTED if driver.stopped else EXIT_DONE)


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
    counts = {word: sum(trial.state == word for trial in record.counted) for word in ("complete", "pruned", "failed")}
    shown = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no trial finished"
    infeasible = len(record.complete) - len(record.feasible)
    shown += f" ({infeasible} infeasible)" if infeasible else ""
    typer.echo(f"{record.name}: {record.state}, {shown}, {record.planned} planned")
    for line in best_lines(record):
        typer.echo(line)
    for trial in record.best() if len(record.objectives) == 1 else ():
        for name, param in trial.params.items():
            typer.echo(f"  {name} = {param:.6g}" if isinstance(param, float) else f"  {name} = {param}")
    typer.echo(f"record: {record.root}")


def best_lines(record: StudyRecord) -> list[str]:
    """The best trial in words; of several objectives the front, or its ends where it is long."""
    if record.nothing_feasible:
        return [record.nothing_feasible]
    if len(record.objectives) == 1:
        return [f"best: trial {trial.number}, {goals(record, trial)}" for trial in record.best()]
    on = record.front()
    if not on:
        return []
    lines = [f"  trial {trial.number}, {goals(record, trial)}" for trial in on]
    if len(on) > _SHOWN:
        lines[_SHOWN // 2 : -(_SHOWN // 2)] = [f"  ... {len(on) - _SHOWN} more: `survey best {record.root}`"]
    return [f"front of {len(on)}:", *lines]


_SHOWN = 8


def goals(record: StudyRecord, trial: TrialRecord) -> str:
    """The objectives of a trial in words: ``loss = 0.25``, of several runs their mean and standard deviation."""
    pairs = zip(record.objectives, trial.values or (), strict=False)
    words = [(f"{name} = {value:.6g}", trial.spread.get(name)) for name, value in pairs]
    return ", ".join(text if spread is None else f"{text} \N{PLUS-MINUS SIGN} {spread:.2g}" for text, spread in words)
