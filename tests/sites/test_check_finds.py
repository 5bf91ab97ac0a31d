"""What a study asks of a site in vain is found by ``survey check``, before anything is written or submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.app import main

STUDY: dict[str, Any] = {
    "name": "lungs",
    "objective": {"metric": "dice", "direction": "maximize"},
    "space": {"lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}},
    "sampler": "random",
    "trials": 8,
    "command": ["python", "train.py"],
    "resources": {"gpus": 1, "walltime": "12h"},
    "batch": {"group": "gx01"},
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, data: dict[str, Any] | str) -> None:
    Path(name).write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")


def refused(capsys: pytest.CaptureFixture[str], site: str, **changes: object) -> str:
    """What ``survey check`` says on stderr of a study that it refuses."""
    write("study.yaml", {**STUDY, **changes})
    before = sorted(str(path) for path in Path().rglob("*"))
    code = main(["check", "study.yaml", "--site", site])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert sorted(str(path) for path in Path().rglob("*")) == before
    return said.err


@pytest.mark.parametrize(
    ("site", "changes", "words"),
    [
        ("flow-type2", {"batch": {"queue": "cx-shared"}}, ["no queue 'cx-shared'", 'did you mean "cx-share"?', "cx-single"]),
        ("reedbush-l", {"batch": {}}, ["takes no job without a group (-W group_list={group})", "`batch: group:`"]),
        ("abci3", {"batch": {}}, ["takes no job without a group (-P {group})"]),
        ("abci3", {"batch": {"group": "g x"}}, ["study.yaml:", "batch.group"]),
        ("tsubame4", {"resources": {"gpus": 1, "walltime": "25h"}}, ["a walltime of 1d 1h is over its 1d", "node_q"]),
        ("miyabi-g", {"resources": {"gpus": 2}}, ["regular-g (by node): 2 GPUs a node are more than its 1"]),
        ("reedbush-h", {"resources": {"gpus": 4}}, ["h-regular (by node): 4 GPUs a node are more than its 2"]),
        ("flow-type2", {"resources": {"gpus": 1, "memory": "400GB"}}, ["cx-single (by node): 409600 MiB memory a node"]),
        ("genkai", {"resources": {"gpus": 4, "nodes": 5}}, ["b-batch (by node): 5 nodes, and it takes 4"]),
        ("gridengine", {"resources": {"nodes": 2}}, ["at most 1 node, not 2", "max_nodes"]),
        ("slurm", {"batch": {"directives": ["--a\n#SBATCH --b"]}}, ["study.yaml:", "batch.directives[0]", "one line"]),
        ("slurm", {"batch": {"directives": ["#PBS -l a"]}}, ["slurm.sh.j2:", "reads #SBATCH lines, not '#PBS -l a'"]),
        ("slurm", {"batch": {"template": "lsf.sh.j2"}}, ["there is no template lsf.sh.j2", "Templates by name: base"]),
    ],
)  # fmt: skip
def test_a_wish_that_the_site_cannot_grant_is_refused(
    site: str, changes: dict[str, object], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, site, **changes)
    for word in words:
        assert word in said


def test_a_mistake_in_a_template_is_shown_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    write("mine.sh.j2", "#!/bin/bash\n#SBATCH --job-name={{ request.tag | word }}\n#SBATCH --qos={{ qos }}\n")
    said = refused(capsys, "slurm", batch={"template": "./mine.sh.j2"})
    assert "mine.sh.j2:3: 'qos' is undefined" in said
    assert "A template sees ask, batch, directives" in said


def test_a_misspelt_key_of_a_site_file_is_shown_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "ours.yaml",
        "name: ours\nscheduler: slurm\nextends: slurm\nqueues:\n- name: gpu\n  unit: node\n  gpus_per_node: 4\n",
    )
    said = refused(capsys, "./ours.yaml")
    assert 'ours.yaml:7: queues[0].gpus_per_node: unknown key; did you mean "gpus_per_unit"?' in said


def test_a_folder_that_the_schedulers_directives_cannot_carry_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "my studies").mkdir()
    monkeypatch.chdir(place / "my studies")
    said = refused(capsys, "flow-type2")
    assert "a directive cannot hold the path" in said
    assert "Use a folder whose path has only letters" in said
