"""On a login node the driver stands back behind other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from little_study import environment

from orchestrator.cli.manners import be_nice
from orchestrator.config.site import Site
from orchestrator.errors import UsageError


def niceness(*schedulers: str, **more: str) -> tuple[int, int]:
    """How nice a process is before and after it has sites with these schedulers."""
    program = (
        "import os, sys\n"
        "from types import SimpleNamespace\n"
        "from orchestrator.cli.manners import be_nice\n"
        "before = os.getpriority(os.PRIO_PROCESS, 0)\n"
        "be_nice(SimpleNamespace(scheduler=word) for word in sys.argv[1:])\n"
        "print(before, os.getpriority(os.PRIO_PROCESS, 0))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *schedulers],
        env=environment(**more),
        check=True,
        capture_output=True,
        text=True,
    )
    before, after = ran.stdout.split()
    return int(before), int(after)


def test_a_driver_of_a_cluster_is_nice() -> None:
    before, after = niceness("slurm", "pbs")
    assert after == max(before, 5)


def test_somebody_may_ask_for_more_or_for_none_of_it() -> None:
    before, after = niceness("slurm", SURVEY_NICE="12")
    assert after == max(before, 12)
    before, after = niceness("slurm", SURVEY_NICE="0")
    assert after == before


@pytest.mark.parametrize(
    ("schedulers", "more"), [(("local",), {}), (("slurm", "local"), {}), (("slurm",), {"SLURM_JOB_ID": "7"})]
)
def test_jobs_on_this_machine_and_drivers_inside_a_job_are_not_slowed_down(
    schedulers: tuple[str, ...], more: dict[str, str]
) -> None:
    before, after = niceness(*schedulers, **more)
    assert after == before


@pytest.mark.parametrize("asked", ["-5", "20", "very", "1.5"])
def test_what_is_no_niceness_is_a_mistake(asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SURVEY_NICE", asked)
    now = os.getpriority(os.PRIO_PROCESS, 0)
    with pytest.raises(UsageError, match="is no niceness"):
        be_nice([Site(name="a", scheduler="slurm")])
    assert os.getpriority(os.PRIO_PROCESS, 0) == now
