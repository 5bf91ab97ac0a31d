"""What a session makes of the rules for further attempts: from the ledger alone, whichever driver it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from world import JOB, World, world

from orchestrator.config.site import Queue
from orchestrator.jobs.retry import CHECKPOINTED
from orchestrator.model import Job, Resources, Verdict

NEEDY = Job(key="00000", command=("true",), metrics=("m",), resources=Resources(memory=4096))


def with_memory(w: World, most: int) -> None:
    """A site whose jobs can ask for memory, up to so many MiB."""
    queue = Queue(name="all", unit="share", cores_per_unit=64, memory_per_unit=most)
    w.site = w.site.model_copy(update={"queues": (queue,), "memory_syntax": "--mem={memory}M"})


def timeout(w: World, number: int, *, checkpoint: float | None) -> None:
    w.fails(number, cause="timeout", exit_code=None, signal=15, checkpoint=checkpoint)


def out_of_memory(w: World, number: int) -> None:
    w.fails(number, cause="out-of-memory", signal=9, exit_code=None)


def facts(w: World, event: str, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(each.get(name) for name in names) for each in w.events if each["event"] == event]


def test_a_timeout_with_a_new_checkpoint_is_followed_by_another_attempt_and_one_without_is_the_end(
    tmp_path: Path,
) -> None:
    async def body(w: World) -> None:
        outcome = await w.run(
            acts={100.0: lambda: timeout(w, 1, checkpoint=1.5), 900.0: lambda: timeout(w, 2, checkpoint=None)}
        )
        assert (outcome.verdict, outcome.attempts) == (Verdict.TIMEOUT, 2)
        assert [CHECKPOINTED in attempt.notes for attempt in w.attempts()] == [True, False]
        assert facts(w, "retry", "attempt", "verdict") == [(1, "timeout")]
        [(number, why)] = facts(w, "given-up", "attempt", "why")
        assert number == 2
        assert why.startswith("no checkpoint was written in the attempt")

    world(tmp_path, body)


def test_after_out_of_memory_more_is_asked_for_and_another_end_does_not_take_it_back(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        with_memory(w, 64 * 1024)

        acts = {
            100.0: lambda: out_of_memory(w, 1),
            900.0: lambda: w.fails(2, exit_code=85),
            1800.0: lambda: out_of_memory(w, 3),
            2700.0: lambda: w.ends(4),
        }
        outcome = await w.run(NEEDY, acts=acts)
        assert outcome.succeeded
        assert [attempt.memory for attempt in w.attempts()] == [None, 8192, 8192, 16384]
        told = [("out-of-memory", 8192), ("requeue-requested", None), ("out-of-memory", 16384)]
        assert facts(w, "retry", "verdict", "memory") == told

    world(tmp_path, body)


def test_where_the_site_has_no_more_memory_the_trial_has_failed_and_that_is_told(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        with_memory(w, 5 * 1024)
        outcome = await w.run(NEEDY, acts={100.0: lambda: out_of_memory(w, 1)})
        assert (outcome.verdict, outcome.attempts) == (Verdict.OUT_OF_MEMORY, 1)
        assert facts(w, "given-up", "why") == [("the site has no more memory to give",)]

    world(tmp_path, body)


def test_a_driver_that_takes_over_after_the_end_of_an_attempt_decides_the_same(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        with_memory(w, 64 * 1024)
        await w.killed_after(10.0, NEEDY)
        out_of_memory(w, 1)
        await w.killed_after(600.0, NEEDY)
        assert [attempt.memory for attempt in w.attempts()] == [None, 8192]
        outcome = await w.run(NEEDY, acts={100.0: lambda: w.ends(2)})
        assert (outcome.succeeded, outcome.attempts) == (True, 2)

    world(tmp_path, body)


def test_a_driver_that_takes_over_leaves_a_job_that_is_given_up_as_it_is(tmp_path: Path) -> None:
    async def body(w: World) -> None:
        first = await w.run(acts={100.0: lambda: timeout(w, 1, checkpoint=None)})
        again = await w.run()
        assert again == first
        assert len(w.scheduler.submits) == 1

    world(tmp_path, body)


@pytest.mark.parametrize(
    ("job", "margin", "sent"),
    [
        (JOB, 30.0, None),
        (
            Job(key="00000", command=("true",), metrics=("m",), warn_ahead=300.0, warn_signal="SIGUSR1"),
            300.0,
            "SIGUSR1",
        ),
    ],
)
def test_the_warning_ahead_of_the_walltime_is_the_job_s_or_the_site_s(
    tmp_path: Path, job: Job, margin: float, sent: str | None
) -> None:
    async def body(w: World) -> None:
        await w.killed_after(10.0, job)
        order = json.loads(w.transport.files[f"{w.directory()}/job.json"])
        assert (order["margin"], order["warn_signal"]) == (margin, sent)

    world(tmp_path, body)
