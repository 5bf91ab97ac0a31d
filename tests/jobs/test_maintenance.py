"""A machine that will be stopped: what its banner says, and what is held back until it is over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from orchestrator.config.site import load_site
from orchestrator.jobs.maintenance import Maintenance, read_stop
from orchestrator.model import Job, Resources, Verdict

PATTERN = load_site("wisteria-aquarius").status_banner or ""
WISTERIA = "Wisteria/BDEC-01 scheduled stop time: 2024/09/27(Fri) 09:00:00"
DAY, HOUR = 86400.0, 3600.0


@pytest.mark.parametrize(
    ("remain", "seconds"),
    [
        (" (Remain: 31days 11:40:58)", 31 * DAY + 11 * HOUR + 40 * 60 + 58),
        (" (Remain: 1day 00:00:01)", DAY + 1),
        (" (Remain: 02:30:00)", 2.5 * HOUR),
    ],
)
def test_what_remains_counts_for_more_than_the_date(remain: str, seconds: float) -> None:
    text = f"{WISTERIA}{remain}\n\nJOB_ID  JOB_NAME\n77 x (Remain: 00:00:05)\n"
    assert read_stop(PATTERN, text, 1000.0) == 1000.0 + seconds


def test_without_it_the_date_is_taken_to_be_in_this_machine_s_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_stop(PATTERN, f"{WISTERIA}\nJOB_ID\n", 0.0) == 1727395200.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "JOB_ID JOB_NAME STATUS", "scheduled stop time: 2024/19/77(Fri) 09:00:00"])
def test_a_text_without_a_stop_says_none(text: str) -> None:
    assert read_stop(PATTERN, text, 0.0) is None


@pytest.mark.parametrize(
    ("now", "walltime", "held"),
    [
        (0.0, DAY, False),
        (0.0, DAY + 1, True),
        (DAY - 1, 2.0, True),
        (DAY, 99 * DAY, False),
        (DAY - HOUR, None, False),
        (DAY - HOUR + 1, None, True),
    ],
)
def test_a_job_is_held_if_it_would_run_into_the_stop(now: float, walltime: float | None, held: bool) -> None:
    moment = [0.0]
    maintenance = Maintenance(PATTERN, lambda: moment[0])
    maintenance.read(f"{WISTERIA} (Remain: 1days 00:00:00)")
    moment[0] = now
    assert (maintenance.holds(walltime) is not None) is held


def announced(w: World, remain: str) -> None:
    w.site = w.site.model_copy(update={"status_banner": PATTERN})
    w.transport.says["query"] = f"{WISTERIA} (Remain: {remain})\n"


def test_a_held_job_goes_when_the_stop_is_over_and_short_ones_go_before_it(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        announced(w, "02:00:00")

        def job(key: str, walltime: int) -> Job:
            return Job(key=key, command=("true",), resources=Resources(walltime=walltime))

        async with w.session() as session:
            session.submit(job("first", 3600))
            await asyncio.sleep(30.0)
            assert session.next_stop is not None
            w.transport.says.clear()
            session.submit(job("long", 10000), job("short", 3600))
            await asyncio.sleep(60.0)
            assert [event["until"] for event in w.events if event["event"] == "held"] == [session.next_stop]
            assert w.attempts("short")[0].job_id is not None
            assert w.attempts("long")[0].job_id is None
            await asyncio.sleep(7200.0)
            assert w.attempts("long")[0].job_id is not None
            assert session.next_stop is None

    world(tmp_path, body)


def test_a_held_job_can_be_taken_back(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        announced(w, "00:30:00")
        async with w.session() as session:
            session.submit(Job(key="first", command=("true",)))
            await asyncio.sleep(30.0)
            (task,) = session.submit(Job(key="j", command=("true",)))
            await asyncio.sleep(30.0)
            await session.abort("j")
            assert task.result().verdict is Verdict.CANCELLED
            assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


def test_a_site_without_a_banner_holds_nothing() -> None:
    maintenance: Any = Maintenance(None, lambda: 0.0)
    maintenance.read(f"{WISTERIA} (Remain: 00:00:10)")
    assert maintenance.holds(None) is None
