"""What a driver's events add up to, and what a log file gets of them."""

from __future__ import annotations

import io
import threading
from time import time as now
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.live import Lines, Table, make_display
from orchestrator.cli.tally import Tally, span


def asked(number: int, time: float) -> list[tuple[float, str, dict[str, Any]]]:
    key = f"{number:05d}"
    return [
        (time, "planned", {"key": key, "attempt": 1, "tag": f"t{key}"}),
        (time + 1, "submitted", {"key": key, "attempt": 1, "job_id": f"{700 + number}"}),
    ]


def told(number: int, time: float, value: float | None) -> tuple[float, str, dict[str, Any]]:
    state = "failed" if value is None else "complete"
    verdict = "failed" if value is None else "succeeded"
    return time, "told", {"number": number, "state": state, "verdict": verdict, "values": value and [value]}


def fed(tally: Tally, *events: tuple[float, str, dict[str, Any]], arm: str = "") -> list[bool]:
    return [tally.take({"time": time, "event": event, **fields}, arm) for time, event, fields in events]


STARTED = (0.0, "started", {"trials": 10, "done": 0, "resumed": 0})


@pytest.mark.parametrize(("maximize", "best"), [(True, [True, False, True]), (False, [True, True, False])])
def test_the_best_is_the_largest_or_the_smallest(maximize: bool, best: list[bool]) -> None:
    tally = Tally("loss", maximize=maximize)
    assert fed(tally, told(0, 1.0, 0.5), told(1, 2.0, 0.25), told(2, 3.0, 0.75)) == best


def test_what_earlier_runs_found_counts() -> None:
    tally = Tally("loss", maximize=False, best=("3", 0.1))
    assert fed(tally, STARTED, told(4, 1.0, 0.2), told(5, 1.0, 0.05)) == [False, False, True]
    assert tally.summary() == "2/10 trials, best loss 0.05 (trial 5)"


def test_the_end_in_sight_counts_what_trials_take_and_how_many_run_at_a_time() -> None:
    tally = Tally("loss", maximize=False)
    fed(tally, STARTED, *asked(0, 0.0), *asked(1, 0.0))
    assert tally.eta is None
    # A long time before the first plan (a queue, a start) is not the pace of trials.
    fed(tally, told(0, 100.0, 1.0), *asked(2, 100.0), told(1, 100.0, 1.0))
    assert tally.eta == pytest.approx(100.0 * 8 / 2)
    fed(tally, (0.0, "started", {"trials": 3, "done": 0, "resumed": 0}))
    assert tally.eta == pytest.approx(100.0)
    fed(tally, told(2, 200.0, 1.0))
    assert tally.eta is None


def test_a_trial_that_was_in_flight_before_says_nothing_of_the_pace() -> None:
    tally = Tally("loss", maximize=False)
    fed(tally, STARTED, (0.0, "found", {"key": "00000", "attempt": 1, "tag": "t", "job_id": "1"}), told(0, 1.0, 1.0))
    assert tally.eta is None


def test_the_end_of_a_comparison_is_that_of_all_its_arms() -> None:
    tally = Tally("loss", maximize=False, expected={"bo-p1-r1": 10, "grid-p1-r1": 10})
    assert tally.total == 20
    fed(tally, (0.0, "started", {"trials": 4, "done": 0, "resumed": 0}), arm="grid-p1-r1")
    assert tally.total == 14


def lines(tally: Tally, *events: tuple[float, str, dict[str, Any]], verbosity: int = 0) -> list[str]:
    screen = io.StringIO()
    display = Lines(Console(file=screen, width=200), tally, verbosity=verbosity)
    with display:
        for time, event, fields in events:
            display.show({"time": time, "event": event, **fields})
    return screen.getvalue().splitlines()


def test_a_failed_trial_is_one_line_with_its_reason() -> None:
    ended = (9.0, "ended", {"key": "00000", "attempt": 1, "verdict": "failed", "message": "exit code 3 [/] x"})
    assert lines(Tally("loss", maximize=False), STARTED, *asked(0, 0.0), ended, told(0, 9.0, None)) == [
        "study: 10 trials",
        "trial 0: failed: exit code 3 [/] x  [1/10, about 81 s to go]",
    ]


def test_a_job_that_may_never_start_is_told_and_a_quiet_user_hears_nothing() -> None:
    stuck = (
        2.0,
        "state",
        {"key": "00000", "state": "held", "word": "PD", "message": "BadConstraints", "stuck": True},
    )
    told_so = lines(Tally("loss", maximize=False), *asked(0, 0.0), stuck)
    assert told_so == ["trial 0: waits for something that may never come: PD BadConstraints"]
    assert lines(Tally("loss", maximize=False), *asked(0, 0.0), stuck, verbosity=-1) == []


