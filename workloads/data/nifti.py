"""NIfTI volumes: read into one orientation, worked on in one spacing, written back as they came.

A `Volume` keeps the affine that goes with its array, so that every voxel has one place in the
patient at every step. A result is written in the geometry of the input file: resampling and
reorientation are undone, and affine, zooms and orientation are those of the input.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.errors import WorkloadError

__all__ = ["Volume", "read_volume", "resample", "same_geometry", "write_like", "write_volume"]

AFFINE_TOLERANCE = 1e-3  # mm; what single-precision headers and resaved files differ by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A volume in canonical orientation (axes to the patient's right, front, top: RAS+).

    Attributes
    ----------
    array : ndarray, shape (x, y, z)
        Of a case of several channels (x, y, z, channels); a file is of one.
    affine : ndarray of float, shape (4, 4)
        Voxel index to mm.
    path : Path
        The file it came from.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along each axis of the array."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(sizes[0]), float(sizes[1]), float(sizes[2])

    def position(self, index: tuple[int, int, int]) -> tuple[float, float, float]:
        """Place of a voxel in mm, in the patient's coordinates."""
        place = self.affine @ np.array([*index, 1.0])
        return float(place[0]), float(place[1]), float(place[2])


def _nibabel() -> Any:
    import nibabel

    return nibabel


def _load(path: Path) -> Any:
    nib = _nibabel()
    try:
        # Read to the end, since the checksum of a gzip file is its last word: nibabel stops at the last voxel.
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        kind: Any = nib.Nifti2Image if nib.Nifti2Image.header_class.may_contain_header(content) else nib.Nifti1Image
        image = kind.from_bytes(content)
        array = np.asarray(image.dataobj)
    except FileNotFoundError:
        raise WorkloadError(f"{path}: no such file") from None
    except Exception as error:  # a dozen kinds, by where in the header or the stream the damage is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkloadError(
            f"{path}: cannot be read as NIfTI ({reason})", hint="the file is damaged or cut short: copy it again"
        ) from None
    return image, array


def read_volume(path: Path) -> Volume:
    """Read a 3D NIfTI file in canonical orientation.

    Raises
    ------
    WorkloadError
        If the file is missing, damaged, not 3D, has a singular affine, or has voxels that are not
        finite.
    """
    nib = _nibabel()
    image, array = _load(path)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise WorkloadError(f"{path}: a volume of 3 dimensions is needed, this has {array.ndim}")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-9:
        raise WorkloadError(f"{path}: its affine cannot be inverted", hint="repair qform or sform of the header")
    bad = 0 if np.issubdtype(array.dtype, np.integer) else int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise WorkloadError(f"{path}: {bad} voxels are not finite (NaN or infinite)", hint="repair or leave it out")
    orientation = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(array, orientation)
    back = nib.orientations.inv_ornt_aff(orientation, array.shape)
    return Volume(array=turned, affine=affine @ back, path=path)


def same_geometry(one: Volume, other: Volume) -> bool:
    """Whether two volumes have the same shape and lie in the same place."""
    return one.array.shape == other.array.shape and np.allclose(one.affine, other.affine, atol=AFFINE_TOLERANCE)


def resample(volume: Volume, spacing: tuple[float, float, float], *, nearest: bool) -> Volume:
    """``volume`` on a grid of ``spacing`` mm over the same extent; ``nearest`` for labels, linear for images.

    The centre of the first voxel moves with the voxel size, so that outer edges stay where they are.
    """
    if np.allclose(volume.spacing, spacing, rtol=1e-3):
        return volume
    shape = [
        max(1, round(n * old / new)) for n, old, new in zip(volume.array.shape, volume.spacing, spacing, strict=True)
    ]
    factors = np.array(volume.array.shape) / np.array(shape)
    offset = (factors - 1.0) / 2.0
    array = volume.array if nearest else volume.array.astype(np.float32)
    result = ndimage.affine_transform(
        array, factors, offset=offset, output_shape=tuple(shape), order=0 if nearest else 1, mode="nearest"
    )
    to_old = np.eye(4)
    to_old[:3, :3] = np.diag(factors)
    to_old[:3, 3] = offset
    return Volume(array=result, affine=volume.affine @ to_old, path=volume.path)


def write_volume(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write ``array`` with ``affine`` as NIfTI, whole by rename."""
    nib = _nibabel()
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    _save(image, path)


def _save(image: Any, path: Path) -> None:
    nib = _nibabel()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")  # keeps .nii.gz, from which nibabel takes the format
    nib.save(image, partial)
    partial.replace(path)


def write_like(path: Path, volume: Volume) -> None:
    """Write ``volume`` on the grid of the file it came from: its shape, affine, zooms and orientation."""
    nib = _nibabel()
    original: Any = nib.load(volume.path)
    shape = original.shape[:3]
    to_ours = np.linalg.inv(volume.affine) @ np.asarray(original.affine, dtype=np.float64)
    array = ndimage.affine_transform(
        volume.array, to_ours[:3, :3], offset=to_ours[:3, 3], output_shape=shape, order=0, mode="nearest"
    )
    image = nib.Nifti1Image(array, original.affine, header=original.header)
    image.set_data_dtype(array.dtype)
    image.header.set_slope_inter(1.0, 0.0)
    _save(image, path)
