"""The local scheduler: the contract on recorded outputs, and real jobs through the local transport."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from orchestrator import localq
from orchestrator.errors import UsageError
from orchestrator.model import Answer, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import SchedulerOptions, SubmitRequest, Submitted
from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
from orchestrator.schedulers.local import Local
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.transports.local import LocalTransport

RUNNING, QUEUED = "local-12943-253510-4c0cbf01", "local-12944-253511-4c0cbf01"
DONE, FAILED, KILLED = "local-1-1-4c0cbf01", "local-2-2-4c0cbf01", "local-3-3-4c0cbf01"
CANCELLED, VANISHED, REBOOTED = "local-4-4-4c0cbf01", "local-5-5-4c0cbf01", "local-6-6-4c0cbf01"
ELSEWHERE = "local-7-7-aaaaaaaa"
TAG = "t00007-k3j9x2q8"

LIVE = f"""{localq.HEADER}
{RUNNING} running - - {TAG} 1795223786.262 1795223786.317 - -
{QUEUED} queued - - t00008-aaaaaaaa 1795223786.262 - - -
{DONE} ended 0 - t00001-aaaaaaaa 1795223786.262 1795223786.317 1795223790.000 -
{FAILED} ended 3 - t00002-aaaaaaaa 1795223786.262 1795223786.317 1795223790.000 -
{KILLED} ended - 9 t00003-aaaaaaaa 1795223786.262 1795223786.317 1795223790.000 -
{CANCELLED} cancelled - 15 t00004-aaaaaaaa 1795223786.262 1795223786.317 1795223790.000 -
{VANISHED} vanished - - t00005-aaaaaaaa 1795223786.262 1795223786.317 - its keeper was killed
{REBOOTED} rebooted - - t00006-aaaaaaaa 1795223786.262 1795223786.317 - the machine was started anew
{ELSEWHERE} unknown - - t00007-aaaaaaaa 1795223786.262 1795223786.317 - kept on login2
"""


def _options(spool: Path = Path("/work/study/.localq")) -> SchedulerOptions:
    return SchedulerOptions(
        timeout=33.0, extra={"python": sys.executable, "localq": localq.__file__, "spool": str(spool)}
    )


class TestLocal(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        return Recorded(
            scheduler=make_scheduler("local", _options()),
            accepted=[
                (completed(f"{RUNNING}\n"), RUNNING),
                (completed(stderr=f"localq: a job '{TAG}' was submitted before: {RUNNING}\n", returncode=3), RUNNING),
            ],
            refused=[
                completed(stderr="localq: there is no script /work/job.sh\n", returncode=2),
                completed(stderr="python3: cannot execute", returncode=126),
            ],
            later=[completed(stderr="localq: failed [Errno 28] No space left on device\n", returncode=4)],
            unclear=[
                completed("Submitted batch job 12\n"),
                completed(stderr="Traceback (most recent call last):\n", returncode=1),
                completed(stderr="localq: a job was submitted before: ?\n", returncode=3),
            ],
            live=completed(LIVE),
            alive={RUNNING: JobState.RUNNING, QUEUED: JobState.QUEUED},
            ended={
                DONE: Verdict.SUCCEEDED,
                FAILED: Verdict.FAILED,
                KILLED: Verdict.FAILED,
                CANCELLED: Verdict.CANCELLED,
                VANISHED: None,
                REBOOTED: Verdict.NODE_FAILURE,
            },
            unlisted=["local-9-9-4c0cbf01"],
            failed_queries=[
                completed(LIVE, returncode=1),
                completed(LIVE.partition("\n")[2]),
                completed(stderr="localq: [Errno 5] Input/output error\n", returncode=4),
            ],
            tag=TAG,
            found=RUNNING,
            hit=[completed(LIVE)],
            miss=[completed(f"{localq.HEADER}\n")],
            failed_finds=[[completed(stderr="localq: [Errno 5]\n", returncode=4)], [completed("")], []],
            cancelled=[completed(), completed(stderr="localq: there is no job local-9-9-4c0cbf01\n")],
            not_cancelled=[completed(stderr="localq: can be cancelled on login2 only\n", returncode=5)],
        )


def test_a_job_of_another_host_is_unknown_not_gone() -> None:
    status = Local(_options()).parse_query(completed(LIVE), [ELSEWHERE])[ELSEWHERE]
    assert status.answer is Answer.UNKNOWN
    assert "login2" in status.evidence


def test_numbers_that_are_none_prove_nothing() -> None:
    line = f"{RUNNING} ended zero - t1 1795223786.262 - - -"
    status = Local(_options()).parse_query(completed(f"{localq.HEADER}\n{line}\n"), [RUNNING])[RUNNING]
    assert (status.answer, status.evidence) == (Answer.UNKNOWN, line)


def test_array_jobs_are_refused() -> None:
    with pytest.raises(UsageError, match="no array jobs"):
        Local(_options()).submit(SubmitRequest(script="/s", tag="t1", directory="/d", array=4))


def test_what_it_was_not_told_is_named() -> None:
    with pytest.raises(UsageError, match="python and spool"):
        Local(SchedulerOptions(extra={"localq": "/lib/localq.py"})).query([])


async def test_a_real_job_goes_from_submit_to_its_end(tmp_path: Path) -> None:
    scheduler, transport = Local(_options(tmp_path / "spool")), LocalTransport()
    script = tmp_path / "job.sh"
    script.write_text("while [ ! -e go ]; do sleep 0.01; done; exit 3\n")
    request = SubmitRequest(script=str(script), tag="t1", directory=str(tmp_path))
    answer = scheduler.parse_submit(await transport.run(scheduler.submit(request)))
    assert isinstance(answer, Submitted)
    assert scheduler.parse_submit(await transport.run(scheduler.submit(request))) == answer

    async def status() -> JobStatus:
        completion = await transport.run(scheduler.query([answer.job_id]))
        return scheduler.parse_query(completion, [answer.job_id])[answer.job_id]

    assert (await status()).answer is Answer.ALIVE
    found = scheduler.parse_find(
        [await transport.run(command) for command in scheduler.find(["t1", "t2"], 0.0)], ["t1"]
    )
    assert [job.job_id for job in found.jobs["t1"]] == [answer.job_id]
    assert found.trusted
    (tmp_path / "go").touch()
    async with asyncio.timeout(30):
        while (await status()).answer is Answer.ALIVE:
            pass
    end = (await status()).end
    assert end is not None
    assert (end.verdict, end.exit_code) == (Verdict.FAILED, 3)
    assert scheduler.cancelled(await transport.run(scheduler.cancel([answer.job_id])))
