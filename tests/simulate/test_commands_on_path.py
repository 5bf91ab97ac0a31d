"""The emulated cluster behind real commands on PATH, with real processes as jobs."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from worlds import EVERY, Asker, machine

from orchestrator.config.site import BatchOptions
from orchestrator.jobs.script import scheduler_options
from orchestrator.jobs.session import Session
from orchestrator.model import Answer, Job, JobState, Resources, Verdict
from orchestrator.schedulers.base import Refused, Submitted, Unclear
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.installed import InstalledCluster, install
from orchestrator.transports.base import Command
from orchestrator.transports.local import LocalTransport

PROGRAM = """
import json, os
params = json.load(open(os.environ["SURVEY_PARAMS"]))
with open(os.environ["OUTSIDE"], "a") as outside:
    outside.write(os.environ["SURVEY_TAG"] + "\\n")
metrics = {"m": params["x"] ** 2, "gpu": float(os.environ["CUDA_VISIBLE_DEVICES"])}
json.dump({"tag": os.environ["SURVEY_TAG"], "metrics": metrics}, open(os.environ["SURVEY_RESULT"], "w"))
"""


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., InstalledCluster]:
    def make(kind: str, *, faults: tuple[Fault, ...] = (), **rules: object) -> InstalledCluster:
        made = flavour(kind).make_rules(nodes=machine(1, gpus=2), **rules)
        cluster = install(tmp_path / "cluster", kind=kind, rules=made, faults=faults, delay_factor=0.0)
        # Schedulers leave their jobs' output where they were called: not in the checkout.
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", f"{cluster.bin}{os.pathsep}{os.environ['PATH']}")
        return cluster

    return make


def asker(kind: str, folder: Path) -> Asker:
    site = flavour(kind).site(command_timeout=20.0)
    scheduler = make_scheduler(site.scheduler, scheduler_options(site, BatchOptions()))
    return Asker(LocalTransport(), scheduler, str(folder))


async def until(ask: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not (await answer if inspect.isawaitable(answer := ask()) else answer):
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", EVERY)
async def test_a_session_runs_real_jobs_through_the_commands_of_every_flavour(
    tmp_path: Path, kind: str, on_path: Callable[..., InstalledCluster]
) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "program.py").write_text(PROGRAM)
    site = flavour(kind).site(
        python=sys.executable,
        poll={"look": 0.1, "query_min": 0.3, "query_max": 1.0},
        grace=2.0,
        settle=1.0,
        limits={"submits_per_minute": 6000.0, "queries_per_minute": 6000.0},
    )
    jobs = [
        Job(
            key=f"{number:05d}",
            number=number,
            command=(sys.executable, "-I", str(tmp_path / "program.py")),
            params={"x": float(number)},
            metrics=("m", "gpu"),
            environment={"OUTSIDE": str(outside)},
            resources=Resources(gpus=1, walltime=600),
        )
        for number in range(3)
    ]
    with on_path(kind):
        async with Session(tmp_path / "s", name="s", site=site) as session:
            outcomes = await asyncio.wait_for(asyncio.gather(*(session.run(job) for job in jobs)), 60.0)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED] * 3, outcomes
    assert [outcome.metrics["m"] for outcome in outcomes] == [0.0, 1.0, 4.0]
    assert {outcome.metrics["gpu"] for outcome in outcomes} <= {0.0, 1.0}
    assert sorted(outside.read_text().split()) == sorted(outcome.tag for outcome in outcomes)


LONG = """
import json, os, time
with open(os.environ["OUTSIDE"], "a") as outside:
    outside.write(os.environ["SURVEY_TAG"] + "\\n")
with open(os.environ["OUTSIDE"]) as outside:
    first = len(outside.readlines()) == 1
