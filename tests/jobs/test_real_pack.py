"""Packed jobs as real processes: one batch job of the local queue, one agent, several programs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from orchestrator.config.site import BatchOptions, load_site
from orchestrator.jobs.session import Session
from orchestrator.model import Job, Verdict
from orchestrator.store.ledger import Ledger

UNTIL_GO = 'echo on > began; while [ ! -e go ]; do sleep 0.05; done; echo \'{"metrics": {"m": 1}}\' > "$SURVEY_RESULT"'


def _job(root: Path, number: int) -> Job:
    folder = root / f"work{number}"
    folder.mkdir(exist_ok=True)
    return Job(key=f"j{number}", number=number, command=UNTIL_GO, metrics=("m",), workdir=str(folder))


def _wait_for_both(root: Path) -> None:
    limit = time.monotonic() + 60.0
    while not all((root / f"work{number}" / "began").exists() for number in range(2)):
        assert time.monotonic() < limit
        time.sleep(0.05)


async def _both_began(root: Path) -> None:
    await asyncio.to_thread(_wait_for_both, root)


async def test_one_attempt_of_a_running_job_is_cancelled_and_its_neighbour_succeeds(tmp_path: Path) -> None:
    root = tmp_path / "s"
    session = Session(root, name="s", site=load_site("local"), batch=BatchOptions(pack=2))
    async with session:
        one, other = session.submit(_job(tmp_path, 0), _job(tmp_path, 1))
        await _both_began(tmp_path)
        first, second = (Ledger(root).attempts(f"j{number}")[0] for number in range(2))
        assert first.job_id == second.job_id is not None
        await session.abort("j0")
        assert one.result().verdict is Verdict.CANCELLED
        assert not other.done()
        (tmp_path / "work1" / "go").touch()
        outcome = await asyncio.wait_for(other, 60.0)
    assert outcome.succeeded
    assert outcome.metrics == {"m": 1.0}


async def test_a_packed_job_outlives_its_driver_and_is_found_again(tmp_path: Path) -> None:
    root = tmp_path / "s"
    jobs = [_job(tmp_path, number) for number in range(2)]
    async with Session(root, name="s", site=load_site("local"), batch=BatchOptions(pack=2)) as session:
        session.submit(*jobs)
        await _both_began(tmp_path)
    for number in range(2):
        (tmp_path / f"work{number}" / "go").touch()
    async with Session(root, name="s", site=load_site("local"), batch=BatchOptions(pack=2)) as session:
        outcomes = await asyncio.wait_for(asyncio.gather(*session.submit(*jobs)), 60.0)
    assert [(outcome.verdict, outcome.attempts) for outcome in outcomes] == [(Verdict.SUCCEEDED, 1)] * 2
