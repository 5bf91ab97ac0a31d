"""Phantoms of head CT without contrast agent: normal ones, and ones with a haemorrhage or an infarct.

A case is a whole, coarsely sampled head in Hounsfield units: scalp, skull, cortex with sulci, white matter, deep grey
matter, ventricles and falx, each patient with sizes of his own. What is normal and yet bright or dark is there too:
calcifications of the choroid plexus, wide ventricles and sulci of old age. A haemorrhage is a bright insert in the brain,
an infarct a dark one, both no denser and no less dense than what normal heads have elsewhere. All lengths are mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from workloads.phantoms.shapes import Array, PhantomCase, place_in_patient, voxel_centres

__all__ = ["LABELS", "HeadPhantom", "make_case"]

LABELS = {"background": 0, "haemorrhage": 1, "infarct": 2}

# Hounsfield units (Brooks and Chiro 1976; any atlas of CT).
AIR, SCALP, SKULL, FLUID, GREY, WHITE, FALX = -1000.0, 20.0, 850.0, 7.0, 38.0, 29.0, 52.0
EDGE = 1.2  # mm over which one tissue becomes another


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPhantom:
    """What a phantom data set looks like.

    Attributes
    ----------
    shape : tuple of int
        Voxels.
    spacing : tuple of float
        Voxel size; a head is about 160 x 190 x 130 mm.
    bleeding, infarct : tuple of float
        Radius of a lesion, smallest and largest.
    confounders : float
        Mean number of calcifications in a case.
    noise : float
        Standard deviation of the noise, HU.
    """

    shape: tuple[int, int, int] = (40, 48, 28)
    spacing: tuple[float, float, float] = (4.4, 4.4, 5.2)
    bleeding: tuple[float, float] = (8.0, 15.0)
    infarct: tuple[float, float] = (14.0, 23.0)
    confounders: float = 2.0
    noise: float = 4.0


def _inside(place: Array, centre: Sequence[float], axes: Sequence[float]) -> Array:
    """1 in an ellipsoid, 0 outside, with a soft edge; ``place`` (n, 3)."""
    radii = np.asarray(axes)
    distance = (np.linalg.norm((place - np.asarray(centre)) / radii, axis=1) - 1.0) * float(radii.min())
    return _soft(distance)


def _soft(distance: Array) -> Array:
    """1 where ``distance`` is negative, 0 where it is positive."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(distance / EDGE, -30.0, 30.0))))


def _waves(rng: np.random.Generator, place: Array, length: float) -> Array:
    """A smooth random field about 0 that turns over ``length`` mm."""
    directions = rng.normal(0.0, 2.0 * np.pi / length / np.sqrt(3.0), (3, 6))
    return np.asarray(np.sin(place @ directions + rng.uniform(0.0, 2.0 * np.pi, 6)).mean(axis=1))


def _laid(signal: Array, share: Array, value: float | Array) -> Array:
    return np.asarray(signal + share * (value - signal))


