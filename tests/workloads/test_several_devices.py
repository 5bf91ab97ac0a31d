from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from workloads.training.devices import share

pytestmark = pytest.mark.tensorflow
PROGRAM = Path(__file__).with_name("several_devices.py")


def start(
    devices: int, *, stop: int = 0, checkpoint: str = "", network: str = "detector", parts: int = 1, **environment: str
) -> subprocess.Popen[str]:
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROGRAM.parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(devices), str(stop), network, str(parts)],
        env={**variables, "HOME": os.environ["HOME"], "SURVEY_CHECKPOINT": checkpoint, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> Mapping[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result: Mapping[str, Any] = json.loads(out.splitlines()[-1])
    return result


def pair(folder: Path, *, stop: int = 0, checkpoint: str = "") -> list[Mapping[str, Any]]:
    """Two processes on one machine, as a launcher of MPI starts them."""
    (folder / "nodes").write_text("127.0.0.1\n127.0.0.1\n")
    common: Any = {"PBS_NODEFILE": str(folder / "nodes"), "SURVEY_TAG": folder.name, "PMI_SIZE": "2"}
    both = [start(1, stop=stop, checkpoint=checkpoint, PMI_RANK=str(rank), **common) for rank in (0, 1)]
    try:
        return [told(process) for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def alone() -> Mapping[str, Any]:
    return told(start(1))


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(
        one["losses"] == pytest.approx(other["losses"], abs=1e-5)
        and one["weights"] == pytest.approx(other["weights"], rel=1e-5)
    )


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 3, 4])
def test_losses_on_several_devices_are_those_on_one_be_the_batch_divisible_or_not(
    alone: Mapping[str, Any], devices: int
) -> None:
    several = told(start(devices))
    assert (alone["devices"], several["devices"]) == (1, devices)
    assert len(several["losses"]) == 4
    assert agree(several, alone), (several, alone)


@pytest.mark.slow
def test_several_answers_for_several_classes_are_trained_alike_on_one_device_and_on_three_at_once_or_in_parts() -> None:
    processes = [start(devices, network="segmenter", parts=parts) for devices, parts in ((1, 1), (3, 1), (3, 2))]
    one, three, in_parts = (told(process) for process in processes)
    assert (one["devices"], three["devices"], in_parts["devices"]) == (1, 3, 3)
    assert agree(three, one), (three, one)
    assert agree(in_parts, one), (in_parts, one)


@pytest.mark.slow
def test_two_devices_compute_a_network_with_dropout_in_parts_and_again_on_the_way_back() -> None:
    found = told(start(2, network="dropping", parts=2))
    assert len(found["losses"]) == 4
    assert found["losses"][-1] < 9.0


def test_losses_of_two_processes_are_those_of_one_and_only_the_first_reports(
    alone: Mapping[str, Any], tmp_path: Path
) -> None:
    first, second = pair(tmp_path)
    assert (first["devices"], second["devices"]) == (2, 2)
    assert agree(first, alone), (first, alone)
    assert agree(second, alone)
    assert (first["asked"], second["asked"]) == ([1, 2, 3, 4], [])


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_from_the_checkpoint_of_the_first(
    alone: Mapping[str, Any], tmp_path: Path
) -> None:
    checkpoint = str(tmp_path / "checkpoint")
    first, second = pair(tmp_path, stop=2, checkpoint=checkpoint)
    assert [len(each["losses"]) for each in (first, second)] == [2, 2]
    assert first["stopped"]
    assert second["stopped"]
    resumed = pair(tmp_path, checkpoint=checkpoint)
    assert [each["asked"] for each in resumed] == [[3, 4], []]
    assert all(agree(each, alone) for each in resumed)


@pytest.mark.slow
def test_a_training_that_began_on_one_device_goes_on_on_three(alone: Mapping[str, Any], tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "checkpoint")
    assert len(told(start(1, stop=2, checkpoint=checkpoint))["losses"]) == 2
    assert agree(told(start(3, checkpoint=checkpoint)), alone)


@pytest.mark.parametrize(
    ("count", "among", "sizes"), [(8, 3, [3, 3, 2]), (2, 4, [1, 1, 0, 0]), (8, 2, [4, 4]), (0, 2, [0, 0])]
)
def test_every_sample_is_one_devices(count: int, among: int, sizes: list[int]) -> None:
    shares = [range(count)[share(count, index, among)] for index in range(among)]
    assert [len(each) for each in shares] == sizes
    assert [sample for each in shares for sample in each] == list(range(count))


@pytest.mark.slow
def test_a_trial_of_two_processes_has_one_result_which_the_first_one_writes(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("127.0.0.1\n127.0.0.1\n")
    both = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "workloads",
                "aneurysm",
                "--data",
                str(phantoms),
                "--epochs",
                "2",
                "--patches",
                "20",
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "CUDA_VISIBLE_DEVICES": "",
                "PBS_NODEFILE": str(tmp_path / "nodes"),
                "PMI_SIZE": "2",
                "PMI_RANK": str(rank),
                "SURVEY_TAG": tmp_path.name,
                "SURVEY_RESULT": str(tmp_path / f"result-{rank}.json"),
                "SURVEY_ARTIFACTS": str(tmp_path / f"artifacts-{rank}"),
            },
            cwd=PROGRAM.parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    result = json.loads((tmp_path / "result-0.json").read_text())
    assert result["info"]["devices"] == 2
    assert 0 <= result["metrics"]["pauc"] <= 1
    assert not (tmp_path / "result-1.json").exists()
    assert not (tmp_path / "artifacts-1").exists()
