from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from workloads.data.nifti import Volume, read_volume, resample, write_like, write_volume
from workloads.errors import WorkloadError

nib: Any = nibabel  # half of it is not typed

FLIPPED = np.array([[-0.7, 0.0, 0.0, 40.0], [0.0, -0.7, 0.0, -11.0], [0.0, 0.0, 2.5, 7.0], [0.0, 0.0, 0.0, 1.0]])
# Axes permuted (sagittal acquisition) and oblique.
ODD = np.array([[0.1, 0.0, 3.0, -20.0], [0.79, 0.06, 0.0, 5.0], [-0.06, 0.8, 0.1, 30.0], [0.0, 0.0, 0.0, 1.0]])


def counting(shape: tuple[int, int, int] = (5, 6, 7)) -> NDArray[np.int16]:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


@pytest.mark.parametrize("affine", [np.eye(4), FLIPPED, ODD])
def test_a_result_is_written_in_the_geometry_of_its_input(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    write_volume(tmp_path / "in.nii.gz", counting(), affine)
    volume = read_volume(tmp_path / "in.nii.gz")
    write_like(tmp_path / "out.nii.gz", volume)
    before, after = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(after.dataobj), counting())
    assert np.array_equal(after.affine, before.affine)
    assert after.header.get_zooms() == before.header.get_zooms()
    assert nib.aff2axcodes(after.affine) == nib.aff2axcodes(before.affine)


@pytest.mark.parametrize("affine", [FLIPPED, ODD])
def test_reading_turns_a_volume_to_ras_and_leaves_each_voxel_in_its_place(
    tmp_path: Path, affine: NDArray[np.float64]
) -> None:
    write_volume(tmp_path / "in.nii.gz", counting(), affine)
    volume = read_volume(tmp_path / "in.nii.gz")
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    place = affine @ np.array([1.0, 2.0, 3.0, 1.0])
    index = np.rint(np.linalg.inv(volume.affine) @ place)[:3].astype(int)
    assert volume.array[tuple(index)] == counting()[1, 2, 3]


def test_spacing_is_that_of_the_turned_axes(tmp_path: Path) -> None:
    write_volume(tmp_path / "in.nii.gz", counting(), ODD)
    expected = np.linalg.norm(ODD[:3, :3], axis=0)[[2, 0, 1]]
    assert read_volume(tmp_path / "in.nii.gz").spacing == pytest.approx(tuple(expected), abs=1e-5)


def test_a_resampled_volume_covers_the_same_block() -> None:
    x = np.arange(16.0)
    ramp = np.broadcast_to(x[:, None, None], (16, 8, 4)).astype(np.float32)
    volume = Volume(array=ramp, affine=np.diag([0.5, 1.0, 2.0, 1.0]), path=Path("a"))
    coarse = resample(volume, (1.0, 1.0, 1.0), nearest=False)
    assert coarse.array.shape == (8, 8, 8)
    assert coarse.spacing == pytest.approx((1.0, 1.0, 1.0))
    # Voxel 0 of the coarse grid lies between voxels 0 and 1 of the fine one, at 0.25 mm, on the ramp's 0.5.
    assert coarse.array[0, 0, 0] == pytest.approx(0.5)
    assert coarse.position((0, 0, 0)) == pytest.approx((0.25, 0.0, -0.5))


def test_labels_are_resampled_without_new_values() -> None:
    labels = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[3:6, 3:6, 3:6] = 2
    volume = resample(Volume(array=labels, affine=np.eye(4), path=Path("a")), (0.7, 0.7, 0.7), nearest=True)
    assert set(np.unique(volume.array).tolist()) == {0, 2}
    assert volume.array.dtype == np.uint8


def test_a_resampled_result_comes_back_on_the_files_grid(tmp_path: Path) -> None:
    labels = np.zeros((20, 20, 10), dtype=np.uint8)
    labels[6:12, 4:10, 2:6] = 1
    write_volume(tmp_path / "in.nii.gz", labels, FLIPPED)
    fine = resample(read_volume(tmp_path / "in.nii.gz"), (0.35, 0.35, 1.25), nearest=True)
    assert fine.array.shape == (40, 40, 20)
    write_like(tmp_path / "out.nii.gz", fine)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj), labels)


def test_a_slope_of_the_input_does_not_scale_the_result(tmp_path: Path) -> None:
    image = nib.Nifti1Image(counting(), np.eye(4))
    image.header.set_slope_inter(0.5, 3.0)
    nib.save(image, tmp_path / "in.nii.gz")
    write_like(tmp_path / "out.nii.gz", read_volume(tmp_path / "in.nii.gz"))
    assert (
        np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj).max() == read_volume(tmp_path / "in.nii.gz").array.max()
    )


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    write_volume(tmp_path / "in.nii.gz", noise, np.eye(4))
    whole = (tmp_path / "in.nii.gz").read_bytes()
    for kept in (0, 40, len(whole) // 2, len(whole) - 9):
        (tmp_path / "in.nii.gz").write_bytes(whole[:kept])
        with pytest.raises(WorkloadError, match=r"in\.nii\.gz: cannot be read as NIfTI"):
            read_volume(tmp_path / "in.nii.gz")


def test_damaged_bytes_are_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    write_volume(tmp_path / "in.nii.gz", noise, np.eye(4))
    content = bytearray((tmp_path / "in.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "in.nii.gz").write_bytes(bytes(content))
    with pytest.raises(WorkloadError, match="cannot be read as NIfTI"):
        read_volume(tmp_path / "in.nii.gz")


def test_voxels_that_are_not_finite_are_counted_and_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 4, 4), dtype=np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    write_volume(tmp_path / "in.nii.gz", array, np.eye(4))
    with pytest.raises(WorkloadError, match="2 voxels are not finite"):
        read_volume(tmp_path / "in.nii.gz")


def test_a_volume_of_four_dimensions_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 5), dtype=np.int16), np.eye(4)), tmp_path / "in.nii.gz")
    with pytest.raises(WorkloadError, match="3 dimensions is needed, this has 4"):
        read_volume(tmp_path / "in.nii.gz")
