"""Which candidate hits which lesion. The rule is a choice; it is named and goes into the result."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.metrics.candidates import Candidate
from workloads.metrics.froc import CaseDetections

__all__ = ["MatchRule", "Matching", "label_lesions", "match"]


class MatchRule(enum.StrEnum):
    """When a candidate hits a lesion."""

    INSIDE = "inside"  # its voxel lies in the lesion's mask, or within `tolerance` mm of it
    CENTRE = "centre"  # it lies within `radius` mm of the lesion's centre of mass


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """A rule with its length in mm: the tolerance around the mask, or the radius about the centre."""

    rule: MatchRule = MatchRule.INSIDE
    length: float = 0.0

    def describe(self) -> str:
        """The rule in words, for the record."""
        if self.rule is MatchRule.CENTRE:
            return f"candidate within {self.length:g} mm of the lesion's centre of mass; the nearest lesion counts"
        margin = f"within {self.length:g} mm of" if self.length else "inside"
        return f"candidate {margin} the lesion's mask; the nearest lesion counts"


def label_lesions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the lesions of a mask: connected components, corners connect (26 neighbours)."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return labels.astype(np.int32), int(count)


def match(
    case: str,
    candidates: Sequence[Candidate],
    mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    matching: Matching,
) -> CaseDetections:
    """Give each candidate its lesion, or 0.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
        All lesions of the case; each connected component is one lesion.
    spacing : tuple of float
        Voxel size in mm.
    """
    labels, count = label_lesions(mask)
    hit = np.zeros(len(candidates), dtype=np.int64)
    if count and candidates:
        points = np.array([candidate.index for candidate in candidates])
        if matching.rule is MatchRule.CENTRE:
            centres = np.array(ndimage.center_of_mass(mask, labels, np.arange(1, count + 1)))
            offsets = (points[:, None, :] - centres[None, :, :]) * np.asarray(spacing)
            distances = np.linalg.norm(offsets, axis=2)
            nearest = np.argmin(distances, axis=1)
            hit = np.where(distances[np.arange(len(points)), nearest] <= matching.length, nearest + 1, 0)
        else:
            distances, nearest = ndimage.distance_transform_edt(~mask, sampling=spacing, return_indices=True)
            at = tuple(points.T)
            owner = labels[tuple(nearest[axis][at] for axis in range(3))]
            hit = np.where(distances[at] <= matching.length, owner, 0).astype(np.int64)
    return CaseDetections(
        case=case,
        scores=np.array([candidate.score for candidate in candidates], dtype=float),
        lesions=hit,
        n_lesions=count,
    )
