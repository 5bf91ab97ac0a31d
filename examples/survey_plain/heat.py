"""The program of one job: how long a heated rod of some length and material takes to cool at its middle.

It needs nothing but Python; by hand it runs with the values below.
"""

from __future__ import annotations

from orchestrator import trial


def half_time(diffusivity: float, cells: int) -> float:
    """Seconds until the middle of a rod of 1 m has lost half its heat (explicit finite differences)."""
    width = 1.0 / cells
    step = 0.4 * width**2 / diffusivity  # below 0.5, where the scheme is stable
    rod = [1.0] * cells
    seconds = 0.0
    while rod[cells // 2] > 0.5:
        padded = [0.0, *rod, 0.0]
        rod = [
            here + 0.4 * (left - 2 * here + right)
            for left, here, right in zip(padded, padded[1:], padded[2:], strict=False)
        ]
        seconds += step
    return seconds


if __name__ == "__main__":
    given = {"diffusivity": 1e-4, "cells": 20, **trial.params()}
    trial.finish(half_time=half_time(**given))