def _normal_head(rng: np.random.Generator, place: Array, confounders: float) -> tuple[Array, Array]:
    """Hounsfield units of a normal head about the origin, and the depth below the brain's surface (negative outside)."""
    size = np.array([68.0, 85.0, 60.0]) * rng.uniform(0.94, 1.04, 3)
    depth = (1.0 - np.linalg.norm(place / size, axis=1)) * float(size.min())
    age = rng.uniform()
    signal = _laid(np.full(len(place), AIR), _soft(-depth - rng.uniform(10.0, 13.0)), SCALP)
    signal = _laid(signal, _soft(-depth - rng.uniform(6.5, 8.0)), SKULL * rng.uniform(0.85, 1.15))
    signal = _laid(signal, _soft(-depth), FLUID)
    signal = _laid(signal, _soft(1.0 + 2.0 * age - depth), GREY)
    folded = depth - 8.0 + 10.0 * _waves(rng, place, 28.0)
    signal = _laid(signal, _soft(-folded), WHITE)
    sulci = (
        _soft(20.0 * (np.abs(_waves(rng, place, 35.0)) - 0.08 - 0.12 * age)) * _soft(depth - 9.0) * _soft(1.0 - depth)
    )
    signal = _laid(signal, sulci * 0.8, FLUID)
    signal = _laid(signal, _soft(np.abs(place[:, 0]) - 1.0) * _soft(1.0 - depth) * _soft(12.0 - place[:, 2]), FALX)
    wide = rng.uniform(6.0, 9.0) + 8.0 * age
    for side in (-1.0, 1.0):
        for centre, axes in (((13.0, 8.0, 2.0), (8.0, 14.0, 9.0)), ((9.0, -8.0, 0.0), (8.0, 9.0, 8.0))):
            signal = _laid(signal, _inside(place, (side * centre[0], *centre[1:]), axes), GREY + 1.0)
        uneven = wide * rng.uniform(0.8, 1.2)
        for y, z in ((16.0, 12.0), (-2.0, 15.0), (-22.0, 9.0)):
            share = _inside(place, (side * (4.0 + 0.8 * uneven), y, z), (0.7 * uneven, 14.0, 0.8 * uneven))
            signal = _laid(signal, share, FLUID)
        for _ in range(int(rng.poisson(confounders / 2.0))):
            spot = (side * (4.0 + uneven), -22.0 + rng.normal(0.0, 4.0), 9.0 + rng.normal(0.0, 2.0))
            signal = _laid(signal, _inside(place, spot, (2.6, 2.6, 2.6)), float(rng.uniform(80.0, 160.0)))
    return signal, depth


def make_case(rng: np.random.Generator, phantom: HeadPhantom, lesions: int) -> PhantomCase:
    """Make one case with ``lesions`` haemorrhages or infarcts (0: a normal case), all of it from ``rng``.

    Raises
    ------
    ValueError
        If the block holds no brain in which a lesion could lie.
    """
    extent = np.asarray(phantom.spacing) * np.asarray(phantom.shape)
    turn = rng.normal(0.0, 0.05)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]])
    place = (voxel_centres(phantom.shape, phantom.spacing) - extent / 2.0 + rng.normal(0.0, 2.5, 3)) @ turned
    signal, depth = _normal_head(rng, place, phantom.confounders)
    label = np.zeros(len(place), dtype=np.uint8)
    for _ in range(lesions):
        number = 1 if rng.random() < 0.65 else 2
        radius = float(rng.uniform(*(phantom.bleeding if number == 1 else phantom.infarct)))
        # Off the ventricles and calcifications, in brain and not in another lesion.
        room = np.flatnonzero((depth > 0.8 * radius) & (signal > 22.0) & (signal < 50.0) & (label == 0))
        if not room.size:
            raise ValueError(f"no room for a lesion in a head of {phantom.shape} voxels")
        axes = radius * rng.uniform(0.8, 1.2, 3)
        centre = place[int(rng.choice(room))].tolist()
        bent = place + 0.15 * radius * np.stack([_waves(rng, place, 25.0) for _ in range(3)], axis=1)
        share = _inside(bent, centre, axes.tolist()) * _soft(-depth)
        value = rng.uniform(58.0, 75.0) if number == 1 else rng.uniform(10.0, 17.0)
        # What is fluid stays fluid: an infarct does not fill a ventricle.
        tissue = share * (_soft(0.5 * (20.0 - signal)) if number == 2 else 1.0)
        signal = _laid(signal, tissue, value)
        label[tissue > 0.5] = number
    cupping = 3.0 * rng.uniform(0.0, 1.0) * (np.sum((place / extent) ** 2, axis=1) * 4.0 - 0.5)
    grain = ndimage.gaussian_filter(rng.normal(size=phantom.shape), 0.5)  # reconstruction correlates the noise
    noise = phantom.noise * grain / float(grain.std())
    image = (signal + cupping * (depth > 0.0)).reshape(phantom.shape) + noise
    return PhantomCase(
        image=np.clip(image, -1024, 3071).round().astype(np.int16),
        label=label.reshape(phantom.shape),
        affine=place_in_patient(rng, phantom.spacing, tilt=0.1),
    )
