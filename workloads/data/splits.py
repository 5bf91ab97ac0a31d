"""Which cases train, validate and test: split files, folds of a cross-validation, patients kept together.

::

    splits.json     {"train": [CASE, ...], "validation": [...], "test": [...]}
                    or, for a cross-validation, a list of such: one for each fold
    patients.json   {CASE: PATIENT, ...}     of cases that share a patient

``val`` is understood as ``validation``, so that nnU-Net's ``splits_final.json`` is too, and ``test`` may be
left out. No case and no patient is in two parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workloads.data.dataset import Dataset, read_json
from workloads.errors import WorkloadError, did_you_mean

__all__ = ["Split", "make_folds", "read_patients", "read_split", "write_folds"]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which cases train, validate and test; of a file with folds, which of them it is."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()
    fold: int | None = None


def read_patients(dataset: Dataset) -> dict[str, str]:
    """Patient of each case; one that ``patients.json`` does not name is a patient of its own.

    Raises
    ------
    WorkloadError
        If the file is there and is wrong, or names a case that the data set does not have.
    """
    path = dataset.root / "patients.json"
    known = read_json(path, hint="") if path.exists() else {}
    if not isinstance(known, dict):
        raise WorkloadError(f"{path}: is not of the form" + ' {"CASE": "PATIENT", ...}')
    for case in known:
        if case not in dataset.files:
            raise WorkloadError(f"{path}: names {case!r}, which {dataset.root} does not have")
    return {case: str(known.get(case, case)) for case in dataset.files}


def read_split(path: Path, dataset: Dataset, *, fold: int | None = None, run: int | None = None) -> Split:
    """Read a split file.

    Parameters
    ----------
    fold : int, optional
        Which one of a file with folds, from 1.
    run : int, optional
        What ``fold`` is where it is not given and the file has folds.

    Raises
    ------
    WorkloadError
        If a part is missing or empty, names a case that the data set does not have, a case or a patient
        is in two parts, or the fold does not exist.
    """
    content = read_json(path, hint="make one, or name it with --split")
    where, chosen = str(path), None
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        chosen = run if fold is None else fold
        if chosen is None or not 1 <= chosen <= len(content):
            what = "choose one" if chosen is None else f"there is no fold {chosen}"
            hint = f"with --fold 1 to {len(content)}, or `repeats: {len(content)}` in the study"
            raise WorkloadError(f"{path}: holds {len(content)} folds: {what}", hint=hint)
        content, where = content[chosen - 1], f"{path}: fold {chosen}"
    elif fold is not None:
        raise WorkloadError(f"{path}: holds one split and no folds", hint="leave out --fold, or make folds")
    if not isinstance(content, dict):
        raise WorkloadError(f"{path}: is not of the form" + ' {"train": [...], "validation": [...]}')
    return replace(_checked(content, where, dataset), fold=chosen)


def _checked(content: Mapping[str, Any], where: str, dataset: Dataset) -> Split:
    lists = {("validation" if key == "val" else key): value for key, value in content.items()}
    patients = read_patients(dataset)
    seen: dict[str, str] = {}
    of_patient: dict[str, tuple[str, str]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        names = lists.get(part, [])
        if not isinstance(names, list) or (part != "test" and not names):
            raise WorkloadError(f'{where}: "{part}" names no case')
        for name in names:
            if name not in dataset.files:
                raise WorkloadError(
                    f'{where}: "{part}" names {name!r}, which {dataset.root} does not have',
                    hint=did_you_mean(str(name), dataset.files) if len(dataset.files) < 20 else "",
                )
            if name in seen:
                raise WorkloadError(f'{where}: case {name!r} is in "{seen[name]}" and in "{part}"')
            seen[name] = part
            other, elsewhere = of_patient.setdefault(patients[name], (name, part))
            if elsewhere != part:
                raise WorkloadError(
                    f'{where}: patient {patients[name]!r} is in "{elsewhere}" ({other}) and in "{part}" ({name})',
                    hint="images of one patient resemble each other: keep them in one part",
                )
        parts[part] = tuple(names)
    return Split(train=parts["train"], validation=parts["validation"], test=parts["test"])


def make_folds(patients: Mapping[str, str], folds: int, *, seed: int = 0) -> list[Split]:
    """Splits of a cross-validation: each patient validates once, and all the cases of a patient stay together.

    Patients are shuffled; then each goes to the fold with the fewest cases, the ones with most cases first,
    so that folds differ by no more cases than a patient has.

    Raises
    ------
    WorkloadError
        If there are fewer than two folds, or fewer patients than folds: one would be empty.
    """
    cases: dict[str, list[str]] = {}
    for case, patient in sorted(patients.items()):
        cases.setdefault(patient, []).append(case)
    if not 2 <= folds <= len(cases):
        raise WorkloadError(
            f"{len(cases)} patients cannot make {folds} folds", hint="2 folds at least, and no more than patients"
        )
    shuffled = [sorted(cases)[index] for index in np.random.default_rng(seed).permutation(len(cases))]
    validation: list[list[str]] = [[] for _ in range(folds)]
    for patient in sorted(shuffled, key=lambda each: -len(cases[each])):
        min(validation, key=len).extend(cases[patient])
    return [
        Split(
            train=tuple(sorted(case for other in validation if other is not part for case in other)),
            validation=tuple(sorted(part)),
        )
        for part in validation
    ]


def write_folds(path: Path, splits: Sequence[Split]) -> None:
    """Write a split file with folds.

    Raises
    ------
    WorkloadError
        If there is a file already: results may stand on it.
    """
    content = json.dumps(
        [{part: names for part, names in asdict(split).items() if names} for split in splits], indent=1
    )
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content + "\n")
    except FileExistsError:
        raise WorkloadError(
            f"{path} exists already", hint="write another file with --out, or remove it first"
        ) from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be written ({error.strerror})") from None