time.sleep(600.0 if first else 0.0)
json.dump({"tag": os.environ["SURVEY_TAG"], "metrics": {"m": 1.0}}, open(os.environ["SURVEY_RESULT"], "w"))
"""


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
async def test_a_real_job_that_is_put_back_runs_again_under_its_id_and_has_one_result(
    tmp_path: Path, kind: str, on_path: Callable[..., InstalledCluster]
) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "program.py").write_text(LONG)
    # A site that lets jobs be run again whatever they ask for.
    site = flavour(kind).site(
        python=sys.executable,
        poll={"look": 0.1, "query_min": 0.3, "query_max": 1.0},
        grace=10.0,
        settle=1.0,
        limits={"submits_per_minute": 6000.0, "queries_per_minute": 6000.0},
    )
    one = Job(
        key="00000",
        number=0,
        command=(sys.executable, "-I", str(tmp_path / "program.py")),
        metrics=("m",),
        environment={"OUTSIDE": str(outside)},
        resources=Resources(gpus=1, walltime=600),
    )
    with on_path(kind, requeue_wait=0.5, overrules_no_rerun=True) as cluster:
        async with Session(tmp_path / "s", name="s", site=site) as session:
            task = asyncio.create_task(session.run(one))
            await until(lambda: _exists(outside))
            if kind == "slurm":
                done = await LocalTransport().run(Command(argv=("scontrol", "requeue", "1")))
                assert done.returncode == 0, done
            else:
                assert cluster.control("requeue", number=1) is not None
            outcome = await asyncio.wait_for(task, 60.0)
    assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 1), outcome
    assert outside.read_text().split() == [outcome.tag] * 2


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pjm", "gridengine"])
async def test_a_real_job_is_seen_cancelled_and_leaves_no_process(
    tmp_path: Path, kind: str, on_path: Callable[..., InstalledCluster]
) -> None:
    ask = asker(kind, tmp_path)
    with on_path(kind, cancel_signal=9):
        job_id = await ask.job_id("t00001-aaaaaaaa", f"setsid sleep 600 & echo $! > {tmp_path}/pid\nwait\n")
        await until(lambda: _exists(tmp_path / "pid"))
        (status,) = await ask.query(job_id)
        assert status.state is JobState.RUNNING
        pid = int((tmp_path / "pid").read_text())
        assert await ask.cancel(job_id)
        await until(lambda: _is(ask, job_id, {Answer.ENDED, Answer.ABSENT}))
        await until(lambda: _gone(pid))


@pytest.mark.parametrize("kind", ["slurm", "pbs-json", "pjm", "gridengine"])
async def test_a_stopped_keeper_is_a_server_that_is_down(
    tmp_path: Path, on_path: Callable[..., InstalledCluster], kind: str
) -> None:
    ask = asker(kind, tmp_path)
    with on_path(kind):
        job_id = await ask.job_id("t00001-aaaaaaaa")
    (status,) = await ask.query(job_id)
    assert status.answer is Answer.UNKNOWN
    refused = await ask.submit("t00002-aaaaaaaa")
    assert isinstance(refused, Refused)
    assert refused.later


async def test_a_submit_whose_answer_never_comes_is_found_by_its_tag(
    tmp_path: Path, on_path: Callable[..., InstalledCluster]
) -> None:
    ask = asker("slurm", tmp_path)
    ask.scheduler.options = type(ask.scheduler.options)(timeout=1.0)
    with on_path("slurm", faults=(Fault(command="submit", kind="reply-lost", calls=(1,)),)):
        assert isinstance(await ask.submit("t00001-aaaaaaaa"), Unclear)
        found = await ask.find("t00001-aaaaaaaa", since=time.time())
        assert len(found.jobs["t00001-aaaaaaaa"]) == 1
        assert isinstance(await ask.submit("t00002-aaaaaaaa"), Submitted)


async def test_a_script_whose_output_folder_is_missing_is_not_launched(
    tmp_path: Path, on_path: Callable[..., InstalledCluster]
) -> None:
    ask = asker("slurm", tmp_path)
    with on_path("slurm"):
        job_id = await ask.job_id("t00001-aaaaaaaa", directives="#SBATCH --output=/no/such/folder/job.log")
        await until(lambda: _is(ask, job_id, {Answer.ENDED}))
        past = await ask.history(job_id)
        assert past is not None
        assert past[0].end is not None
        assert "could not be launched" in past[0].end.reason


@pytest.mark.parametrize(
    ("kind", "variable", "prefix"),
    [
        ("slurm", "SLURM_JOB_ID", "#SBATCH"),
        ("pbs", "PBS_JOBID", "#PBS"),
        ("pjm", "PJM_JOBID", "#PJM"),
        ("gridengine", "JOB_ID", "#$"),
    ],
)
async def test_the_environment_and_the_output_of_a_job_are_the_scheduler_s(
    tmp_path: Path, on_path: Callable[..., InstalledCluster], kind: str, variable: str, prefix: str
) -> None:
    show = f"{sys.executable} -c 'import json,os; print(json.dumps(dict(os.environ)))'\n"
    ask, log = asker(kind, tmp_path), tmp_path / "job.log"
    with on_path(kind):
        job_id = await ask.job_id("t00001-aaaaaaaa", show, directives=f"{prefix} -o {log}")
        await until(lambda: _has_text(log))
    assert json.loads(log.read_text())[variable].partition(".")[0] == job_id


def _exists(path: Path) -> bool:
    return path.is_file() and path.read_text().endswith("\n")


def _has_text(path: Path) -> bool:
    return path.is_file() and path.read_text().endswith("}\n")


async def _is(ask: Asker, job_id: str, answers: set[Answer]) -> bool:
    (status,) = await ask.query(job_id)
    return status.answer in answers


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except FileNotFoundError:
        return True
