"""Whole studies on a modelled machine: the ways in which N trials run, what jobs hold, what an answer says."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import UsageError
from orchestrator.simulate.answers import advice, answer, default_target
from orchestrator.simulate.study_model import Arm, Machine, Way, simulate_arm
from orchestrator.simulate.surrogate import Expected
from orchestrator.simulate.times import Times, parse_times
from orchestrator.store.lease import Lease

HOUR = 3600.0


def study(**changes: Any) -> Study:
    data = {
        "name": "modelled",
        "objective": {"metric": "m", "direction": "maximize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 3},
        "trials": 10,
        "command": ["train"],
        "resources": {"gpus": 1},
    }
    return Study.model_validate({**data, **changes})


def training(params: Mapping[str, Any], _seed: int) -> Expected:
    """Good ones take up to three times as long as bad ones."""
    return Expected(metrics={"m": params["x"]}, seconds=HOUR * (1.0 + 2.0 * params["x"]))


def times(text: str) -> Times:
    return parse_times(text, "wait", "--queue-wait")


NO_WAIT = times("0s")


def simulate(
    what: Study | None = None, *, way: Way = "asynchronous", parallel: int = 4, repeat: int = 1, **machine: Any
) -> Arm:
    ground = Machine(**{"queue_wait": NO_WAIT, "submits_per_minute": 1e4, **machine})
    return simulate_arm(what or study(), training, ground, way=way, parallel=parallel, repeat=repeat, typical=2 * HOUR)


def most_at_once(arm: Arm) -> int:
    """Trials that ran at a time."""
    moments = [(trial.started or 0.0, 1) for trial in arm.record.trials]
    moments += [(trial.ended or 0.0, -1) for trial in arm.record.trials]
    return max(itertools.accumulate(step for _, step in sorted(moments)))


def test_a_simulated_study_is_the_same_every_time() -> None:
    wait = times("lognormal:30m:1")
    one, other = (simulate(queue_wait=wait) for _ in range(2))
    assert [(each.params, each.values, each.started, each.ended) for each in one.record.trials] == [
        (each.params, each.values, each.started, each.ended) for each in other.record.trials
    ]
    assert one.jobs == other.jobs


def test_another_repeat_has_other_parameters_and_other_waits() -> None:
    wait = times("exponential:1h")
    one, other = (simulate(queue_wait=wait, repeat=repeat) for repeat in (1, 2))
    assert one.record.trials[0].params != other.record.trials[0].params
    assert one.jobs[0].started != other.jobs[0].started


def test_every_trial_of_the_budget_runs_once_in_a_job_of_its_own() -> None:
    arm = simulate(parallel=4)
    assert [trial.state for trial in arm.record.trials] == ["complete"] * 10
    assert [trial.attempts for trial in arm.record.trials] == [1] * 10
    assert [job.trials for job in arm.jobs] == [1] * 10
    assert most_at_once(arm) == 4


@pytest.mark.parametrize("way", ["asynchronous", "batches", "packed"])
def test_the_runs_of_a_trial_are_jobs_with_times_of_their_own(way: Way) -> None:
    arm = simulate(study(repeats=3, trials=4), way=way, parallel=4, run_time=times("lognormal:1h:0.5"), pack=2)
    assert [trial.state for trial in arm.record.trials] == ["complete"] * 4
    assert sum(job.trials for job in arm.jobs) == 12
    for trial in arm.record.trials:
        assert len({(run.ended or 0.0) - (run.started or 0.0) for run in trial.runs}) == 3


def test_in_batches_nothing_is_asked_before_all_of_the_last_batch_have_ended() -> None:
    arm = simulate(way="batches", parallel=4)
    trials = arm.record.trials
    assert [trial.state for trial in trials] == ["complete"] * 10
    batches = [trials[:4], trials[4:8], trials[8:]]
    for earlier, later in itertools.pairwise(batches):
        assert max(trial.ended or 0.0 for trial in earlier) <= min(trial.created or 0.0 for trial in later)
        assert len({trial.created for trial in later}) == 1


def test_batches_take_longer_than_slots_that_ask_as_they_free_up() -> None:
    together, alone = simulate(way="batches"), simulate(way="asynchronous")
    assert max(job.ended for job in together.jobs) > max(job.ended for job in alone.jobs)
    # Random search draws the same parameters, so that its jobs hold the same hours.
    assert together.hours() == pytest.approx(alone.hours())


def test_a_packed_job_holds_all_its_gpus_until_its_last_trial_ends() -> None:
    arm = simulate(way="packed", parallel=4, pack=2)
    assert max(job.trials for job in arm.jobs) == 2
    assert sum(job.trials for job in arm.jobs) == 10
    ran = sum((trial.ended or 0.0) - (trial.started or 0.0) for trial in arm.record.trials) / HOUR
    assert arm.hours() > ran
    assert arm.hours() == pytest.approx(sum((job.ended - job.started) * job.trials for job in arm.jobs) / HOUR)


def test_hours_up_to_a_moment_leave_out_what_comes_later() -> None:
    arm = simulate(parallel=1)
    middle = arm.jobs[4].ended
    assert arm.hours(0.0) == 0.0
    assert arm.hours(middle) == pytest.approx(sum(job.ended - job.started for job in arm.jobs[:5]) / HOUR)


def test_more_gpus_and_nodes_of_a_trial_are_more_hours() -> None:
    large = simulate(study(resources={"gpus": 4, "nodes": 2}), parallel=2)
    assert large.devices == 8
    assert large.hours() == pytest.approx(8 * simulate(parallel=2).hours())


def test_no_more_runs_at_a_time_than_the_nodes_carry() -> None:
    assert most_at_once(simulate(parallel=8, nodes=1, pack=2)) == 2


def test_a_job_waits_as_long_as_others_make_it_wait() -> None:
    arm = simulate(queue_wait=times("2h"), parallel=2)
    assert min(job.started for job in arm.jobs) == pytest.approx(2 * HOUR, abs=60.0)


def test_run_times_may_be_stretched_or_drawn() -> None:
    stretched = simulate(stretch=10.0, parallel=1)
    assert stretched.hours() == pytest.approx(10 * simulate(parallel=1).hours())
    drawn = simulate(run_time=times("30m"), parallel=1)
    assert [job.ended - job.started for job in drawn.jobs] == pytest.approx([1800.0] * 10)


def test_trials_fail_as_often_as_they_are_said_to() -> None:
    many = study(trials=60)
    failed = [trial for trial in simulate(many, failures=0.25, parallel=8).record.trials if trial.state == "failed"]
    assert 5 <= len(failed) <= 25
    assert not [trial for trial in simulate(many, parallel=8).record.trials if trial.state == "failed"]


def test_a_trial_that_would_fail_by_its_parameters_fails() -> None:
    def fragile(params: Mapping[str, Any], seed: int) -> Expected:
        return training(params, seed) if params["x"] < 0.5 else Expected(metrics=None, seconds=None)

    arm = simulate_arm(study(), fragile, Machine(queue_wait=NO_WAIT), way="asynchronous", parallel=2, typical=HOUR)
    assert {trial.state for trial in arm.record.trials if trial.params["x"] >= 0.5} == {"failed"}  # type: ignore[operator]
    assert {trial.state for trial in arm.record.trials if trial.params["x"] < 0.5} == {"complete"}  # type: ignore[operator]


def test_what_the_study_says_of_its_site_and_database_plays_no_part() -> None:
    tied = study(
        storage="postgresql://me:${NO_SUCH_VARIABLE}@nowhere/db",
        resources={"gpus": 1, "walltime": 60, "memory": "900GB"},
        batch={"template": "gone.sh.j2", "queue": "none", "pack": "auto"},
        sites=["unheard-of"],
        workdir="/nowhere",
        data=["gone"],
    )
    assert [trial.state for trial in simulate(tied).record.trials] == ["complete"] * 10


def test_a_simulated_study_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.simulate.study_model._memory", lambda: str(tmp_path))
    made: list[str] = []
    real = tempfile.TemporaryDirectory

    def make(*, prefix: str, dir: str) -> tempfile.TemporaryDirectory[str]:  # noqa: A002 - the library's word
        made.append(dir)
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", make)
    simulate()
    assert made == [str(tmp_path)]
    assert not list(tmp_path.iterdir())


def test_a_lease_that_nobody_could_take_is_not_renewed_for_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(_lease: Lease) -> None:
        raise AssertionError("renewed")

    monkeypatch.setattr(Lease, "renew", renew)
    arm = simulate(parallel=1, stretch=100.0)
    assert arm.jobs[-1].ended > 14 * 86400


def test_trials_of_several_nodes_cannot_be_packed() -> None:
    with pytest.raises(UsageError, match="only trials of one node can share a job"):
        simulate(study(resources={"gpus": 1, "nodes": 2}), way="packed")


def test_fewer_nodes_than_a_trial_takes_are_refused_and_not_waited_for() -> None:
    with pytest.raises(UsageError, match="takes 2 nodes; there are 1"):
        simulate(study(resources={"gpus": 1, "nodes": 2}), nodes=1)


# Answers


def test_an_answer_has_a_line_for_each_way_and_number() -> None:
    plan: list[tuple[Way, int]] = [("asynchronous", 1), ("asynchronous", 4), ("batches", 4)]
    arms = [simulate(way=way, parallel=parallel, repeat=repeat) for way, parallel in plan for repeat in (1, 2, 3)]
    found = answer(arms, target=default_target(arms))
    assert [(line.way, line.parallel, line.repeats) for line in found.lines] == [
        ("asynchronous", 1, 3),
        ("asynchronous", 4, 3),
        ("batches", 4, 3),
    ]
    one, four, batches = found.lines
    assert one.to_end > batches.to_end > four.to_end
    assert four.hours == pytest.approx(one.hours)
    assert one.idle < four.idle < batches.idle
    assert all(0 < (line.to_target or 0) <= line.to_end for line in found.lines)
    assert found.unit == "GPU-hours"
    assert len(found.to_markdown().splitlines()) == 5


def test_the_default_target_is_reached_by_nine_of_ten() -> None:
    arms = [simulate(parallel=4, repeat=repeat) for repeat in range(1, 11)]
    assert sum(answer([arm], default_target(arms)).lines[0].reached for arm in arms) in {9, 10}


def test_a_target_that_hardly_any_study_reaches_has_no_time() -> None:
    arms = [simulate(parallel=4, repeat=repeat) for repeat in (1, 2, 3)]
    found = answer(arms, target=2.0)
    assert (found.lines[0].reached, found.lines[0].to_target, found.lines[0].hours_to_target) == (0, None, None)
    assert "not reached (0 of 3)" in found.cells()[0]
    assert "ask for more trials" in advice(found)


def test_the_advice_is_the_fewest_slots_that_come_near_the_shortest_time() -> None:
    line = answer([simulate(parallel=1)], target=0.5).lines[0]
    lines = [
        dataclasses.replace(line, parallel=parallel, to_target=hours * HOUR, hours_to_target=spent)
        for parallel, hours, spent in ((1, 10.0, 10.0), (4, 3.0, 12.0), (8, 2.2, 14.0), (64, 2.0, 90.0))
    ]
    found = dataclasses.replace(answer([simulate(parallel=1)], target=0.5), lines=tuple(lines))
    assert advice(found).startswith("N = 8 reaches m 0.5 in 2h 12m for 14.0 GPU-hours")
    assert "N = 1 needs the least, 10.0 GPU-hours" in advice(found)


def test_without_a_single_success_there_is_no_target() -> None:
    with pytest.raises(UsageError, match="no trial of any simulated study has succeeded"):
        default_target([simulate(failures=1.0)])
