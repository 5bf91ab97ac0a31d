"""The simulated compute nodes and files: the agent's forms, packed and array jobs, memory that stays bounded."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from worlds import World, job, machine, play, train

from orchestrator import agent
from orchestrator.config.site import BatchOptions
from orchestrator.jobs.placement import place
from orchestrator.jobs.script import ScriptRequest, render
from orchestrator.model import Resources, Verdict
from orchestrator.schedulers.base import SubmitRequest, Submitted
from orchestrator.simulate.files import Files
from orchestrator.simulate.programs import Run

ORDER = {"version": 1, "tag": "t00000-aaaaaaaa", "key": "00000", "attempt": 1, "command": ["true"], "metrics": ["m"]}


def simulated(tmp_path: Path) -> dict[str, Any]:
    """What a look shows of an attempt that ended in the simulation."""
    seen: dict[str, Any] = {}

    async def body() -> None:
        world = World(tmp_path, "slurm")
        async with world.session() as session:
            outcome = await session.run(job(2))
        reply = await world.transport.look({"attempts": {outcome.directory: {"progress": 0}}, "query": None})
        assert reply is not None
        seen.update(reply["attempts"][outcome.directory])

    play(body)
    return seen


def test_claim_and_report_have_the_real_agent_s_form(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(ORDER))
    environment = {**os.environ, "SLURM_JOB_ID": "1"}
    subprocess.run([sys.executable, "-I", agent.__file__, "run", str(folder)], env=environment, check=True)
    real = agent.look({"attempts": {str(folder): {"progress": 0}}, "query": None})["attempts"][str(folder)]
    made = simulated(tmp_path / "study")
    assert made.keys() == real.keys()
    for name in ("claim", "exit"):
        assert made[name].keys() == real[name].keys()
        shapes = {key: type(value) for key, value in real[name].items() if value is not None}
        assert {key: type(made[name][key]) for key in shapes} == shapes


def test_a_program_that_is_read_by_rules_reports_its_metrics_in_exit_json(tmp_path: Path) -> None:
    async def body() -> None:
        from dataclasses import replace

        from orchestrator.model import ReadRule

        world = World(tmp_path, "slurm")
        read = replace(job(3), read=(ReadRule(metric="m", stdout="m=(.*)"),))
        async with world.session() as session:
            outcome = await session.run(read)
        assert (outcome.verdict, outcome.metrics) == (Verdict.SUCCEEDED, {"m": 9.0})
        assert "result.json" not in world.transport.files.names(outcome.directory)

    play(body)


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
@pytest.mark.parametrize("array", [None, 2])
def test_the_attempts_of_packed_and_of_array_jobs_all_run(tmp_path: Path, kind: str, array: int | None) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(4))
        folders = tuple(f"/w/trials/0000{number}/attempt-1" for number in range(4))
        for number, folder in enumerate(folders):
            order = {**ORDER, "tag": f"t0000{number}-aaaaaaaa"}
            await world.transport.put(
                {f"{folder}/job.json": json.dumps(order).encode(), f"{folder}/params.json": b'{"x": 1}'}
            )
        site = world.site.model_copy(update={"array_allowed": True})
        placement = place(site, Resources(gpus=1, walltime=3600), BatchOptions())
        request = ScriptRequest(
            tag="t00000-aaaaaaaa",
            directories=folders,
            agent="/w/lib/agent.py",
            python="python3",
            study="s",
            output_dir="/w",
            array=array,
        )
        await world.transport.put({"/w/job.sh": render(site, placement, BatchOptions(), request).encode()})
        ask = SubmitRequest(script="/w/job.sh", tag="t00000-aaaaaaaa", directory="/w", array=array)
        answer = world.scheduler.parse_submit(await world.transport.run(world.scheduler.submit(ask)))
        assert isinstance(answer, Submitted)
        await asyncio.sleep(1000.0)
        reply = await world.transport.look({"attempts": {folder: {"progress": 0} for folder in folders}, "query": None})
        assert reply is not None
        assert [seen["exit"]["exit_code"] for seen in reply["attempts"].values()] == [0] * 4
        assert len({seen["claim"]["job_id"] for seen in reply["attempts"].values()}) == (array or 1)
        assert len(world.transport.executions) == 4

    play(body)


def test_an_attempt_that_the_driver_has_revoked_does_not_run(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", queue_wait=lambda _job: 100.0)
        folder = "/w/trials/00000/attempt-1"
        script = f"exec python3 -I /w/lib/agent.py run \\\n  {folder}\n"
        await world.transport.put({f"{folder}/job.json": json.dumps(ORDER).encode()})
        await world.asker.job_id("t00000-aaaaaaaa", script)
        assert await world.transport.revoke(folder, "t00000-aaaaaaaa")
        await asyncio.sleep(1000.0)
        assert world.transport.executions == []
        assert await world.transport.revoke(folder, "t00000-aaaaaaaa")

    play(body)


def test_an_attempt_that_runs_cannot_be_revoked(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", files_lag=500.0)
        folder = "/w/trials/00000/attempt-1"
        files = {f"{folder}/job.json": json.dumps(ORDER).encode(), f"{folder}/params.json": b'{"x": 1}'}
        await world.transport.put(files)
        await world.asker.job_id("t00000-aaaaaaaa", f"exec python3 -I /w/lib/agent.py run \\\n  {folder}\n")
        await asyncio.sleep(10.0)
        reply = await world.transport.look({"attempts": {folder: {"progress": 0}}, "query": None})
        assert reply is not None
        assert reply["attempts"][folder]["claim"] is None  # not visible here yet
        assert not await world.transport.revoke(folder, "t00000-aaaaaaaa")  # but the file server knows

    play(body)


def test_progress_comes_in_parts_and_nothing_twice(tmp_path: Path) -> None:
    async def body() -> None:
        reports = [(step, step / 10.0) for step in range(10)]
        world = World(tmp_path, "slurm", lambda *_: Run(duration=1000.0, metrics={"m": 1.0}, progress=reports))
        async with world.session() as session:
            await session.run(job())
        assert [(event["step"], event["value"]) for event in world.said("progress")] == reports

    play(body)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (Run(duration=60.0), Verdict.FAILED),
        (Run(duration=60.0, exit_code=3), Verdict.FAILED),
        (Run(duration=60.0, signal=11), Verdict.FAILED),
        (Run(duration=60.0, exit_code=85), Verdict.REQUEUE_REQUESTED),
        (Run(duration=60.0, result='{"metrics": {"m": 1.'), Verdict.FAILED),
        (Run(duration=60.0, result='{"tag": "another", "metrics": {"m": 1.0}}'), Verdict.FAILED),
        (Run(duration=60.0, metrics={"m": float("nan")}), Verdict.FAILED),
        (Run(duration=60.0, metrics={"m": 1.0}, exit_code=1), Verdict.SUCCEEDED),
        (Run(duration=60.0, metrics={"m": 1.0}, result_at=30.0, agent_dies=45.0), Verdict.SUCCEEDED),
    ],
)
def test_what_a_program_leaves_behind_decides_its_verdict(tmp_path: Path, run: Run, verdict: Verdict) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", lambda *_: run)
        async with world.session() as session:
            outcome = await session.run(job())
        assert outcome.verdict is verdict, outcome

    play(body)


def test_folders_of_ended_attempts_are_dropped_where_that_is_asked_for(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", train)
        world.transport.keep_folders = 3
        async with world.session(limit=4) as session:
            outcomes = await asyncio.gather(*(session.run(job(number)) for number in range(12)))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 12
        kept = [outcome for outcome in outcomes if world.transport.files.is_folder(outcome.directory)]
        assert 0 < len(kept) <= 3

    play(body)


# Files


def test_a_late_file_shows_its_old_content_until_it_is_through() -> None:
    files = Files()
    files.write("/a/b", b"old")
    files.write("/a/b", b"new", visible=10.0, now=5.0)
    assert [files.read("/a/b", moment) for moment in (5.0, 9.9, 10.0)] == [b"old", b"old", b"new"]
    assert files.read("/a/b") == b"new"
    files.write("/a/c", b"first", visible=10.0, now=5.0)
    assert files.read("/a/c", 9.0) is None


def test_creation_is_decided_by_the_file_server() -> None:
    files = Files()
    assert files.create("/a/claim", b"1", visible=100.0, now=0.0)
    assert files.read("/a/claim", 1.0) is None
    assert not files.create("/a/claim", b"2")
    assert files.read("/a/claim") == b"1"


def test_removing_a_folder_takes_all_below_it_and_nothing_beside_it() -> None:
    files = Files()
    for path in ("/s/trials/1/x", "/s/trials/1/deep/y", "/s/trials/10/x", "/s/z"):
        files.write(path, b"")
    files.remove("/s/trials/1")
    files.remove("/s/nothing")
    assert files.read("/s/trials/1/x") is None
    assert files.read("/s/trials/1/deep/y") is None
    assert files.read("/s/trials/10/x") == b""
    files.remove("/s")
    assert files.read("/s/z") is None
    assert not files.is_folder("/s")
