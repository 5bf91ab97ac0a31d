"""GPUs: each attempt its own, none without, and what nvidia-smi says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agent_orders import carry_out, record, write_order

from orchestrator import agent

SHOW = 'echo "gpus=$CUDA_VISIBLE_DEVICES"'

NVIDIA_SMI = """#!/bin/sh
case "$1" in
  -L) echo "GPU 0: Tesla P100 (UUID: GPU-1)"; echo "GPU 1: Tesla P100 (UUID: GPU-2)" ;;
  *) echo "$@" >> "$(dirname "$0")/asked"; cat "$(dirname "$0")/answer" ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Path:
    """Folder with an nvidia-smi that reports two GPUs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(NVIDIA_SMI)
    (folder / "nvidia-smi").chmod(0o755)
    (folder / "answer").write_text("Tesla P100-SXM2-16GB, 1234\n")
    return folder


def _path(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "0"])
def test_an_attempt_with_too_few_gpus_is_not_started(tmp_path: Path, visible: str) -> None:
    attempt = write_order(tmp_path / "a", command="touch ran", gpus=2)
    assert carry_out(attempt, environment={"CUDA_VISIBLE_DEVICES": visible})[0] == agent.EXIT_NO_GPU
    report = record(attempt / "exit.json")
    assert (report["cause"], report["exit_code"]) == ("no-gpu", None)
    assert "needed: 2" in report["message"]
    assert not (attempt / "ran").exists()


def test_without_the_variable_the_machine_is_asked_for_its_gpus(tmp_path: Path, nvidia_smi: Path) -> None:
    three = write_order(tmp_path / "three", command="touch ran", gpus=3)
    one = write_order(tmp_path / "one", command=SHOW, gpus=1)
    assert carry_out(three, environment=_path(nvidia_smi))[0] == agent.EXIT_NO_GPU
    assert carry_out(one, environment=_path(nvidia_smi))[0] == 0
    assert (one / "stdout").read_text() == "gpus=0\n"


def test_packed_attempts_share_the_job_s_gpus_out(tmp_path: Path) -> None:
    first = write_order(tmp_path / "1", command=SHOW, gpus=1)
    second = write_order(tmp_path / "2", command=SHOW, gpus=2)
    third = write_order(tmp_path / "3", command=SHOW, gpus=0)
    fourth = write_order(tmp_path / "4", command=SHOW, gpus=1)
    code, _ = carry_out(first, second, third, fourth, environment={"CUDA_VISIBLE_DEVICES": "4,GPU-abc,6"})
    assert code == agent.EXIT_NO_GPU
    assert (first / "stdout").read_text() == "gpus=4\n"
    assert (second / "stdout").read_text() == "gpus=GPU-abc,6\n"
    assert (third / "stdout").read_text() == "gpus=\n"
    assert record(fourth / "exit.json")["cause"] == "no-gpu"


def test_an_attempt_that_needs_no_gpu_is_left_alone(tmp_path: Path) -> None:
    attempt = write_order(tmp_path / "a", command=SHOW)
    assert carry_out(attempt, environment={"CUDA_VISIBLE_DEVICES": "3"})[0] == 0
    assert (attempt / "stdout").read_text() == "gpus=3\n"


def test_names_and_peak_memory_of_the_attempt_s_gpus_are_reported(tmp_path: Path, nvidia_smi: Path) -> None:
    # The command waits until the first sample has been asked for, and so sees to it that there is one.
    asked = nvidia_smi / "asked"
    attempt = write_order(tmp_path / "a", command=f"while [ ! -s {asked} ]; do sleep 0.01; done; sleep 1", gpus=1)
    environment = {**_path(nvidia_smi), "CUDA_VISIBLE_DEVICES": "1"}
    assert carry_out(attempt, environment=environment)[0] == 0
    report = record(attempt / "exit.json")
    assert (report["gpus"], report["gpu_memory"]) == (["Tesla P100-SXM2-16GB"], 1234.0)
    assert asked.read_text().endswith("-i 1\n")


def test_a_gpu_whose_memory_is_not_said_still_has_its_name(tmp_path: Path, nvidia_smi: Path) -> None:
    (nvidia_smi / "answer").write_text("NVIDIA A100, [N/A]\n")
    asked = nvidia_smi / "asked"
    attempt = write_order(tmp_path / "a", command=f"while [ ! -s {asked} ]; do sleep 0.01; done; sleep 1", gpus=1)
    assert carry_out(attempt, environment={**_path(nvidia_smi), "CUDA_VISIBLE_DEVICES": "1"})[0] == 0
    report = record(attempt / "exit.json")
    assert (report["gpus"], report["gpu_memory"]) == (["NVIDIA A100"], None)


def test_an_nvidia_smi_that_hangs_delays_nobody(tmp_path: Path, nvidia_smi: Path) -> None:
    hung = nvidia_smi / "hung"
    (nvidia_smi / "nvidia-smi").write_text(f"#!/bin/sh\necho $$ > {hung}\nexec sleep 1000\n")
    attempt = write_order(tmp_path / "a", command=f"while [ ! -s {hung} ]; do sleep 0.01; done", gpus=1)
    assert carry_out(attempt, environment={**_path(nvidia_smi), "CUDA_VISIBLE_DEVICES": "0"})[0] == 0
    report = record(attempt / "exit.json")
    assert (report["exit_code"], report["gpus"]) == (0, [])
    assert not Path(f"/proc/{hung.read_text().strip()}").exists()
