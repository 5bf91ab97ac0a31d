"""Partitions of an organ into as many regions as asked for, learnt without labels: of patches, and of voxels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.dataset import Case
from workloads.errors import WorkloadError
from workloads.models.patch_features import Organ, features, make_organ, small_patches, vote
from workloads.models.spherical_kmeans import learn_dictionary

__all__ = ["Partitioner", "of_patches", "of_voxels"]

Partitioner = Callable[[Case], NDArray[np.uint8]]  # the cluster of each voxel, from 1; 0 outside of the organ
LEARNT_FROM = 20_000  # small patches: a dictionary of more is no better, and slower
RESTARTS = 4


def of_patches(cases: Sequence[Case], settings: Mapping[str, Any], *, groups: int, seed: int) -> Partitioner:
    """Learn features and clusters from the patches of ``cases``.

    Parameters
    ----------
    settings : mapping
        ``atom`` and ``patch`` (voxels a side), ``slices``, ``stride``, ``atoms``, ``whitening``, ``normalisation``,
        ``encoding``, ``threshold`` (of soft codes), ``density``, ``smoothing`` (mm): as in
        `workloads.models.spherical_kmeans` and `workloads.models.patch_features`.

    Raises
    ------
    WorkloadError
        If there are fewer patches, or fewer that differ, than ``groups``.
    """
    rng = np.random.default_rng(seed)

    def organ_of(case: Case) -> Organ:
        return make_organ(case.image.array, case.lesion, stride=settings["stride"])

    organs = [organ_of(case) for case in cases]
    small = np.concatenate([small_patches(organ, settings["atom"]) for organ in organs])
    dictionary = learn_dictionary(
        small[rng.permutation(len(small))[:LEARNT_FROM]],
        atoms=settings["atoms"],
        epsilon=settings["whitening"],
        normalisation=settings["normalisation"],
        rng=rng,
    )

    def encode(patches: NDArray[np.float64]) -> NDArray[np.float64]:
        return dictionary.encode(patches, encoding=settings["encoding"], threshold=settings.get("threshold", 0.0))

    def features_of(organ: Organ) -> NDArray[np.float64]:
        sizes = {name: settings[name] for name in ("atom", "patch", "slices", "density")}
        return features(organ, encode, **sizes)

    clusters = _kmeans(np.concatenate([features_of(organ) for organ in organs]), groups, seed, cases)

    def partitioned(case: Case) -> NDArray[np.uint8]:
        organ = organ_of(case)
        return vote(
            organ,
            clusters.predict(features_of(organ)),
            groups=groups,
            patch=settings["patch"],
            slices=settings["slices"],
            smoothing=tuple(settings["smoothing"] / side for side in case.image.spacing),
        )

    return partitioned


def of_voxels(cases: Sequence[Case], *, groups: int, seed: int) -> Partitioner:
    """K-means of the organ's voxels by their values: what any other partition has to beat.

    Raises
    ------
    WorkloadError
        If there are fewer values than ``groups``.
    """
    values = np.concatenate([case.image.array[case.lesion] for case in cases])[:, None]
    clusters = _kmeans(values, groups, seed, cases)

    def partitioned(case: Case) -> NDArray[np.uint8]:
        found = np.zeros(case.image.array.shape, dtype=np.uint8)
        found[case.lesion] = clusters.predict(case.image.array[case.lesion][:, None]) + 1
        return found

    return partitioned


def _kmeans(points: NDArray[np.floating], groups: int, seed: int, cases: Sequence[Case]) -> Any:
    try:
        from sklearn.cluster import KMeans
    except ModuleNotFoundError:
        raise WorkloadError(
            "scikit-learn is not installed", hint="pip install 'survey-orchestrator[workloads-cpu]'"
        ) from None
    # Few of many thousands are enough to see that they differ.
    different = len(np.unique(points[:: max(1, len(points) // 1000)], axis=0))
    if different < groups and (different := len(np.unique(points, axis=0))) < groups:
        files = ", ".join(str(case.label.path) for case in cases[:3])
        raise WorkloadError(
            f"{files}{', ...' if len(cases) > 3 else ''}: fewer different patches ({different}) than clusters ({groups})",
            hint="add training cases, or choose a smaller stride",
        )
    return KMeans(groups, n_init=RESTARTS, random_state=seed).fit(points)
