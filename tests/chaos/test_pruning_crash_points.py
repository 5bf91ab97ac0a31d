"""A driver is killed at every durable step by which a trial is judged, set aside, taken up again and given up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chaos_crash import Point
from chaos_world import Life, World

from orchestrator.jobs.early import wish_of
from orchestrator.model import Verdict
from orchestrator.search.layout import trial_key
from orchestrator.simulate.clock import run_virtual
from orchestrator.simulate.programs import Run
from orchestrator.store.ledger import Ledger
from orchestrator.store.studydb import read_trials

pytestmark = pytest.mark.usefixtures("each_driver_is_a_process_of_its_own")

TRIALS, STEPS = 8, 4
STUDY: dict[str, Any] = {
    "trials": TRIALS,
    "parallel": 2,
    "pruner": {"name": "asha", "min_step": 1, "max_step": STEPS, "reduction_factor": 2},
}


def train(_order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
    """Four steps of a minute, each as good as the trial will be."""
    x = float(params["x"])
    progress = [(step, x) for step in range(1, STEPS + 1)]
    return Run(
        duration=60.0 * (STEPS + 1),
        metrics={"m": x, "attempt": attempt},
        progress=progress,
        checkpoint=True,
        resumes=True,
    )


def comes_through(folder: Path, deaths: Sequence[Point], kind: str = "slurm") -> list[Life]:
    """Kill one driver after the other at a point each, and see what the study has come to."""

    async def body() -> list[Life]:
        world = World(folder, kind, program=train, study=STUDY)
        lives = []
        for number, death in enumerate(deaths):
            lives.append(await world.live(death))
            await asyncio.sleep((0.0, 45.0, 1800.0)[(number + death.occurrence) % 3])
        lives.append(await world.finish())
        said = ", then ".join(map(str, deaths))
        assert await world.violations() == [], f"killed {said}"
        told = read_trials(world.folder, name=world.study.name)
        complete = [trial.number for trial in told if trial.state == "complete"]
        assert min(told, key=lambda trial: float(str(trial.params["x"]))).number in complete, (
            f"killed {said}: the best did not go on"
        )
        assert len(complete) < TRIALS, f"killed {said}: nothing was saved"
        for trial in told:
            attempts = Ledger(world.folder).attempts(trial_key(trial.number))
            for attempt in attempts:
                assert attempt.outcome is not None
                if attempt.outcome.verdict is Verdict.PAUSED:
                    assert wish_of(attempt) is not None, f"killed {said}: trial {trial.number} was paused by nobody"
            ends = {"pruned": Verdict.PAUSED, "complete": Verdict.SUCCEEDED}
            assert attempts[-1].outcome is not None
            assert attempts[-1].outcome.verdict is ends[trial.state], f"killed {said}: {trial.number} is {trial.state}"
            if trial.state == "complete":
                assert max(trial.steps) == STEPS, f"killed {said}: trial {trial.number} is complete and did not end"
        return lives

    return run_virtual(body())


POINTS = [
    ("slurm", Point("ledger: note", "before", 1)),
    ("pbs", Point("ledger: note", "within", 2)),
    ("pjm", Point("ledger: note", "after", 3)),
    ("gridengine", Point("site: stop", "before", 1)),
    ("slurm", Point("site: stop", "after", 2)),
    ("pbs", Point("database: report", "before", 3)),
    ("pjm", Point("database: report", "within", 5)),
    ("slurm", Point("database: report", "after", 2)),
    ("gridengine", Point("ledger: outcome", "before", 2)),
    ("slurm", Point("ledger: outcome", "within", 4)),
    ("pbs", Point("ledger: outcome", "after", 3)),
    *[("slurm", Point("database: note", when, number)) for number in range(3, 9) for when in ("before", "after")],
    ("pjm", Point("ledger: plan", "before", 5)),
    ("slurm", Point("ledger: plan", "after", 6)),
    ("gridengine", Point("submit", "after", 5)),
    ("slurm", Point("database: end", "before", 1)),
    ("pbs", Point("database: end", "within", 3)),
    ("pjm", Point("database: end", "after", TRIALS - 1)),
]


@pytest.mark.parametrize(("kind", "point"), POINTS, ids=[f"{kind}: {point}" for kind, point in POINTS])
def test_a_driver_killed_while_trials_are_judged_loses_none_and_repeats_none(
    place: Path, kind: str, point: Point
) -> None:
    first, *_ = comes_through(place, [point], kind)
    assert first.end == "killed"


def test_drivers_killed_one_after_the_other_come_to_the_same(place: Path) -> None:
    deaths = [
        Point("ledger: note", "after", 1),
        Point("ledger: outcome", "after", 1),
        Point("database: note", "before", 2),
        Point("database: note", "after", 2),
        Point("submit", "after", 1),
    ]
    lives = comes_through(place, deaths)
    assert [life.end for life in lives[:-1]].count("killed") >= 4
