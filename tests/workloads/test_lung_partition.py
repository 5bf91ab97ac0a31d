"""Unsupervised partition of the lung: features that are learnt, clusters that are named, and what cannot be partitioned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trial_process import trial_here

from workloads.__main__ import main
from workloads.data.dataset import load_case, open_dataset
from workloads.data.nifti import read_volume, write_volume
from workloads.metrics.partition import adjusted_rand_index, match, overlaps
from workloads.models.patch_features import features, make_organ, small_patches, vote
from workloads.models.spherical_kmeans import learn_dictionary, normalise, spherical_kmeans, whitening


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_spherical_kmeans_finds_the_directions_that_the_patches_are_multiples_of() -> None:
    rng = np.random.default_rng(0)
    directions = unit(rng.normal(size=(3, 8)))
    patches = rng.normal(size=(600, 1)) * directions[rng.integers(3, size=600)] + rng.normal(0.0, 0.02, (600, 8))
    atoms = spherical_kmeans(patches, 6, rng)
    assert np.linalg.norm(atoms, axis=1) == pytest.approx(np.ones(6))
    assert np.abs(directions @ atoms.T).max(axis=1) == pytest.approx(np.ones(3), abs=0.01)


def test_whitened_patches_are_uncorrelated_and_of_equal_variance() -> None:
    rng = np.random.default_rng(1)
    patches = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4)) + 3.0
    mean, matrix = whitening(patches, 0.0)
    white = (patches - mean) @ matrix
    assert np.cov(white.T, bias=True) == pytest.approx(np.eye(4), abs=1e-9)
    assert matrix == pytest.approx(matrix.T)
    strong = (patches - mean) @ whitening(patches, 1e6)[1]
    assert np.cov(strong.T).max() < 1e-3


def test_normalised_patches_lose_brightness_and_then_contrast() -> None:
    patch = np.array([[1.0, 2.0, 6.0]])
    assert np.array_equal(normalise(patch, "none"), patch)
    assert normalise(patch + 7.0, "brightness") == pytest.approx(normalise(patch, "brightness"))
    assert normalise(50.0 * patch, "contrast") == pytest.approx(normalise(patch, "contrast"), abs=0.01)


def test_codes_are_what_exceeds_the_threshold_or_the_nearest_atom_alone() -> None:
    patches = np.random.default_rng(2).normal(size=(200, 4))
    dictionary = learn_dictionary(patches, atoms=5, epsilon=0.1, normalisation="none", rng=np.random.default_rng(0))
    free = dictionary.encode(patches, encoding="soft")
    assert dictionary.encode(patches, encoding="soft", threshold=0.7) == pytest.approx(np.maximum(0.0, free - 0.7))
    hard = dictionary.encode(patches, encoding="hard")
    assert np.array_equal(hard.sum(axis=1), np.ones(200))
    with pytest.raises(ValueError, match="no encoding"):
        dictionary.encode(patches, encoding="sift")


def test_nothing_outside_of_the_organ_is_seen() -> None:
    rng = np.random.default_rng(3)
    image, mask = rng.normal(size=(9, 8, 3)), np.zeros((9, 8, 3), dtype=bool)
    mask[2:7, 2:6, :2] = True
    other = np.where(mask, image, 99.0)
    sizes: dict[str, Any] = {"atom": 3, "patch": 5, "slices": 3, "density": 2.0}
    one, same = (features(make_organ(each, mask, stride=2), lambda p: p, **sizes) for each in (image, other))
    assert one == pytest.approx(same)
    assert one[0, -1] == pytest.approx(2.0 * image[2:5, 2:5, :2].mean())


def test_a_small_patch_stands_about_its_voxel() -> None:
    image = np.arange(60.0).reshape(5, 4, 3)
    organ = make_organ(image, np.ones((5, 4, 3), dtype=bool), stride=1)
    patches = small_patches(organ, 3).reshape(5, 4, 3, 3, 3)
    assert np.array_equal(patches[2, 1, 1], image[1:4, 0:3, 1])
    assert small_patches(organ, 2).shape == (60, 4)


def test_every_voxel_of_the_organ_and_no_other_has_the_cluster_that_most_of_its_patches_have() -> None:
    mask = np.zeros((12, 10, 2), dtype=bool)
    mask[1:11, 1:9] = True
    organ = make_organ(np.zeros(mask.shape), mask, stride=2)
    clusters = (organ.centres[:, 0] >= 6).astype(int)
    found = vote(organ, clusters, groups=3, patch=3, slices=1, smoothing=(0.0,) * 3)
    assert np.array_equal(found > 0, mask)
    assert set(found[2:5, 2:8].ravel()) == {1}
    assert set(found[7:10, 2:8].ravel()) == {2}


def test_voxels_that_no_patch_reaches_take_the_nearest_cluster() -> None:
    mask = np.zeros((9, 9, 1), dtype=bool)
    mask[[1, 7], 1:8] = True
    organ = make_organ(np.zeros(mask.shape), mask, stride=4)
    assert len(organ.centres) == 1  # no voxel of the organ lies on the grid's lines
    found = vote(organ, np.array([1]), groups=2, patch=1, slices=1, smoothing=(0.0,) * 3)
    assert np.array_equal(found, np.where(mask, 2, 0))


def test_the_adjusted_rand_index_is_that_of_the_literature() -> None:
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(4)
    truth, clusters = rng.integers(3, size=300), rng.integers(4, size=300)
    clusters[:200] = truth[:200]
    table = overlaps(truth, clusters, classes=3, groups=4)
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(truth, clusters))
    assert adjusted_rand_index(overlaps(truth, truth, classes=3, groups=3)) == 1.0
    assert np.isnan(adjusted_rand_index(np.array([[7]])))


def test_clusters_are_named_so_that_a_large_class_does_not_have_its_way_alone() -> None:
    # Cluster 0 shares most voxels with class 0, but cluster 1 is nothing but class 0.
    table = np.array([[600, 500], [550, 0]])
    assert match(table).tolist() == [1, 0]


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns") / "data"
    sizes = ["--train", "5", "--validation", "3", "--test", "1", "--shape", "40", "36", "8"]
    assert main(["phantom", "lung-partition", "--out", str(folder), "--seed", "3", *sizes]) == 0
    return folder


def of_values(data: Path) -> float:
    """Adjusted Rand index of three clusters of the validation cases' values, learnt from themselves."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    dataset = open_dataset(data)
    names = json.loads((data / "splits.json").read_text())["validation"]
    cases = [load_case(dataset, name) for name in names]
    values = np.concatenate([case.image.array[case.lesion] for case in cases])[:, None]
    truth = np.concatenate([case.label.array[case.lesion] for case in cases])
    return float(adjusted_rand_score(truth, KMeans(3, n_init=3, random_state=0).fit_predict(values)))


