"""Phantoms of laparoscopic frames: wet tissue, and a vessel sealer, an ultrasonic device, another instrument or none.

A vessel sealer has two broad blunt jaws alike, an ultrasonic device a thin bare blade and a shorter clamp beside it;
of the others, which are ``neither``, a grasper has two thin jaws alike, a hook one bent end and a sucker none. Shafts
and metal are the same for all: jaws alone tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloads.phantoms.drawing import Array, as_picture, capsule_distance, covered, painted, pixel_grid, texture

__all__ = ["KINDS", "make_picture"]

KINDS = ("neither", "ultrasonic", "vessel_sealer")
OTHERS = ("none", "grasper", "hook", "sucker")
TISSUE, FAT, BLOOD = np.array([0.72, 0.34, 0.30]), np.array([0.86, 0.68, 0.42]), np.array([0.48, 0.08, 0.08])


def make_picture(
    rng: np.random.Generator, kind: str, *, size: int, confounders: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One frame, shape (size, size, 3), and the mask of its instrument's jaws, all of it from ``rng``.

    Parameters
    ----------
    confounders : float
        Mean number of other shafts that come into the picture without their ends, and half of that of vessels.
    """
    grid = pixel_grid(size)
    unit = size / 64.0
    picture = _tissue(rng, grid, size, vessels=2.0 * confounders)
    for _ in range(int(rng.poisson(confounders))):
        start, heading = _entry(rng, size)
        end = start + heading * rng.uniform(0.05, 0.2) * size
        picture = _shaft(rng, picture, grid, start, end, rng.uniform(2.6, 3.4) * unit)
    instrument = str(rng.choice(OTHERS)) if kind == "neither" else kind
    mask = np.zeros((size, size), dtype=bool)
    if instrument != "none":
        start, heading = _entry(rng, size)
        joint = start + heading * rng.uniform(0.38, 0.6) * size
        radius = rng.uniform(2.6, 3.4) * unit
        picture = _shaft(rng, picture, grid, start, joint, radius)
        if instrument == "sucker":
            tip = capsule_distance(grid, joint, joint - 3.0 * unit * heading, (radius, radius))
            picture = painted(picture, covered(tip), np.full(3, rng.uniform(0.5, 0.7)))
        else:
            jaws = _jaws(rng, instrument, grid, joint, heading, radius, unit)
            sheen = 1.0 + 0.35 * texture(rng, size, 1.5 * unit)
            metal = np.clip(rng.uniform(0.5, 0.75) * sheen[..., None] + np.zeros(3), 0.0, 1.0)
            picture = painted(picture, covered(jaws), metal)
            picture = painted(picture, 0.5 * covered(np.abs(jaws) - 0.1), np.full(3, 0.15))
            mask = np.asarray(jaws < 0.0)
    # Highlights of the endoscope's light on what is wet; its picture is darker towards the rim.
    wet = texture(rng, size, 1.4 * unit) + 0.8 * texture(rng, size, 6.0 * unit)
    picture = painted(picture, np.clip((wet - rng.uniform(2.9, 3.5)) / 0.5, 0.0, 1.0), np.ones(3))
    off = np.linalg.norm(grid / (size - 1) - rng.uniform(0.42, 0.58, 2), axis=-1)
    light = rng.uniform(0.85, 1.1) * np.clip(1.15 - 0.9 * off**1.5, 0.0, None)
    seen = as_picture(rng, picture * light[..., None], blur=rng.uniform(0.4, 0.7), noise=0.02)
    return seen, mask


def _tissue(rng: np.random.Generator, grid: Array, size: int, *, vessels: float) -> Array:
    """Peritoneum with fat and vessels."""
    unit = size / 64.0
    picture = TISSUE * rng.uniform(0.85, 1.1) + 0.06 * texture(rng, size, 8.0 * unit)[..., None]
    picture = picture + 0.04 * texture(rng, size, 1.2 * unit)[..., None]
    fat = np.clip(1.5 * (texture(rng, size, 7.0 * unit) - rng.uniform(0.0, 1.5)), 0.0, 1.0)
    picture = painted(picture, 0.9 * fat, FAT * rng.uniform(0.85, 1.05))
    for _ in range(int(rng.poisson(vessels))):
        place, angle = rng.uniform(0.0, 1.0, 2) * size, rng.uniform(0.0, 2.0 * np.pi)
        for _ in range(8):
            following = place + 6.0 * unit * np.array([np.sin(angle), np.cos(angle)])
            line = capsule_distance(grid, place, following, (0.8 * unit, 0.8 * unit))
            picture = painted(picture, 0.6 * covered(line), BLOOD)
            place, angle = following, angle + rng.normal(0.0, 0.4)
    return np.asarray(picture)


def _entry(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Where an instrument comes in at the rim, and its direction, more or less to the middle."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    middle, outward = np.full(2, (size - 1) / 2.0), np.array([np.sin(angle), np.cos(angle)])
    start = middle + 0.62 * size * outward
    towards = middle + rng.normal(0.0, 0.08, 2) * size - start
    return start, towards / np.linalg.norm(towards)


def _shaft(rng: np.random.Generator, picture: Array, grid: Array, start: Array, end: Array, radius: float) -> Array:
    """A black or steel tube, bright along its middle."""
    behind = start - 40.0 * (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
    distance = capsule_distance(grid, behind, end, (radius, radius))
    shade = rng.uniform(0.12, 0.5)
    bright = np.clip(-distance / radius, 0.0, 1.0) ** 2
    tube = (shade + 0.35 * bright)[..., None] * np.ones(3)
    return painted(picture, covered(distance), tube)


def _jaws(
    rng: np.random.Generator, instrument: str, grid: Array, joint: Array, heading: Array, radius: float, unit: float
) -> Array:
    """Signed distance to what is at the end of the shaft."""

    def turned(angle: float) -> Array:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ heading

    def arm(angle: float, length: float, radii: tuple[float, float]) -> Array:
        return capsule_distance(grid, joint, joint + length * unit * turned(angle), (radii[0] * unit, radii[1] * unit))

    side = 1.0 if rng.random() < 0.5 else -1.0
    opening, length = rng.uniform(0.12, 0.45), rng.uniform(13.0, 18.0)
    if instrument == "vessel_sealer":
        widths = (radius / unit * 0.75, rng.uniform(2.0, 2.5))
        return np.minimum(arm(opening, length, widths), arm(-opening, length, widths))
    if instrument == "grasper":
        thin = (1.3, rng.uniform(0.7, 1.0))
        return np.minimum(arm(opening, length, thin), arm(-opening, length, thin))
    if instrument == "ultrasonic":
        blade = arm(0.0, length, (1.4, rng.uniform(0.9, 1.2)))
        clamp = arm(side * (opening + 0.15), 0.65 * length, (1.8, rng.uniform(1.6, 2.0)))
        return np.minimum(blade, clamp)
    bend = joint + 0.7 * length * unit * heading
    tip = bend + side * 4.0 * unit * turned(np.pi / 2.0)
    wire = (0.9 * unit, 0.9 * unit)
    return np.minimum(capsule_distance(grid, joint, bend, wire), capsule_distance(grid, bend, tip, wire))
