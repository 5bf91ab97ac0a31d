"""Phantoms of dynamic MR images of the liver in five phases: nodules, and what resembles them in some of the phases.

A case is a block of liver before contrast agent and in its arterial, portal, transitional and hepatobiliary phase.
Everything is a shape and a curve of five signals. Hypervascular nodules, the lesions, light up in the arterial
phase, lose it in the portal one (washout) and take up nothing in the hepatobiliary one (defect). Nothing else does all
three: haemangiomas light up and stay bright until they are a defect too, focal nodular hyperplasia and shunts light
up and leave no defect, cysts and nodules without arterial supply are defects that never light up, veins are bright
late and dark at last, arteries are bright early. Only nodules are labelled. All lengths are mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.phantoms.shapes import (
    Array,
    PhantomCase,
    bias_field,
    ellipsoid_distance,
    filled,
    place_in_patient,
    tube_distance,
    vessel_trees,
    voxel_centres,
)

__all__ = ["LABELS", "PHASES", "LiverPhantom", "make_case"]

PHASES = ("pre-contrast", "arterial", "portal", "transitional", "hepatobiliary")
LABELS = {"background": 0, "nodule": 1}

# Signal in each phase; the brightest vessels reach 0.9.
LIVER = np.array([0.36, 0.42, 0.56, 0.60, 0.74])
VEIN = np.array([0.28, 0.46, 0.90, 0.78, 0.44])
ARTERY = np.array([0.28, 0.92, 0.78, 0.66, 0.46])
CYST = np.array([0.20, 0.20, 0.21, 0.21, 0.22])
POOR = np.array([0.32, 0.37, 0.46, 0.47, 0.42])  # a nodule without arterial supply
SPONGE = np.array([0.24, 0.66, 0.74, 0.62, 0.42])  # haemangioma
RICH = np.array([0.35, 0.74, 0.62, 0.62, 0.78])  # focal nodular hyperplasia
SHUNT = np.array([0.36, 0.68, 0.57, 0.60, 0.74])
NODULE = np.array([0.33, 0.68, 0.47, 0.45, 0.42])
LOOK_ALIKES = (CYST, POOR, SPONGE, RICH, SHUNT)
SIZES = {"look-alike": (2.5, 6.0), "artery": (1.0, 1.6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiverPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size.
    vessel_radius, lesion_radius : tuple of float
        Smallest and largest; a vessel's where it enters the block.
    contrast : tuple of float
        How far a nodule's curve is from the liver's: 1 is a plain case, smaller ones are faint.
    confounders : float
        Mean number of each kind of look-alike in a case.
    motion : float
        Standard deviation of the shift between phases, each taken in a breath-hold of its own.
    noise : float
        Standard deviation of the noise in each of the two channels of which the magnitude is taken.
    """

    shape: tuple[int, int, int] = (32, 32, 20)
    spacing: tuple[float, float, float] = (1.6, 1.6, 2.2)
    vessel_radius: tuple[float, float] = (1.6, 3.0)
    lesion_radius: tuple[float, float] = (2.8, 5.5)
    contrast: tuple[float, float] = (0.45, 0.95)
    confounders: float = 1.0
    motion: float = 0.4
    noise: float = 0.07


def _with_nodules(
    rng: np.random.Generator, phantom: LiverPhantom, grid: Array, vessels: Array, lesions: int
) -> tuple[list[tuple[Array, Array]], NDArray[np.bool_]] | None:
    """The shapes of ``lesions`` nodules that do not touch with their curves, and their mask; None without room."""
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    shapes: list[tuple[Array, Array]] = []
    label = np.zeros(len(grid), dtype=bool)
    for _ in range(40 * lesions):
        if len(shapes) == lesions:
            break
        radius = float(rng.uniform(*phantom.lesion_radius))
        places = np.flatnonzero(((grid > radius) & (grid < extent - radius)).all(axis=1) & (vessels > 0.7 * radius))
        if not places.size:
            continue
        distance = ellipsoid_distance(rng, grid, grid[int(rng.choice(places))], radius)
        mask = distance < 0.0
        if (label & (distance < 4.0)).any() or np.count_nonzero(mask) < 4:
            continue
        curve = LIVER + rng.uniform(*phantom.contrast) * (NODULE - LIVER) + rng.normal(0.0, 0.02, len(PHASES))
        shapes.append((filled(distance), curve))
        label |= mask
    return (shapes, label) if len(shapes) == lesions else None


def _look_alikes(rng: np.random.Generator, phantom: LiverPhantom, grid: Array) -> list[tuple[Array, Array]]:
    """Shapes and curves of what is no lesion, some of each kind."""
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    shapes = []
    for kind in (*LOOK_ALIKES, ARTERY):
        sizes = SIZES["artery" if kind is ARTERY else "look-alike"]
        for _ in range(int(rng.poisson(phantom.confounders))):
            distance = ellipsoid_distance(rng, grid, rng.uniform(0.05, 0.95, 3) * extent, float(rng.uniform(*sizes)))
            curve = LIVER + rng.uniform(0.6, 1.1) * (kind - LIVER) + rng.normal(0.0, 0.02, len(PHASES))
            shapes.append((filled(distance), curve))
    return shapes


def make_case(rng: np.random.Generator, phantom: LiverPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` nodules (0: a normal case), all of it from ``rng``; its image has five channels.

    Raises
    ------
    ValueError
        If the block is too small to hold them.
    """
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    grid = voxel_centres(phantom.shape, phantom.spacing)
    for _ in range(30):
        trees = vessel_trees(rng, phantom.vessel_radius, extent)
        vessels = np.min([tube_distance(grid, branch) for branch in trees], axis=0)
        found = _with_nodules(rng, phantom, grid, vessels, lesions)
        if found is not None:
            break
    else:
        raise ValueError(f"no room for {lesions} nodules in a block of {phantom.shape} voxels")
    nodules, label = found
    signal = np.tile(LIVER * rng.uniform(0.92, 1.08, len(PHASES)), (len(grid), 1))
    # A nodule hides what lies behind it, since its label says that it is there.
    for share, curve in (*_look_alikes(rng, phantom, grid), (filled(vessels), VEIN), *nodules):
        signal += share[:, None] * (curve - signal)
    signal *= bias_field(rng, grid, extent)[:, None]
    volumes = signal.reshape(*phantom.shape, len(PHASES))
    image = np.empty(volumes.shape, dtype=np.int16)
    gain = float(rng.uniform(250.0, 450.0))
    for phase in range(len(PHASES)):
        shift = rng.normal(0.0, phantom.motion, 3) / np.asarray(phantom.spacing)
        moved = ndimage.shift(volumes[..., phase], shift, order=1, mode="nearest")
        noisy = np.hypot(
            moved + rng.normal(0.0, phantom.noise, moved.shape), rng.normal(0.0, phantom.noise, moved.shape)
        )
        image[..., phase] = np.clip(gain * noisy, 0, 32767).astype(np.int16)
    return PhantomCase(
        image=image,
        label=label.astype(np.uint8).reshape(phantom.shape),
        affine=place_in_patient(rng, phantom.spacing),
    )
