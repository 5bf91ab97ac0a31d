"""``survey tick``: one pass over a study and no more, for cron."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import console, emit_json, message, state
from orchestrator.cli.prepare import make_notifier, prepare
from orchestrator.cli.run import SiteOption, YesOption, both, drive, study_tally
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument
from orchestrator.errors import HeldByAnother, Paused, SurveyError, TooManyFailures

if TYPE_CHECKING:
    from orchestrator.store.record import StudyRecord

__all__ = ["tick"]

_PATIENCE = 300.0
_DAY = 86400.0


def tick(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    site: SiteOption = "",
    as_json: JsonOption = False,
    yes: YesOption = False,
    at_most: Annotated[
        float, typer.Option("--at-most", help="Seconds after which it ends in any case.", min=1.0)
    ] = _PATIENCE,
) -> None:
    """Collect what has ended, fill the free slots, and end; jobs run on. For cron, where nothing may run for long.

    It never runs twice at once: where another driver is at work, it ends with code 5 and, without a terminal,
    without a word. So it does where a study is still paused or over for the reason that was told before.
    """
    ready = prepare(study, root, site, ask=not yes)
    from orchestrator.cli.live import Lines
    from orchestrator.search.driver import StudyDriver
    from orchestrator.store.snapshot import published

    before = published(ready.folder.root)
    tally = study_tally(ready.target.study, ready.folder)
    notifier = make_notifier(ready.target.study, ready.folder.root, again=_DAY)
    try:
        with notifier.watching(), Lines(console(), tally, verbosity=state().verbosity) as display:
            driver = StudyDriver(
                ready.target.study,
                ready.places,
                ready.target.root,
                origin=ready.target.origin,
                on_event=both(notifier.hear, display.show),
            )
            driver.pass_once(at_most)
            record, code = drive(driver, ready.folder.root, on_hangup=driver.leave)
    except (HeldByAnother, Paused, TooManyFailures) as failure:
        if sys.stderr.isatty() or state().verbosity > 0 or _is_news(failure, before):
            raise
        raise typer.Exit(failure.exit_code) from None
    notifier.finished(record, before, terminated=False)
    if as_json:
        emit_json({"study": record.to_json()})
    else:
        message(_summary(record))
    raise typer.Exit(code)


def _is_news(failure: SurveyError, before: StudyRecord | None) -> bool:
    """Whether cron is to mail it: not each time what it has mailed already."""
    if isinstance(failure, HeldByAnother) or before is None:
        return not isinstance(failure, HeldByAnother)
    if isinstance(failure, Paused):
        return (before.state, before.message) != ("paused", failure.message)
    return before.state != "done"


def _summary(record: StudyRecord) -> str:
    ended = len(record.finished)
    if record.state == "done":
        return f"{record.name}: done, all {ended} trials have ended; no further tick is needed"
    flying = sum(trial.state == "running" for trial in record.trials)
    left = max(0, record.planned - ended - flying)
    return f"{record.name}: {ended} of {record.planned} trials have ended, {flying} are in flight, {left} are to come"
