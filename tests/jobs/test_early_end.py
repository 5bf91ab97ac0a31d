"""Attempts that are asked to end early: the wish comes first, and survives the driver that had it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from world import JOB, World, world

from orchestrator.jobs.early import Early, Wish, granted, wish_of
from orchestrator.model import Outcome, Verdict

PRUNE = Wish(how=Early.PRUNE, words="at step 3: 0.9 is above the median of 0.5")
PAUSE = Wish(how=Early.PAUSE, words="at step 4: not among the best 1 of 4")


def stops(w: World, number: int = 1, *, stopped: bool | None = True, **report: Any) -> None:
    """The program obeys, with a result."""
    directory, tag = w.directory(number), w.attempts()[number - 1].tag
    w.transport.end(directory, tag, {"m": 1.0}, **report)
    result: dict[str, Any] = {"tag": tag, "metrics": {"m": 1.0}}
    w.transport.seen[directory]["result"] = json.dumps(result if stopped is None else {**result, "stopped": stopped})


def runs(w: World, number: int = 1) -> None:
    w.transport.claims[w.directory(number)] = {
        "tag": w.attempts()[number - 1].tag,
        "by": "agent",
        "job_id": str(number),
    }


async def asked(w: World, wish: Wish, acts: Mapping[float, Any]) -> Outcome:
    """A driver that asks for an early end after a minute, and what happens then."""
    async with w.session() as session:
        task = asyncio.create_task(session.run(JOB))
        await asyncio.sleep(30.0)
        runs(w)
        await asyncio.sleep(30.0)
        assert await session.ask_to_stop(JOB.key, wish)
        assert not await session.ask_to_stop(JOB.key, wish), "it is told once"
        for seconds, act in acts.items():
            await asyncio.sleep(seconds)
            act()
        return await task


@pytest.mark.parametrize(("wish", "verdict"), [(PRUNE, Verdict.STOPPED), (PAUSE, Verdict.PAUSED)])
def test_a_program_that_obeys_has_the_wish_as_the_reason_of_its_end(
    tmp_path: Path, wish: Wish, verdict: Verdict
) -> None:
    async def body(w: World) -> None:
        outcome = await asked(w, wish, {60.0: lambda: stops(w)})
        assert (outcome.verdict, outcome.reason) == (verdict, str(wish))
        assert w.transport.files[f"{w.directory()}/stop"].decode() == f"{wish}\n"
        assert not w.told("given-up")

    world(tmp_path, body)


def test_the_wish_is_in_the_ledger_before_the_program_hears_of_it(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        put = w.transport.put
        noted = []

        async def watched(files: Mapping[str, bytes], **options: Any) -> None:
            if any(path.endswith("/stop") for path in files):
                noted.append(wish_of(w.attempts()[0]))
            await put(files, **options)

        w.transport.put = watched  # type: ignore[method-assign]
        await asked(w, PRUNE, {60.0: lambda: stops(w)})
        assert noted == [PRUNE]

    world(tmp_path, body)


def test_a_program_that_had_done_its_work_before_it_was_asked_has_succeeded(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        outcome = await asked(w, PAUSE, {60.0: lambda: stops(w, stopped=False)})
        assert outcome.succeeded

    world(tmp_path, body)


def test_a_driver_that_takes_over_an_attempt_that_was_asked_to_stop_says_it_again_and_knows_its_end(
    tmp_path: Path,
) -> None:
    async def body(w: World) -> None:
        async with w.session() as session:
            task = asyncio.create_task(session.run(JOB))
            await asyncio.sleep(30.0)
            runs(w)
            await asyncio.sleep(30.0)
            await session.ask_to_stop(JOB.key, PAUSE)
            task.cancel()
        del w.transport.files[f"{w.directory()}/stop"]  # as if the first driver had been killed before it was written
        outcome = await w.run(acts={30.0: lambda: stops(w, stopped=None)})
        assert f"{w.directory()}/stop" in w.transport.files
        assert outcome.verdict is Verdict.PAUSED

    world(tmp_path, body)


def test_a_paused_job_stays_paused_for_every_driver_until_it_is_told_to_go_on(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await asked(w, PAUSE, {60.0: lambda: stops(w)})
        again = await w.run()
        assert (again.verdict, again.attempts) == (Verdict.PAUSED, 1)

        def second_ends() -> None:
            w.ends(2)

        on = dataclasses.replace(JOB, beyond=1)
        outcome = await w.run(on, acts={60.0: second_ends})
        assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 2)
        assert (await w.run(on)).attempts == 2, "the second attempt is the end, whoever asks"
        assert len(w.scheduler.submits) == 2

    world(tmp_path, body)


def test_a_driver_killed_after_it_promoted_a_job_finds_the_new_attempt(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        await asked(w, PAUSE, {60.0: lambda: stops(w)})
        on = dataclasses.replace(JOB, beyond=1)
        await w.killed_after(60.0, on)
        outcome = await w.run(on, acts={60.0: lambda: w.ends(2)})
        assert (outcome.verdict, outcome.attempts, len(w.scheduler.submits)) == (Verdict.SUCCEEDED, 2, 2)

    world(tmp_path, body)


def ended(verdict: Verdict, exit_code: int | None = 1) -> Outcome:
    return Outcome(key="00000", verdict=verdict, reason="so", exit_code=exit_code)


@pytest.mark.parametrize(
    ("verdict", "exit_code", "paused", "pruned"),
    [
        (Verdict.SUCCEEDED, 0, Verdict.SUCCEEDED, Verdict.SUCCEEDED),
        (Verdict.STOPPED, 0, Verdict.PAUSED, Verdict.STOPPED),
        (Verdict.REQUEUE_REQUESTED, 85, Verdict.PAUSED, Verdict.STOPPED),  # it saved its state and asks to be run again
        (Verdict.FAILED, 0, Verdict.PAUSED, Verdict.STOPPED),  # it ended without a result, as it was asked to
        (Verdict.FAILED, 1, Verdict.FAILED, Verdict.STOPPED),
        (Verdict.TIMEOUT, None, Verdict.PAUSED, Verdict.STOPPED),  # it did not look
        (Verdict.NODE_FAILURE, None, Verdict.PAUSED, Verdict.STOPPED),
        (Verdict.LOST, None, Verdict.PAUSED, Verdict.STOPPED),
        (Verdict.OUT_OF_MEMORY, None, Verdict.OUT_OF_MEMORY, Verdict.STOPPED),
    ],
)
def test_what_ends_an_attempt_that_was_to_end_early_anyway(
    verdict: Verdict, exit_code: int | None, paused: Verdict, pruned: Verdict
) -> None:
    assert granted(PAUSE, ended(verdict, exit_code)).verdict is paused
    assert granted(PRUNE, ended(verdict, exit_code)).verdict is pruned
