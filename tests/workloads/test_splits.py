"""Split files, folds of a cross-validation, patients that stay together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from workloads.__main__ import main
from workloads.data.dataset import open_dataset
from workloads.data.splits import Split, make_folds, read_patients, read_split
from workloads.errors import WorkloadError

NAMES = [f"vessels_{number:04d}" for number in range(32)]


@pytest.fixture
def own(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms, every two cases of one patient."""
    folder = Path(shutil.copytree(phantoms, tmp_path / "own"))
    patients = {name: f"patient {number // 2}" for number, name in enumerate(NAMES[:16])}
    (folder / "patients.json").write_text(json.dumps(patients))
    return folder


def test_each_case_validates_once_and_never_trains_where_it_validates() -> None:
    splits = make_folds({name: name for name in NAMES}, 5)
    assert sorted(name for split in splits for name in split.validation) == NAMES
    assert all(sorted(split.train + split.validation) == NAMES for split in splits)
    assert sorted(len(split.validation) for split in splits) == [6, 6, 6, 7, 7]


def test_the_cases_of_a_patient_stay_together_and_the_folds_are_even() -> None:
    patients = {name: str(number // 3) for number, name in enumerate(NAMES)}
    for split in make_folds(patients, 4, seed=3):
        assert not {patients[name] for name in split.train} & {patients[name] for name in split.validation}
        assert 5 <= len(split.validation) <= 11


def test_the_same_seed_makes_the_same_folds_and_another_seed_others() -> None:
    patients = {name: name for name in NAMES}
    assert make_folds(patients, 5, seed=1) == make_folds(dict(reversed(patients.items())), 5, seed=1)
    assert make_folds(patients, 5, seed=1) != make_folds(patients, 5, seed=2)


@pytest.mark.parametrize("folds", [1, 4])
def test_a_fold_that_would_be_empty_is_refused(folds: int) -> None:
    with pytest.raises(WorkloadError, match=f"3 patients cannot make {folds} folds"):
        make_folds({"a": "1", "b": "2", "c": "3", "d": "3"}, folds)


def test_the_command_writes_folds_that_a_trial_reads_by_number(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folds", "--data", str(own), "--folds", "4"]) == 0
    assert "32 cases of 24 patients in 4 folds" in capsys.readouterr().out
    dataset, path = open_dataset(own), own / "folds.json"
    patients = read_patients(dataset)
    validated: list[str] = []
    for fold in (1, 2, 3, 4):
        split = read_split(path, dataset, fold=fold)
        validated += split.validation
        assert not {patients[name] for name in split.train} & {patients[name] for name in split.validation}
    assert sorted(validated) == NAMES
    assert read_split(path, dataset, run=2) == read_split(path, dataset, fold=2, run=3)


def test_folds_are_not_written_over_others(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folds", "--data", str(own)]) == 0
    before = (own / "folds.json").read_bytes()
    assert main(["folds", "--data", str(own), "--seed", "9"]) == 2
    assert "folds.json exists already" in capsys.readouterr().err
    assert (own / "folds.json").read_bytes() == before


def test_a_fold_that_does_not_exist_is_refused_with_those_that_do(own: Path) -> None:
    assert main(["folds", "--data", str(own), "--folds", "3"]) == 0
    dataset = open_dataset(own)
    with pytest.raises(WorkloadError, match=r"holds 3 folds: choose one\n  with --fold 1 to 3"):
        read_split(own / "folds.json", dataset)
    with pytest.raises(WorkloadError, match="there is no fold 4"):
        read_split(own / "folds.json", dataset, run=4)
    (own / "patients.json").unlink()
    with pytest.raises(WorkloadError, match="holds one split and no folds"):
        read_split(own / "splits.json", dataset, fold=1)
    assert len(read_split(own / "splits.json", dataset, run=2).train) == 16  # runs with other seeds


def test_a_split_of_nnunet_is_understood(own: Path) -> None:
    (own / "splits_final.json").write_text(json.dumps([{"train": NAMES[:4], "val": NAMES[4:6]}]))
    expected = Split(train=tuple(NAMES[:4]), validation=tuple(NAMES[4:6]), fold=1)
    assert read_split(own / "splits_final.json", open_dataset(own), fold=1) == expected


def test_a_patient_in_two_parts_is_refused(own: Path) -> None:
    (own / "mine.json").write_text(json.dumps({"train": NAMES[:3], "validation": NAMES[3:5]}))
    with pytest.raises(
        WorkloadError, match=r"patient 'patient 1' is in \"train\" \(vessels_0002\) and in \"validation\""
    ):
        read_split(own / "mine.json", open_dataset(own))


def test_a_patients_file_that_names_no_case_of_ours_is_refused(own: Path) -> None:
    (own / "patients.json").write_text('{"vessels_9999": "p"}')
    with pytest.raises(WorkloadError, match=r"patients.json: names 'vessels_9999'"):
        read_patients(open_dataset(own))
    (own / "patients.json").write_text('["p"]')
    with pytest.raises(WorkloadError, match=r"patients.json: is not of the form"):
        read_patients(open_dataset(own))


def test_an_empty_fold_is_named(own: Path) -> None:
    (own / "mine.json").write_text(json.dumps([{"train": NAMES[:2], "val": NAMES[2:4]}, {"train": NAMES, "val": []}]))
    with pytest.raises(WorkloadError, match=r'mine.json: fold 2: "validation" names no case'):
        read_split(own / "mine.json", open_dataset(own), fold=2)