def test_learnt_features_tell_regions_apart_that_values_do_not(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trial_here("lung-partition", tmp_path / "t", monkeypatch, "--data", str(patterns), "--test")
    metrics = result["metrics"]
    assert metrics["ari"] > of_values(patterns) + 0.2
    assert metrics["ari"] > metrics["ari_voxels"] + 0.2
    regions = [metrics[f"dice_{name}"] for name in ("normal", "ground_glass", "consolidation")]
    assert min(regions) > 0.5
    assert metrics["dice"] == pytest.approx(np.mean(regions))
    assert "test_ari" in metrics
    again = trial_here("lung-partition", tmp_path / "u", monkeypatch, "--data", str(patterns), "--no-predictions")
    assert again["metrics"]["ari"] == metrics["ari"]
    artifacts = tmp_path / "t" / "artifacts"
    assert (artifacts / "overview.png").stat().st_size > 10_000
    assert len((artifacts / "cases.csv").read_text().splitlines()) == 1 + 3 * 3
    written = sorted((artifacts / "predictions").iterdir())
    name = written[0].name.removesuffix(".nii.gz")
    truth = read_volume(patterns / "labelsTr" / written[0].name)
    found = read_volume(written[0])
    assert np.array_equal(found.affine, truth.affine)
    assert np.array_equal(found.array > 0, truth.array > 0), name
    assert not (tmp_path / "u" / "artifacts" / "predictions").exists()


def case_of(folder: Path, labels: NDArray[np.uint8], *, second: NDArray[np.uint8] | None = None) -> Path:
    """A data set whose training case is ``second``, or the same as the one that validates."""
    image = np.random.default_rng(0).integers(-900, 0, labels.shape).astype(np.int16)
    for name, array in (("a", labels if second is None else second), ("b", labels)):
        write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", image, np.eye(4))
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", array, np.eye(4))
    numbers = {"background": 0, "normal": 1, "ground_glass": 2, "consolidation": 3}
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": numbers}))
    (folder / "splits.json").write_text(json.dumps({"train": ["a"], "validation": ["b"]}))
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["lung-partition", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_partitioned_is_refused_by_the_name_of_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = np.arange(6 * 6 * 4, dtype=np.uint8).reshape(6, 6, 4) % 4
    empty = case_of(tmp_path / "empty", whole, second=np.zeros_like(whole))
    text = refused(capsys, "--data", str(empty))
    assert f"{empty / 'labelsTr' / 'a.nii.gz'}: has no lung" in text
    assert "take the case out of the split" in text
    few = np.zeros_like(whole)
    few[:3, 0, 0] = [1, 2, 3]
    short = case_of(tmp_path / "short", few)
    text = refused(capsys, "--data", str(short), "--set", "stride=2")
    assert f"{short / 'labelsTr' / 'a.nii.gz'}: fewer different patches (2) than clusters (3)" in text
    without = case_of(tmp_path / "without", np.minimum(whole, 2))
    assert 'no case of the split\'s "train" has label "consolidation"' in refused(capsys, "--data", str(without))
    assert "--spacing must be positive" in refused(capsys, "--data", str(short), "--spacing", "1", "0", "1")
    assert not (tmp_path / "artifacts").exists()


def test_no_tensorflow_is_loaded(patterns: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from workloads.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "lung-partition", "--data", str(patterns), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
