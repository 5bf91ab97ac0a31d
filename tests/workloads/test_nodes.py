from __future__ import annotations

import json
from pathlib import Path

import pytest

from workloads.errors import WorkloadError
from workloads.training.nodes import expand, processes, rank, tensorflow_config


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("node1", ["node1"]),
        ("gpu[01-03,7],login1", ["gpu01", "gpu02", "gpu03", "gpu7", "login1"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("a[1]-ib,b", ["a1-ib", "b"]),
    ],
)
def test_slurms_short_form_of_names_is_written_out(short: str, names: list[str]) -> None:
    assert list(expand(short)) == names


def test_what_is_not_that_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not a list of numbers: \[1-x\]"):
        expand("gpu[1-x]")


@pytest.mark.parametrize(
    "launched",
    [
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2"},
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
    ],
)
def test_each_launcher_tells_a_process_its_rank(launched: dict[str, str]) -> None:
    assert rank(launched) == (1, 2)


def test_a_batch_script_of_slurm_is_no_step_of_several_tasks() -> None:
    assert rank({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == (0, 1)
    assert tensorflow_config({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "a[1-2]"}) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PBS_NODEFILE", "n1\nn1\nn2\nn2\n"),
        ("PE_HOSTFILE", "n1 4 gpu.q@n1 UNDEFINED\nn2 4 gpu.q@n2 UNDEFINED\n"),
        ("PJM_O_NODEINF", "n1\nn2\n"),
    ],
)
def test_each_schedulers_list_gives_one_process_a_node(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "nodes").write_text(text)
    assert processes({name: str(tmp_path / "nodes")}, 2) == ("n1", "n2")


def test_several_processes_a_node_are_in_a_row() -> None:
    assert processes({"SLURM_JOB_NODELIST": "a[1-2]"}, 4) == ("a1", "a1", "a2", "a2")


def test_all_processes_find_one_list_and_themselves_in_it() -> None:
    common = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_STEP_NUM_TASKS": "2", "SURVEY_TAG": "t00007-k3j9x2q8"}
    found = [json.loads(tensorflow_config({**common, "SLURM_PROCID": each}) or "") for each in "01"]
    assert found[0]["cluster"] == found[1]["cluster"]
    assert [each["task"] for each in found] == [{"type": "worker", "index": 0}, {"type": "worker", "index": 1}]
    hosts, ports = zip(*(worker.split(":") for worker in found[0]["cluster"]["worker"]), strict=True)
    assert hosts == ("a1", "a2")
    assert len(set(ports)) == 2
    other = json.loads(tensorflow_config({**common, "SURVEY_TAG": "t00008-aaaaaaaa", "SLURM_PROCID": "0"}) or "")
    assert set(other["cluster"]["worker"]).isdisjoint(found[0]["cluster"]["worker"])


def test_a_configuration_that_is_given_is_kept() -> None:
    assert tensorflow_config({"TF_CONFIG": "{}", "PMI_RANK": "0", "PMI_SIZE": "2"}) == "{}"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "3 processes were started on 0 nodes"),
        ({"SLURM_JOB_NODELIST": "a[1-2]"}, r"3 processes were started on 2 nodes \(a1, a2\)"),
        ({"PBS_NODEFILE": "/nowhere/nodes"}, "/nowhere/nodes, cannot be read"),
    ],
)
def test_nodes_that_cannot_be_known_are_said(environment: dict[str, str], words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        processes(environment, 3)
