"""A driver is killed at every durable step, before, within and after, in its first life and in the next ones."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chaos_crash import WHENS, Point
from chaos_invariants import History
from chaos_world import WAYS, Life, World, fast_folder

from orchestrator.simulate.clock import run_virtual

pytestmark = pytest.mark.usefixtures("each_driver_is_a_process_of_its_own")

KINDS = ("slurm", "pbs", "pjm", "gridengine")

# How often a driver comes to a step in a study of twenty trials: once, for each trial, or all the time.
ONCE, EACH, OFTEN = (1,), (1, 10, 20), (1, 12, 30)
STEPS = {
    "lease: token": ONCE,
    "lease: shown": ONCE,
    "lease: renewed": OFTEN,
    "lease: given back": ONCE,
    "freeze: study.yaml": ONCE,
    "freeze: site.yaml": ONCE,
    "freeze: provenance.json": ONCE,
    "database: open": ONCE,
    "database: study": ONCE,
    "database: definition": ONCE,
    "database: trial": EACH,
    "database: note": EACH,
    "database: report": EACH,
    "database: end": EACH,
    "database: backup": ONCE,
    "ledger: plan": EACH,
    "ledger: job id": EACH,
    "ledger: outcome": EACH,
    "site: library": ONCE,
    "site: library complete": ONCE,
    "site: attempt": EACH,
    "site: look": OFTEN,
    "site: removed": EACH,
    "submit": EACH,
    "query": ONCE,
    "snapshot": OFTEN,
    "events: line": (1, 70, 139),
}
NEVER_WITHIN = {"database: open", "database: backup", "submit", "query"} | {step for step in STEPS if "site: " in step}
POINTS = [
    Point(step, when, occurrence)
    for step, occurrences in STEPS.items()
    for when in WHENS
    if when != "within" or step not in NEVER_WITHIN
    for occurrence in occurrences
]


@functools.cache
def undisturbed(*changes: tuple[str, Any]) -> History:
    with fast_folder() as folder:

        async def body() -> History:
            world = World(folder, study={name: dict(value) if name == "sampler" else value for name, value in changes})
            assert (await world.finish()).end == "done"
            assert await world.violations() == []
            return world.history()

        return run_virtual(body())


def comes_through(
    folder: Path, deaths: Sequence[Point], kind: str, way: str = "single", expected: History | None = None, **study: Any
) -> list[Life]:
    """Kill one driver after the other at a point each, and see whether anything of it can be seen at the end."""
    history = expected or undisturbed()

    async def body() -> list[Life]:
        world = World(folder, kind, way, study=study)
        lives = []
        for number, death in enumerate(deaths):
            lives.append(await world.live(death))
            # The next one comes at once, after a while, or when all that ran has long ended.
            await asyncio.sleep((0.0, 45.0, 1800.0)[(number + death.occurrence) % 3])
        lives.append(await world.finish())
        said = ", then ".join(map(str, deaths))
        assert await world.violations(history) == [], f"{kind}, {way}: killed {said}"
        return lives

    return run_virtual(body())


def in_turn(step: str) -> list[tuple[str, Point]]:
    """Before, within and after a step, the flavours and the occurrences by turns."""
    offset = list(STEPS).index(step)
    chosen = []
    points = [point for point in POINTS if point.step == step]
    for number, (_, group) in enumerate(itertools.groupby(points, lambda point: point.when)):
        occurrences = list(group)
        chosen.append((KINDS[(offset + number) % len(KINDS)], occurrences[(offset + number) % len(occurrences)]))
    return chosen


def test_the_steps_are_all_that_a_driver_comes_to(place: Path) -> None:
    reached: set[str] = set()
    for kind, way in itertools.product(("slurm", "pjm"), WAYS):
        (life,) = comes_through(place / kind / way, [], kind, way)
        reached |= {step for step, _ in life.gate.reached}
    assert reached == STEPS.keys() | {"ledger: bundle"}


@pytest.mark.parametrize("step", STEPS)
def test_a_driver_killed_at_a_step_costs_no_trial_and_runs_none_twice(place: Path, step: str) -> None:
    for number, (kind, point) in enumerate(in_turn(step)):
        first, *_ = comes_through(place / str(number), [point], kind)
        assert first.end == "killed", point


# A driver was killed with jobs in flight, one of them without its id, one planned and not submitted; what comes next?
IN_FLIGHT = Point("submit", "after", 9)
NEVER_SUBMITTED = Point("submit", "before", 7)
RECOVERY = [
    (IN_FLIGHT, "lease: token", "after"),
    (IN_FLIGHT, "lease: shown", "within"),
    (IN_FLIGHT, "freeze: study.yaml", "within"),
    (IN_FLIGHT, "freeze: site.yaml", "before"),
    (IN_FLIGHT, "freeze: provenance.json", "within"),
    (IN_FLIGHT, "database: open", "after"),
    (IN_FLIGHT, "database: trial", "within"),
    (IN_FLIGHT, "ledger: job id", "before"),
    (IN_FLIGHT, "ledger: job id", "within"),
    (IN_FLIGHT, "ledger: job id", "after"),
    (IN_FLIGHT, "query", "after"),
    (IN_FLIGHT, "events: line", "within"),
    (NEVER_SUBMITTED, "query", "before"),
    (NEVER_SUBMITTED, "site: claim taken", "before"),
    (NEVER_SUBMITTED, "site: claim taken", "after"),
    (NEVER_SUBMITTED, "ledger: outcome", "before"),
    (NEVER_SUBMITTED, "ledger: outcome", "within"),
    (NEVER_SUBMITTED, "ledger: plan", "after"),
]


@pytest.mark.parametrize(("first", "step", "when"), RECOVERY)
def test_drivers_killed_during_recovery_twice_in_a_row_leave_no_trace(
    place: Path, first: Point, step: str, when: str
) -> None:
    kind = KINDS[RECOVERY.index((first, step, when)) % len(KINDS)]
    lives = comes_through(place, [first, Point(step, when), Point(step, when)], kind)
    assert [life.end for life in lives[:2]] == ["killed", "killed"]


@pytest.mark.parametrize(
    ("kind", "way", "point"),
    [
        ("slurm", "packed", Point("ledger: bundle", "within", 2)),
        ("pbs", "packed", Point("submit", "after", 2)),
        ("gridengine", "packed", Point("ledger: job id", "after", 3)),
        ("slurm", "array", Point("ledger: bundle", "after", 3)),
        ("pbs", "array", Point("submit", "after", 1)),
        ("pjm", "array", Point("ledger: job id", "before", 2)),
    ],
)
def test_trials_that_share_a_job_are_as_safe(place: Path, kind: str, way: str, point: Point) -> None:
    first, *_ = comes_through(place, [point, point], kind, way)
    assert first.end == "killed"


@pytest.mark.parametrize("step", ["database: trial", "ledger: plan", "submit", "database: end"])
def test_a_sampler_that_learns_asks_the_same_after_a_crash_as_without_one(place: Path, step: str) -> None:
    study: dict[str, Any] = {"parallel": 1, "trials": 8, "sampler": {"name": "tpe", "seed": 4, "startup_trials": 3}}
    expected = undisturbed(("parallel", 1), ("trials", 8), ("sampler", tuple(study["sampler"].items())))
    first, *_ = comes_through(place, [Point(step, "after", 5)], "slurm", expected=expected, **study)
    assert first.end == "killed"


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("slurm", Point("ledger: note", "after", 2)),
        ("pbs", Point("cancel", "before")),
        ("pjm", Point("cancel", "after")),
        ("gridengine", Point("query", "after", 2)),
    ],
)
@pytest.mark.parametrize("way", ["single", "packed"])
def test_trials_whose_driver_was_killed_while_it_cancelled_their_jobs_are_run_again(
    place: Path, kind: str, way: str, point: Point
) -> None:
    expected = undisturbed()

    async def body() -> None:
        world = World(place, kind, way)
        assert (await world.live(point, seconds=40.0, manner="cancel")).end == "killed"
        await asyncio.sleep(600.0)
        await world.finish()
        assert await world.violations(expected) == []

    run_virtual(body())


@pytest.mark.parametrize("storage", ["journal:study.journal"])
@pytest.mark.parametrize("step", ["database: trial", "database: note", "database: report", "database: end"])
def test_a_journal_is_as_safe_as_a_database(place: Path, storage: str, step: str) -> None:
    first, *_ = comes_through(place, [Point(step, "within", 9)], "slurm", storage=storage)
    assert first.end == "killed"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_point_on_every_flavour(place: Path, kind: str, way: str) -> None:
    points = [*POINTS, *(Point("ledger: bundle", when, number) for when in WHENS for number in (1, 4))]
    met = {
        point
        for number, point in enumerate(points)
        if comes_through(place / str(number), [point], kind, way)[0].end == "killed"
    }
    # In bundles there are fewer submits than trials.
    missed = {point for point in points if point not in met and point.occurrence == 1}
    assert {point.step for point in missed} <= ({"ledger: bundle"} if way == "single" else set())


@pytest.mark.slow
@pytest.mark.parametrize("first", [IN_FLIGHT, NEVER_SUBMITTED])
@pytest.mark.parametrize("kind", KINDS)
def test_every_point_of_a_recovery_on_every_flavour(place: Path, kind: str, first: Point) -> None:
    for number, (step, when) in enumerate(itertools.product([*STEPS, "site: claim taken"], WHENS)):
        comes_through(place / str(number), [first, Point(step, when), Point(step, when)], kind)
