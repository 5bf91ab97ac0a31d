"""Networks that answer for each voxel: of what sides they take images, what they mark, and what a region's answer stands on.

Pictures and slices are volumes here, (x, y, z, channels), of one slice or of several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError
from workloads.explain.integrated_gradients import Attributions, baselines_of, integrated_gradients
from workloads.explain.network import Array
from workloads.training.inference import predict_volume

__all__ = ["Sides", "explain_region", "over_volume", "sides_of"]

Shape = tuple[int, int, int]
WHOLE = 2**20  # longer than any side
MULTIPLES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Of what sides a network takes volumes.

    Attributes
    ----------
    window : tuple of int
        Longest sides computed at once.
    multiple : tuple of int
        Of which sides have to be multiples.
    slices : bool
        Whether the network is of slices along z.
    """

    window: Shape
    multiple: Shape
    slices: bool


def sides_of(model: Any, window: int | None = None) -> Sides:
    """Find out by trying: the network of a checkpoint does not say how often it halves its resolution.

    Parameters
    ----------
    window : int, optional
        Longest side asked for; of any length unless it is given, or the network takes one size alone.

    Raises
    ------
    WorkloadError
        If it takes no size up to multiples of 32.
    """
    taken, channels = tuple(model.inputs[0].shape[1:-1]), int(model.inputs[0].shape[-1])
    slices = len(taken) == 2

    def works(multiple: int) -> bool:
        sides = tuple(side or 3 * multiple for side in taken)
        try:
            answer = model(np.zeros((1, *sides, channels), dtype=np.float32), training=False)
        except Exception:  # whatever the layer raises to which the size does not matter
            return False
        return tuple(answer.shape[1:-1]) == sides

    multiple = next((each for each in MULTIPLES if works(each)), None)
    if multiple is None:
        raise WorkloadError("the network does not answer for each voxel of its input, whatever its size")
    multiples = [side or multiple for side in taken]
    longest = [side or (WHOLE if window is None else -(-window // multiple) * multiple) for side in taken]
    x, y, z = (*multiples, 1)[:3]
    a, b, c = (*longest, WHOLE)[:3]
    return Sides(window=(a, b, c), multiple=(x, y, z), slices=slices)


def over_volume(network: Callable[[Array], Array], volume: Array, sides: Sides) -> Array:
    """Apply a function of (1, x, y, z, channels) to a volume, in windows where it is larger than one."""
    return predict_volume(network, volume, window=sides.window, multiple=sides.multiple)


def explain_region(
    path: Callable[..., Any],
    model: Any,
    volume: Array,
    region: NDArray[np.bool_],
    number: int,
    sides: Sides,
    *,
    baseline: str | Array = "noise",
    baselines: int = 1,
    sigma: float | None = None,
    steps: int = 200,
    seed: int = 0,
    name: str = "the image",
) -> tuple[Array, Attributions]:
    """Integrated Gradients of the sum of a class's logits over a region.

    Where the volume is larger than a window, one window is explained, the one about the middle of the region, and the map is 0
    outside of it. Sides that do not fit are filled up by repeating the border.

    Parameters
    ----------
    path : callable
        `workloads.explain.integrated_gradients.path_integral` of the model.
    volume : ndarray, shape (x, y, z, channels)
    region : ndarray of bool, shape (x, y, z)
    number : int
        The class.
    baseline : str or ndarray
        As of `baselines_of`, or one of the shape of ``volume``.

    Returns
    -------
    ndarray, shape (x, y, z)
        Of several channels the sum.
    Attributions
        Of the window, of slices one by one: for their completeness.

    Raises
    ------
    WorkloadError
        As of `workloads.explain.integrated_gradients.integrated_gradients`.
    """
    extent = region.shape
    centre = [round(float(place.mean())) for place in np.nonzero(region)]
    cut: list[slice] = []
    padding = []
    for length, longest, multiple, middle in zip(extent, sides.window, sides.multiple, centre, strict=True):
        size = min(length, longest)
        start = min(max(0, middle - size // 2), length - size)
        cut.append(slice(start, start + size))
        padding.append((0, -size % multiple))
    window = tuple(cut)

    def filled(array: NDArray[Any], mode: str) -> Any:
        whole = np.pad(array[window], [*padding, *[(0, 0)] * (array.ndim - 3)], mode=mode)  # type: ignore[call-overload]
        return np.moveaxis(whole, 2, 0) if sides.slices else whole[None]

    images, marked = filled(volume, "edge"), filled(region, "constant")
    chosen = marked.reshape(len(marked), -1).any(axis=1)
    weights = np.zeros((*marked.shape, int(model.outputs[0].shape[-1])), dtype=np.float32)
    weights[..., number] = marked
    if isinstance(baseline, str):
        starts = baselines_of(images, baseline, seed=seed, number=baselines, sigma=sigma)
    elif baseline.shape == volume.shape:
        starts = filled(baseline, "edge")[None]
    else:
        starts = baseline[None, None]
    if starts.shape[2:] == images.shape[1:]:
        starts = starts[:, chosen]
    names = [name] * len(images)
    found = integrated_gradients(model, images[chosen], starts, weights[chosen], steps=steps, names=names, path=path)
    values = np.zeros(images.shape, dtype=np.float32)
    values[chosen] = found.values
    summed = np.moveaxis(values.sum(axis=-1), 0, 2) if sides.slices else values.sum(axis=-1)[0]
    attributions = np.zeros(extent, dtype=np.float32)
    attributions[window] = summed[tuple(slice(0, each.stop - each.start) for each in window)]
    return attributions, found
