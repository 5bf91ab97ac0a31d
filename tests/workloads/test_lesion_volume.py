"""Volumes of lesions: millilitres that follow the affine, groups that are complete, statistics that are right."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy import stats
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.nifti import read_volume, write_volume
from workloads.errors import WorkloadError
from workloads.evaluation.volumes import Measured, compared_groups, millilitres, read_groups, table_of_groups

nib: Any = nibabel  # half of it is not typed
GROUPS = {"typicality": ["1", "2"], "pcr": ["P", "N"]}


def test_a_volume_is_the_determinant_of_the_affine_also_where_the_grid_is_sheared() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[:2, :2, :3] = True
    affine = np.diag([2.0, -2.5, 4.0, 1.0])
    assert millilitres(mask, affine) == pytest.approx(12 * 20.0 / 1000.0)
    affine[0, 1] = 3.0  # a gantry's tilt moves voxels and does not change their size
    assert millilitres(mask, affine) == pytest.approx(12 * 20.0 / 1000.0)


def measured(*volumes: float) -> list[Measured]:
    """Cases that take turns in typicality, and every two in PCR."""
    return [
        Measured(
            case=str(index),
            groups={"typicality": "12"[index % 2], "pcr": "PN"[index // 2 % 2]},
            volume=value,
            reference=0,
        )
        for index, value in enumerate(volumes)
    ]


def test_the_table_has_every_group_and_says_where_there_is_no_case() -> None:
    rows = {(row["typicality"], row["pcr"]): row for row in table_of_groups(measured(1.0, 2.0, 3.0), GROUPS)}
    assert len(rows) == 9
    assert rows["all", "all"] == {
        "typicality": "all", "pcr": "all", "n": 3, "median": 2.0, "q1": 1.5, "q3": 2.5, "mean": 2.0,
    }  # fmt: skip
    assert (rows["1", "all"]["n"], rows["1", "all"]["median"]) == (2, 2.0)
    assert rows["2", "N"] == {"typicality": "2", "pcr": "N", "n": 0}


def test_groups_are_compared_by_ranks_and_pairs_are_corrected_after_holm() -> None:
    groups = {"typicality": ["1", "2", "3"], "pcr": ["P"]}
    values = {"1": [1.0, 2.0, 3.0, 4.0, 5.0], "2": [6.0, 7.0, 8.0, 9.0, 3.5], "3": [20.0, 21.0, 22.0, 23.0, 24.0]}
    cases = [
        Measured(case="", groups={"typicality": group, "pcr": "P"}, volume=value, reference=0)
        for group, each in values.items()
        for value in each
    ]
    found = {row["groups"]: row["p"] for row in compared_groups(cases, groups)}
    assert found["all"] == pytest.approx(stats.kruskal(*values.values()).pvalue)
    raw = {
        f"{a} - {b}": float(stats.mannwhitneyu(values[a], values[b]).pvalue)
        for a, b in (("1", "2"), ("1", "3"), ("2", "3"))
    }
    ordered = sorted(raw, key=lambda pair: raw[pair])
    steps = [raw[pair] * factor for pair, factor in zip(ordered, (3, 2, 1), strict=True)]
    assert [found[pair] for pair in ordered] == pytest.approx(np.maximum.accumulate(steps))


def test_nothing_is_said_of_groups_that_are_all_alike() -> None:
    assert compared_groups(measured(0.0, 0.0, 0.0, 0.0), GROUPS) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,typicality\na,1\n", 'table.csv: has no column "pcr"'),
        ("case,typicality,pcr\na,1,P\nb,2,N\na,1,P\n", "table.csv:4: names case 'a' twice"),
        ("case,typicality,pcr\na,1,P\nb,5,N\n", "table.csv:3: typicality of case 'b' is '5'"),
        ("case,typicality,pcr\na,1,P\nb,1,N\n", "table.csv: no case has typicality '2'"),
        ("case,typicality,pcr\na,1,P\nb\n", "table.csv:3: typicality of case 'b' is ''"),
        ("", 'table.csv: has no column "case"'),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(WorkloadError) as refused:
        read_groups(path, GROUPS)
    assert message in str(refused.value)
    with pytest.raises(WorkloadError, match=r"none\.csv: no such file"):
        read_groups(tmp_path / "none.csv", GROUPS)


def test_a_table_as_a_spreadsheet_writes_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffcase,pcr,age,typicality\r\na, P ,61,1\r\nb,N,70,2\r\n".encode())
    assert read_groups(path, GROUPS) == {"a": {"typicality": "1", "pcr": "P"}, "b": {"typicality": "2", "pcr": "N"}}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graded") / "data"
    sizes = ["--train", "2", "--validation", "8", "--test", "8", "--shape", "32", "28", "12"]
    assert main(["phantom", "lesion-volume", "--out", str(folder), "--seed", "1", *sizes]) == 0
    return folder


def test_the_searched_way_agrees_with_the_reference_where_half_a_probability_does_not(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trial_here("lesion-volume", tmp_path / "t", monkeypatch, "--data", str(graded), "--test")
    with (tmp_path / "t" / "artifacts" / "volumes.csv").open() as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 18
    for part, prefix in (("validation", ""), ("test", "test_")):
        names = json.loads((graded / "splits.json").read_text())[part]
        reference = np.array([float(rows[name]["reference_ml"]) for name in names])
        found = np.array([float(rows[name]["volume_ml"]) for name in names])
        halves = [read_volume(graded / "probabilities" / f"{name}_abnormal.nii.gz") for name in names]
        plain = np.array([np.count_nonzero(each.array >= 50) * np.prod(each.spacing) / 1000.0 for each in halves])
        error = result["metrics"][f"{prefix}volume_error"]
        assert error == pytest.approx(np.abs(found - reference).mean(), rel=0.01)
        assert error < 0.8 * np.abs(plain - reference).mean()
        assert error < 0.5 * np.abs(reference.mean() - reference).mean()
    artifacts = tmp_path / "t" / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {
        "volumes.csv", "groups.csv", "tests.csv", "groups.md", "boxplot.png", "overview.png",
    }  # fmt: skip
    assert "| typicality | pcr | n | median | q1 | q3 | mean |" in (artifacts / "groups.md").read_text()
    assert result["info"]["tests"][0]["column"] == "typicality"
    again = trial_here("lesion-volume", tmp_path / "u", monkeypatch, "--data", str(graded))
    assert again["metrics"]["volume_error"] == result["metrics"]["volume_error"]


def refused(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str) -> str:
    assert main(["lesion-volume", "--data", str(data), *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_measured_is_refused_by_the_name_of_its_file(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path(shutil.copytree(graded, tmp_path / "data"))
    table = data / "cases.csv"
    text = refused(capsys, data, "--pcr", "P", "U", "N", "X")
    assert f"{table}: no case has pcr 'X'" in text
    assert "leave the group out with --pcr P U N" in text
    assert 'dataset.json: has no label "abnormall"' in refused(capsys, data, "--region", "abnormall")
    whole = table.read_text()
    table.write_text(whole + "lungs_0099,1,P\n")
    assert f"{table}: names case 'lungs_0099', which" in refused(capsys, data)
    table.write_text("\n".join(whole.splitlines()[:6]) + "\nlungs_0016,3,U\nlungs_0017,4,N\n")
    assert f"{table}: lacks case 'lungs_00" in refused(capsys, data)
    table.write_text(whole)
    path = data / "probabilities" / "lungs_0000_abnormal.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    write_volume(path, values[:-1], image.affine)
    assert f"{path}: its shape is not that of {data / 'labelsTr' / 'lungs_0000.nii.gz'}" in refused(capsys, data)
    write_volume(path, values.astype(np.float32) * 2, image.affine)
    assert f"{path}: goes from 0 to " in refused(capsys, data)
    path.unlink()
    assert f"{path}: no such file" in refused(capsys, data)
    assert not (tmp_path / "artifacts").exists()


def test_a_mask_without_a_spacing_or_in_another_unit_is_refused(
    graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path(shutil.copytree(graded, tmp_path / "data"))
    path = data / "labelsTr" / "lungs_0000.nii.gz"
    image = nib.load(path)
    for unit, message in (("unknown", "has no spacing"), ("meter", "its unit of length is meter")):
        for each in (path, data / "imagesTr" / "lungs_0000_0000.nii.gz"):
            bare = nib.Nifti1Image(np.asarray(nib.load(each).dataobj), None)
            bare.header.set_xyzt_units(unit)
            partial = tmp_path / "new.nii.gz"
            nib.save(bare, partial)
            partial.replace(each)
        assert f"{path}: {message}" in refused(capsys, data)
    assert image.shape == nib.load(path).shape


def test_no_tensorflow_is_loaded(graded: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from workloads.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "lesion-volume", "--data", str(graded), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
