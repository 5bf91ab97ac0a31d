"""How near thin slices that were made are to the true ones, and what is kept of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.nifti import write_volume
from workloads.data.slabs import ThickCase
from workloads.evaluation.overview import NAME, Panel, write_overview
from workloads.metrics.bootstrap import Interval, bootstrap
from workloads.metrics.image_quality import psnr, ssim

__all__ = ["CUBIC", "Images", "gain_interval", "measure", "write_artifacts"]

CUBIC = "bicubic"
Images = Mapping[str, Sequence[NDArray[np.float32]]]  # method to an image of each case, from -1 to 1
SPAN = 2.0  # of these values: what PSNR and SSIM call the data range
SHOWN = 3


def measure(cases: Sequence[ThickCase], images: Images) -> dict[str, dict[str, list[float]]]:
    """PSNR in dB and SSIM of whole volumes, by method: ``{"bicubic": {"psnr": [...], "ssim": [...]}, ...}``."""
    return {
        method: {
            "psnr": [psnr(case.thin.array, image, data_range=SPAN) for case, image in zip(cases, made, strict=True)],
            "ssim": [ssim(case.thin.array, image, data_range=SPAN) for case, image in zip(cases, made, strict=True)],
        }
        for method, made in images.items()
    }


def gain_interval(values: Mapping[str, Mapping[str, Sequence[float]]], method: str) -> Interval:
    """95 % bootstrap interval over cases of the mean PSNR of ``method`` less that of cubic interpolation, dB."""
    gains = np.asarray(values[method]["psnr"]) - np.asarray(values[CUBIC]["psnr"])
    return bootstrap(lambda counts: float(counts @ gains / counts.sum()), len(gains))


def write_artifacts(
    folder: Path,
    cases: Sequence[ThickCase],
    images: Images,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    limits: tuple[float, float],
    predictions: str,
) -> None:
    """Write ``cases.csv``, ``overview.png`` and, of the method ``predictions`` (none if empty), volumes in their geometry.

    ``thick/CASE.nii.gz`` has the thick slices, ``predictions/CASE.nii.gz`` the thin ones made of them, in Hounsfield
    units or whatever ``limits``, the values of -1 and 1, are in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "method", "psnr_db", "ssim"])
        for method, of_method in values.items():
            for index, case in enumerate(cases):
                rows.writerow([case.name, method, *(f"{of_method[name][index]:.6g}" for name in ("psnr", "ssim"))])
    shown = []
    for index, case in enumerate(cases[:SHOWN]):
        shape = case.thin.array.shape
        repeated = np.repeat(case.thick.array, shape[2] // case.thick.array.shape[2], axis=2)
        pictures = {"thick slices": repeated, **{name: made[index] for name, made in images.items()}}
        panels = []
        for name, array in {**pictures, "truth": case.thin.array}.items():
            words = f"{values[name]['psnr'][index]:.1f} dB" if name in values else case.name
            # Coronal, head at the top: across the slices is where the difference lies.
            coronal = np.flipud(array[:, shape[1] // 2, :].T)
            panels.append(Panel(title=f"{name}, {words}", image=coronal, limits=(-1.0, 1.0)))
        shown.append(panels)
    write_overview(folder / NAME, shown)
    if predictions:
        low, high = limits
        for case, image in zip(cases, images[predictions], strict=True):
            for name, volume, affine in (
                ("thick", case.thick.array, case.thick.affine),
                ("predictions", image, case.thin.affine),
            ):
                units = (np.clip(volume, -1.0, 1.0) + 1.0) * (high - low) / 2.0 + low
                write_volume(folder / name / f"{case.name}.nii.gz", units.astype(np.float32), affine)
