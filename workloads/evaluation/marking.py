"""Lesions marked in a segmenter's probability map: smoothed, cut at a threshold, rid of small pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.dataset import Case, Dataset, load_case
from workloads.data.nifti import Volume, read_volume, same_geometry
from workloads.errors import WorkloadError, did_you_mean
from workloads.evaluation.components import remove_small
from workloads.evaluation.overview import Panel, middle_slice, write_overview

__all__ = ["Marked", "mark", "write_marked_overview"]

SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """A case with its map in percent, its reference mask, and what is marked in it."""

    case: Case
    percent: NDArray[np.float32]
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]


def mark(
    dataset: Dataset, name: str, folder: Path, region: str, *, threshold: float, smallest: float, smoothing: float
) -> Marked:
    """Read a case and its map ``folder/NAME_REGION.nii.gz``, and mark what is a lesion.

    Parameters
    ----------
    region : str
        A label of the data set.
    threshold : float
        Percent: what has as much or more is marked.
    smallest : float
        ml; smaller pieces are left out.
    smoothing : float
        Sigma in mm of a Gaussian over the map.

    Raises
    ------
    WorkloadError
        If the region is no label, a file cannot be used, map and mask differ in shape or place, the map is not in
        percent, or a file does not say how large its voxels are.
    """
    if region not in dataset.labels:
        raise WorkloadError(
            f'{dataset.root / "dataset.json"}: has no label "{region}"', hint=did_you_mean(region, dataset.labels)
        )
    case = load_case(dataset, name)
    map_ = read_volume(folder / f"{name}_{region}.nii.gz")
    for volume in (case.label, map_):
        _check_unit(volume)
    if not same_geometry(map_, case.label):
        what = "shape" if map_.array.shape != case.label.array.shape else "affine"
        raise WorkloadError(
            f"{map_.path}: its {what} is not that of {case.label.path}",
            hint=f"shapes {map_.array.shape} and {case.label.array.shape}: map and mask lie on one grid",
        )
    percent = map_.array.astype(np.float32)
    if percent.min() < 0.0 or percent.max() > 100.0:
        raise WorkloadError(f"{map_.path}: goes from {percent.min():g} to {percent.max():g}", hint="percent is needed")
    smooth = ndimage.gaussian_filter(percent, [smoothing / side for side in map_.spacing])
    mask = remove_small((smooth >= threshold).astype(np.uint8), map_.spacing, smallest=smallest) > 0
    return Marked(case=case, percent=percent, truth=case.label.array == dataset.labels[region], mask=mask)


def _check_unit(volume: Volume) -> None:
    """Make sure that a file says how large its voxels are."""
    import nibabel

    loader: Any = nibabel
    header = loader.load(volume.path).header
    unit, placed = header.get_xyzt_units()[0], int(header["qform_code"]) or int(header["sform_code"])
    if unit not in {"mm", "unknown"}:
        raise WorkloadError(f"{volume.path}: its unit of length is {unit}", hint="convert it to mm")
    if not placed and unit == "unknown" and np.allclose(header.get_zooms()[:3], 1.0):
        raise WorkloadError(
            f"{volume.path}: has no spacing: neither qform, nor sform, nor pixdim is set",
            hint="write the voxel size into the header: without it there is no volume",
        )


def write_marked_overview(path: Path, marked: Sequence[Marked], region: str) -> None:
    """Draw the cases with the largest lesions: image, reference, map, and what is marked."""
    rows = []
    for each in sorted(marked, key=lambda one: -np.count_nonzero(one.truth))[:SHOWN]:
        image, *layers = (
            middle_slice(array, each.truth) for array in (each.case.image.array, each.truth, each.percent, each.mask)
        )
        names = {1: region}
        rows.append(
            [
                Panel(title=each.case.name, image=image),
                Panel(title="reference", image=image, labels=layers[0].astype(np.uint8), names=names),
                Panel(title="probability, percent", image=layers[1], heat=True, limits=(0.0, 100.0)),
                Panel(title="marked", image=image, labels=layers[2].astype(np.uint8), names=names),
            ]
        )
    write_overview(path, rows)
