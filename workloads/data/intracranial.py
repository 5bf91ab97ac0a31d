"""Where the brain is in a head CT: by density and connection alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workloads.data.dataset import Case, hounsfield
from workloads.errors import WorkloadError

__all__ = ["intracranial"]

SMALLEST = 50.0  # ml: less is no brain
SOFT = (-20.0, 130.0)  # HU: between fat and bone lie fluid, brain and clotted blood


def intracranial(case: Case, *, margin: float = 5.0) -> NDArray[np.bool_]:
    """The largest piece of soft tissue and fluid, filled, without its rim.

    Parameters
    ----------
    case : Case
        Of CT, as `workloads.data.dataset.load_case` gives it.
    margin : float
        Width of the rim in mm: voxels there are part bone. A bridge to the scalp that is no wider than two is cut.

    Raises
    ------
    WorkloadError
        If nothing is as large as a brain, named with the file.
    """
    units, spacing = hounsfield(case), case.image.spacing
    soft = (units > SOFT[0]) & (units < SOFT[1])
    inner = ndimage.distance_transform_edt(np.pad(soft, 1), sampling=spacing)[1:-1, 1:-1, 1:-1] > margin
    pieces, count = ndimage.label(inner)
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    if not count or sizes.max() * float(np.prod(spacing)) < 1000.0 * SMALLEST:
        raise WorkloadError(
            f"{case.image.path}: holds no piece of soft tissue as large as a brain",
            hint="a head CT in Hounsfield units is needed, of which the skull is in the picture",
        )
    return np.asarray(ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(sizes))))