def test_jobs_that_are_held_for_the_same_reason_are_told_once() -> None:
    tally = Tally("loss", maximize=False)
    held = [(9.0, "held", {"tag": f"t0000{number}", "until": 900.0, "message": "the site stops"}) for number in (0, 1)]
    full = [(9.0, "waiting", {"tag": f"t0000{number}", "message": f"{word} jobs"}) for number, word in enumerate("224")]
    planned = [asked(number, 0.0)[0] for number in (0, 1)]
    assert lines(tally, *planned, *held, *full) == ["held: the site stops", "waiting: 2 jobs", "waiting: 4 jobs"]
    assert tally.in_flight() == "2 in flight (2 held)"


def test_a_table_keeps_in_view_what_a_person_should_know() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=150, record=True)
    tally = Tally("loss", maximize=False)
    table = Table(screen, tally)
    stuck = {"key": "00000", "state": "queued", "word": "Q", "message": "Can Never Run", "stuck": True}
    story = [*asked(0, 0.0), *asked(1, 0.0), (2.0, "state", stuck)]
    story.append((3.0, "held", {"tag": "t00001", "until": now() + 7200.0, "message": "the site stops"}))
    # What came later does not push it out of sight.
    story += [(4.0, "trouble", {"message": f"trouble {number}"}) for number in range(20)]
    for when, event, fields in story:
        table.show({"time": when, "event": event, **fields})

    def shown() -> str:
        screen.print(table._render())
        return screen.export_text()

    text = shown()
    assert "trial 0: waits for something that may never come: Q Can Never Run" in text
    assert "the site stops in 2.0 h: jobs that would run into that are held" in text
    assert tally.in_flight() == "2 in flight (1 Q, 1 held, 1 stuck)"
    running = {"key": "00000", "state": "running", "word": "R", "message": "", "stuck": False}
    table.show({"time": 5.0, "event": "state", **running})
    table.show({"time": 5.0, "event": "held", "tag": "t00001", "until": now() - 1.0, "message": "the site stops"})
    assert "never come" not in shown()
    assert "the site stops in" not in shown()


class Screen(io.StringIO):
    """Tells when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if "\n" in text:
            self.came.set()
        return written


def test_a_long_silence_is_broken_by_what_is_in_flight() -> None:
    screen = Screen()
    tally = Tally("loss", maximize=False, expected={"": 10})
    fed(tally, *asked(0, 0.0), *asked(1, 0.0))
    fed(tally, (5.0, "state", {"key": "00001", "state": "running", "word": "R", "message": "", "stuck": False}))
    with Lines(Console(file=screen, width=200), tally, silence=0.01):
        assert screen.came.wait(60)
    assert screen.getvalue().splitlines()[0] == "2 in flight (1 queued, 1 R); 0/10 trials"


def test_nothing_in_flight_is_nothing_to_tell() -> None:
    screen = Screen()
    with Lines(Console(file=screen, width=200), Tally("loss", maximize=False), silence=0.01):
        assert not screen.came.wait(0.2)


def test_a_table_is_for_terminals() -> None:
    tally = Tally("loss", maximize=False)
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(make_display(terminal, tally), Table)
    assert isinstance(make_display(terminal, tally, verbosity=-1), Lines)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=False), tally), Lines)


def test_a_table_shows_what_is_in_flight_as_it_is_written() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    tally = Tally("loss", maximize=False)
    table = Table(screen, tally)
    for time, event, fields in (STARTED, *asked(0, 0.0), (1.0, "progress", {"key": "00000", "step": 3, "value": 0.5})):
        table.show({"time": time, "event": event, **fields})
    state = {"key": "00000", "state": "queued", "word": "[PD]", "message": "(Priority) [bold]", "stuck": False}
    table.show({"time": 2.0, "event": "state", **state})
    screen.print(table._render())
    shown = screen.export_text()
    for word in ("700", "[PD]", "(Priority) [bold]", "0/10 trials"):
        assert word in shown


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1.0, "0 s"), (89.4, "89 s"), (90.0, "2 min"), (5399.0, "90 min"), (5400.0, "1.5 h")]
)
def test_a_span_has_the_unit_that_people_use(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_a_trial_that_is_set_aside_leaves_the_table_and_comes_back_when_it_goes_on() -> None:
    tally = Tally("loss", maximize=False)
    aside = (5.0, "set-aside", {"number": 0, "message": "paused at step 1: 0.5 is number 2 of 4"})
    assert lines(tally, STARTED, *asked(0, 0.0), *asked(1, 0.0), aside)[1:] == [
        "trial 0: paused at step 1: 0.5 is number 2 of 4"
    ]
    assert list(tally.running) == ["1"]
    assert tally.summary() == "0/10 trials, 1 paused"
    assert lines(tally, (6.0, "promoted", {"number": 0, "attempt": 1}), *asked(0, 7.0)) == ["trial 0: goes on"]
    assert (sorted(tally.running), tally.paused) == (["0", "1"], set())
    fed(tally, aside, told(0, 9.0, None))
    assert (list(tally.running), tally.paused) == (["1"], set())
