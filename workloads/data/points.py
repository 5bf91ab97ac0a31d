"""Points in the patient with what lies at each: the sparse annotation that reports and viewers leave behind.

::

    pointsTr/CASE.json    {"coordinates": "RAS", "points": [{"segment": "right_S1", "position": [x, y, z]}, ...]}
    pointsTr/CASE.csv     segment,x_mm,y_mm,z_mm

Positions are mm in the patient's space, to the right, front and top (RAS) as in NIfTI; a JSON file may say ``LPS``, as
DICOM has it. A segment is a label of ``dataset.json``, by its name or its number.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Case, read_json
from workloads.errors import WorkloadError

__all__ = ["FOLDER", "Points", "points_checksum", "read_points"]

FOLDER = "pointsTr"
COORDINATES = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
FORM = '{"coordinates": "RAS", "points": [{"segment": 1, "position": [x, y, z]}]}, or .csv with segment,x_mm,y_mm,z_mm'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """The points of a case.

    Attributes
    ----------
    segments : ndarray of int, shape (n,)
        Label numbers.
    positions : ndarray of float, shape (n, 3)
        mm, RAS.
    voxels : ndarray of float, shape (n, 3)
        The same in voxels of the case's image, whole numbers at their centres.
    path : Path
        The file that they are from.
    """

    segments: NDArray[np.int64]
    positions: NDArray[np.float64]
    voxels: NDArray[np.float64]
    path: Path


def read_points(root: Path, case: Case, segments: Mapping[str, int]) -> Points:
    """Read a case's points.

    Raises
    ------
    WorkloadError
        If there is no file, it is not of either form, names no known segment, or has a point outside of the volume.
    """
    path = _path(root, case.name)
    rows = _of_csv(path) if path.suffix == ".csv" else _of_json(path)
    if not rows:
        raise WorkloadError(f"{path}: holds no point", hint="leave the case out of the split")
    inverse = np.linalg.inv(case.image.affine)
    numbers, positions = [], []
    for order, (segment, position) in enumerate(rows, start=1):
        number = segments.get(str(segment), int(segment) if str(segment).isdigit() else 0)
        if number not in segments.values():
            raise WorkloadError(
                f"{path}: point {order}: dataset.json has no segment {segment!r}", hint=", ".join(segments)
            )
        place = np.array(position, dtype=np.float64)
        voxel = inverse[:3, :3] @ place + inverse[:3, 3]
        if (voxel < -0.5).any() or (voxel > np.array(case.image.array.shape[:3]) - 0.5).any():
            where = ", ".join(f"{value:.1f}" for value in place)
            raise WorkloadError(
                f"{path}: point {order} at ({where}) mm lies outside of the volume {case.image.path}",
                hint="positions are RAS, as in NIfTI; a JSON file with DICOM's says so: LPS",
            )
        numbers.append(number)
        positions.append(place)
    found = np.array(positions)
    return Points(
        segments=np.array(numbers, dtype=np.int64),
        positions=found,
        voxels=found @ inverse[:3, :3].T + inverse[:3, 3],
        path=path,
    )


def points_checksum(root: Path, names: Iterable[str], data: str) -> str:
    """SHA-256 over a checksum of images and the points' files of ``names``."""
    digest = hashlib.sha256(data.encode())
    for name in sorted(names):
        digest.update(name.encode() + b"\0" + hashlib.sha256(_path(root, name).read_bytes()).digest())
    return digest.hexdigest()


def _path(root: Path, name: str) -> Path:
    found = [path for path in (root / FOLDER / f"{name}{ending}" for ending in (".json", ".csv")) if path.is_file()]
    if len(found) != 1:
        what = "no such file, nor as .csv" if not found else "there is a .csv too"
        raise WorkloadError(f"{root / FOLDER / name}.json: {what}", hint=f"one is needed of each case: {FORM}")
    return found[0]


def _position(path: Path, order: int, values: Iterable[Any]) -> tuple[float, float, float]:
    try:
        x, y, z = (float(value) for value in values)
    except (TypeError, ValueError):
        raise WorkloadError(f"{path}: point {order} has no position of three numbers", hint=FORM) from None
    if not np.isfinite([x, y, z]).all():
        raise WorkloadError(f"{path}: point {order} has a position that is not finite")
    return x, y, z


def _of_json(path: Path) -> list[tuple[Any, tuple[float, float, float]]]:
    content = read_json(path, hint=FORM)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list) or any(not isinstance(each, dict) for each in points):
        raise WorkloadError(f'{path}: "points" is no list of points', hint=FORM)
    signs = COORDINATES.get(str(content.get("coordinates", "RAS")))
    if signs is None:
        raise WorkloadError(f'{path}: "coordinates" is {content["coordinates"]!r}', hint="RAS or LPS")
    rows = []
    for order, each in enumerate(points, start=1):
        x, y, z = _position(path, order, each.get("position") or ())
        rows.append((each.get("segment"), (signs[0] * x, signs[1] * y, signs[2] * z)))
    return rows


def _of_csv(path: Path) -> list[tuple[Any, tuple[float, float, float]]]:
    names = ("x_mm", "y_mm", "z_mm")
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkloadError(f"{path}: cannot be read ({error})") from None
    return [
        (row.get("segment"), _position(path, order, (row.get(name) for name in names)))
        for order, row in enumerate(rows, start=1)
    ]
