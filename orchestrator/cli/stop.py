"""``survey stop``: ask the driver of a study to end, on whichever machine it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import emit_json, message
from orchestrator.cli.target import JsonOption, RootOption, StudyArgument, find_folder
from orchestrator.errors import SurveyError, UsageError
from orchestrator.search.requests import Stop

if TYPE_CHECKING:
    from orchestrator.store.lease import Holder

__all__ = ["stop"]

_ANSWER = 30.0  # seconds in which a driver answers that is neither suspended nor cut off from its folder
_END = 120.0  # seconds in which one that leaves or cancels has ended, where the scheduler answers
_LOOK = 0.2


def stop(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    drain: Annotated[bool, typer.Option("--drain", help="No new trials; those in flight finish. The default.")] = False,
    leave: Annotated[bool, typer.Option("--leave", help="End at once; jobs in flight run on.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the jobs in flight, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the driver of a study to end. Run the study again and it goes on, whichever way it ended.

    Trials whose jobs are cancelled stay unfinished: they are run again when the study goes on. Where no
    driver runs, `--cancel` cancels what the last one left in flight.
    """
    from orchestrator.store.lease import read_holder

    if drain + leave + cancel > 1:
        raise UsageError("only one of --drain, --leave and --cancel can be meant", hint="leave the others out")
    how = Stop.LEAVE if leave else Stop.CANCEL if cancel else Stop.DRAIN
    folder = find_folder(study, root)
    holder, alive = read_holder(folder, now=time.time())
    if alive and holder is not None:
        ended = _ask(folder, holder, how)
    else:
        ended = True
        if how is Stop.CANCEL and _in_flight(folder):
            _cancel_alone(folder)
    left = _in_flight(folder)
    words = _outcome(how, left, ended=ended, driven=alive)
    if as_json:
        emit_json({"root": str(folder), "driven": alive, "ended": ended, "in_flight": left})
    else:
        typer.echo(f"{folder.name}: {words}")


def _ask(folder: Path, holder: Holder, how: Stop) -> bool:
    """Leave the request, and wait for the answer; whether the driver has ended."""
    from orchestrator.search.requests import ask_to_stop, is_taken, withdraw_request

    if holder.is_here and _is_suspended(holder.pid):
        raise SurveyError(
            f"the driver ({holder}) is suspended, and sees no request",
            hint=f"wake it up (`kill -CONT {holder.pid}`, or `fg` in its shell), then ask again",
        )
    ask_to_stop(folder, how, holder.token, now=time.time())
    message(f"asked the driver ({holder}) to {how}", verbosity=1)
    if not _until(lambda: is_taken(folder) or _has_ended(folder, holder), _ANSWER):
        raise SurveyError(
            f"the driver ({holder}) has not answered for {_ANSWER:.0f} s; the request stays for it to find",
            hint=f"see on {holder.host} whether it runs and sees {folder}; the end of its driver.log may say more",
        )
    if how is not Stop.DRAIN:
        message("the driver ends" if how is Stop.LEAVE else "its jobs are cancelled; waiting for the scheduler's word")
        _until(lambda: _has_ended(folder, holder), _END)
    ended = _has_ended(folder, holder)
    if ended and not is_taken(folder):
        withdraw_request(folder)
    return ended


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > give_up:
            return False
        time.sleep(_LOOK)
    return True


def _has_ended(folder: Path, holder: Holder) -> bool:
    from orchestrator.store.lease import read_holder

    now, alive = read_holder(folder, now=time.time())
    return not alive or now is None or now.token != holder.token


def _is_suspended(pid: int) -> bool:
    """Whether a process of this machine is stopped, as by Ctrl-Z."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return line.rpartition(")")[2].split()[:1] == ["T"]


def _in_flight(folder: Path) -> int:
    """How many jobs the ledger has in flight."""
    from orchestrator.store.ledger import Ledger

    ledger = Ledger(folder)
    latest = [ledger.latest(key) for key in ledger.keys()]  # noqa: SIM118  a ledger is no dict
    return sum(attempt is not None and attempt.outcome is None for attempt in latest)


def _cancel_alone(folder: Path) -> None:
    """Drive the study for as long as it takes to cancel what is in flight."""
    from orchestrator.cli.manners import be_private, hold_threads

    be_private()
    hold_threads()
    from orchestrator.cli.run import drive
    from orchestrator.cli.target import load_target
    from orchestrator.search.driver import StudyDriver
    from orchestrator.search.places import places_of

    target = load_target(str(folder), folder.parent)
    places = places_of(target.study, target.origin, target.chosen(""))
    driver = StudyDriver(target.study, places, target.root, origin=target.origin, on_event=_tell)
    driver.cancel()
    message("no driver runs; cancelling what is in flight, and waiting for the scheduler's word")
    drive(driver, folder, on_hangup=lambda: None)


def _tell(event: Mapping[str, Any]) -> None:
    if event["event"] in {"waiting", "trouble", "paused"} and event.get("message"):
        message(str(event["message"]))


def _outcome(how: Stop, left: int, *, ended: bool, driven: bool) -> str:
    jobs = f"{left} job{'' if left == 1 else 's'} in flight"
    if not ended and how is Stop.DRAIN:
        return f"no new trials; the driver ends after the {jobs}"
    if not ended:
        return f"the driver has the request, but has not ended yet; {jobs}, see `survey status`"
    gone = "the driver has ended" if driven else "no driver runs"
    if left == 0:
        return f"{gone}; nothing is in flight"
    fate = "could not be cancelled yet" if how is Stop.CANCEL else "run on (`survey stop --cancel` cancels them)"
    return f"{gone}; {jobs} {fate}"
