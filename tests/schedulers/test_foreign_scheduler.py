"""A scheduler that another package brings by an entry point, and the contract suite run on it as its authors would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A whole adaptor of a small imaginary scheduler: `flock add`, `flock list`, `flock end`.
_ADAPTOR = """
from typing import ClassVar

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.reading import LATER, NEVER, Message, absent, evidence, found_jobs, read_submit, unknown

STATES = {"waits": JobState.QUEUED, "flies": JobState.RUNNING}
ENDS = {"landed": Verdict.SUCCEEDED, "fell": Verdict.FAILED}
MESSAGES = (Message("sky is full", LATER), Message("no such bird", NEVER))


class Flock(Scheduler):
    name: ClassVar[str] = "flock"
    template: ClassVar[str] = "flock.sh.j2"

    def submit(self, request):
        return self.command("flock", "add", "--name", request.tag, request.script)

    def parse_submit(self, completion):
        lines = completion.stdout.splitlines()
        return read_submit(completion, lambda _text: [line for line in lines if line.isdigit()], MESSAGES)

    def query(self, job_ids):
        return self.command("flock", "list")

    def parse_query(self, completion, job_ids):
        listed = self._listed(completion)
        if listed is None:
            return unknown(job_ids, evidence(completion))
        return {job_id: listed.get(job_id) or absent(job_id, "not in the list") for job_id in job_ids}

    def history(self, job_ids, since):
        return None

    def parse_history(self, completion, job_ids):
        return self.parse_query(completion, job_ids)

    def find(self, tags, since):
        return (self.command("flock", "list"),)

    def parse_find(self, completions, tags):
        listed = self._listed(completions[0])
        jobs = {tag: {} for tag in tags}
        for status in (listed or {}).values():
            if status.name in jobs:
                jobs[status.name][status.job_id] = status
        return found_jobs(jobs, ["no list"] if listed is None else [])

    def cancel(self, job_ids):
        return self.command("flock", "end", *job_ids)

    def cancelled(self, completion):
        return completion.returncode == 0

    def _listed(self, completion):
        lines = completion.stdout.splitlines()
        if completion.returncode != 0 or lines[:1] != ["BIRDS"]:
            return None
        return {line.split()[0]: self._status(*line.split()) for line in lines[1:]}

    def _status(self, job_id, word, name):
        common = {"job_id": job_id, "word": word, "name": name, "evidence": f"{job_id} {word}"}
        if word in STATES:
            return JobStatus(answer=Answer.ALIVE, state=STATES[word], **common)
        if word in ENDS:
            return JobStatus(answer=Answer.ENDED, state=JobState.ENDED, end=JobEnd(verdict=ENDS[word]), **common)
        return JobStatus(answer=Answer.UNKNOWN, **common)
"""

_ITS_TEST = """
import pytest

from orchestrator.model import JobState, Verdict
from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
from orchestrator.schedulers.registry import make_scheduler


class TestFlock(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        birds = completed("BIRDS\\n1 flies t00007-k3j9x2q8\\n2 waits other\\n3 fell other\\n4 landed other\\n")
        return Recorded(
            scheduler=make_scheduler("flock"),
            accepted=[(completed("welcome\\n42\\n"), "42")],
            refused=[completed(stderr="no such bird", returncode=1)],
            later=[completed(stderr="the sky is full", returncode=1)],
            unclear=[completed("1\\n2\\n"), completed(stderr="a storm", returncode=1)],
            live=birds,
            alive={"1": JobState.RUNNING, "2": JobState.QUEUED},
            ended={"3": Verdict.FAILED, "4": Verdict.SUCCEEDED},
            unlisted=["9"],
            failed_queries=[completed(stderr="fog", returncode=1)],
            tag="t00007-k3j9x2q8",
            found="1",
            hit=[birds],
            miss=[completed("BIRDS\\n")],
            failed_finds=[[completed(stderr="fog", returncode=1)]],
            cancelled=[completed()],
            not_cancelled=[completed(stderr="fog", returncode=1)],
        )
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder as pip leaves it: the module, and the installed distribution's entry points."""
    (tmp_path / "flock_scheduler.py").write_text(_ADAPTOR)
    installed = tmp_path / "flock_scheduler-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: flock-scheduler\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[survey_orchestrator.schedulers]\nflock = flock_scheduler:Flock\n")
    (tmp_path / "test_flock.py").write_text(_ITS_TEST)
    return tmp_path


def contract(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the foreign package's own tests, as its authors do."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_flock.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_scheduler_of_an_entry_point_passes_the_contract_suite(elsewhere: Path) -> None:
    done = contract(elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert "skipped" not in done.stdout


def test_an_adaptor_that_takes_a_failed_query_for_an_empty_queue_does_not_pass(elsewhere: Path) -> None:
    module = elsewhere / "flock_scheduler.py"
    hasty = module.read_text().replace('completion.returncode != 0 or lines[:1] != ["BIRDS"]', "False")
    module.write_text(hasty)
    done = contract(elsewhere)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_a_query_that_failed_proves_nothing_of_any_job" in done.stdout
