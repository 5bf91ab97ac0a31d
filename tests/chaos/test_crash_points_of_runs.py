"""A driver is killed at the durable steps of trials that have several runs: each is run once, the budget is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from chaos_crash import Point
from chaos_world import World, fast_folder

from orchestrator.simulate.batchjob import Phase
from orchestrator.simulate.clock import run_virtual
from orchestrator.simulate.programs import Run
from orchestrator.store.studydb import read_trials

pytestmark = pytest.mark.usefixtures("each_driver_is_a_process_of_its_own")

TRIALS, RUNS = 4, 3
LOST = 1
POINTS = [
    *(Point("database: trial", when, 2) for when in ("before", "after")),
    *(Point("ledger: plan", when, each) for when in ("before", "after") for each in (1, 5)),
    *(Point("ledger: outcome", when, each) for when in ("before", "after") for each in (2, 3, 4, 5, 8)),
    *(Point("ledger: note", when, 1) for when in ("before", "after")),
    *(Point("cancel", when, 1) for when in ("before", "after")),
    *(Point("database: note", when, each) for when in ("before", "after") for each in (5, 6, 7, 9)),
    *(Point("database: end", when, each) for when in ("before", "after") for each in (1, 2, 4)),
]
SHARING = [("slurm", "packed"), ("pbs", "array")]


@pytest.mark.parametrize(
    ("point", "kind", "way"),
    [
        *((point, "slurm", "single") for point in POINTS),
        *((Point("submit", when), kind, way) for when in ("before", "after") for kind, way in SHARING),
        *((Point("ledger: note", "after"), kind, way) for kind, way in SHARING),
    ],
    ids=str,
)
def test_wherever_a_driver_dies_each_run_is_run_once_and_a_lost_trial_is_lost_once(
    point: Point, kind: str, way: str
) -> None:
    begun: Counter[tuple[int, int]] = Counter()

    def program(order: Mapping[str, Any], _params: Mapping[str, Any], _attempt: int) -> Run:
        number, run = order["number"], order["run"]
        begun[number, run] += 1
        if (number, run) == (LOST, 2):
            return Run(duration=50.0, exit_code=3)
        return Run(duration=60.0 * run, metrics={"m": number + run / 10.0}, progress=[(1, 0.5)])

    async def body(folder: Path) -> None:
        study = {"trials": TRIALS, "repeats": RUNS, "parallel": 4}
        world = World(folder, kind, way, program=program, study=study)
        assert (await world.live(point)).end == "killed"
        await world.finish()
        trials = read_trials(world.folder, name=world.study.name)
        assert [trial.state for trial in trials] == ["complete", "failed", "complete", "complete"]
        assert set(begun.values()) == {1}, begun
        whole = {(number, run) for number in range(TRIALS) if number != LOST for run in range(1, RUNS + 1)}
        assert whole <= set(begun)
        assert set(begun) - whole <= {(LOST, run) for run in range(1, RUNS + 1)}
        for trial in trials:
            if trial.number != LOST:
                assert trial.values == pytest.approx((trial.number + 0.2,))
                assert [run.verdict for run in trial.runs] == ["succeeded"] * RUNS
        ours = [job for job in world.cluster.live() if job not in world._others]
        assert {job.phase for job in ours} <= {Phase.ENDED}, "a job that nobody wants runs on"

    with fast_folder() as folder:
        run_virtual(body(folder))
