"""Record what MONAI, medpy and surface-distance say of the reference masks, into ``reference_values.json``.

``python record_reference_values.py``, in an environment that has some of ``torch monai medpy surface-distance``;
what a missing one said before is kept. The tests need none of them.
"""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference_masks import SPACING, detections, pairs

PLACE = Path(__file__).with_name("reference_values.json")
Values = dict[str, dict[str, float]]


def of_monai() -> Values:
    """MONAI's, by the name of the pair."""
    import torch
    from monai.metrics import compute_froc_curve_data
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    def batch(mask: Any) -> Any:
        return torch.tensor(np.stack([~mask, mask])[None].astype(np.float32))

    found: Values = {}
    for name, (prediction, truth) in pairs().items():
        two = batch(prediction), batch(truth)
        found[name] = {
            "hausdorff": float(compute_hausdorff_distance(*two, spacing=SPACING)),
            "hausdorff 95": float(compute_hausdorff_distance(*two, percentile=95, spacing=SPACING)),
            "average": float(compute_average_surface_distance(*two, symmetric=True, spacing=SPACING)),
            "directed average": float(compute_average_surface_distance(*two, spacing=SPACING)),
            "surface dice at 1 mm": float(compute_surface_dice(*two, [1.0], spacing=SPACING)),
        }
    cases = detections()
    false = np.concatenate([[s for s, h in zip(scores, hits, strict=True) if h == 0] for scores, hits, _ in cases])
    true = np.concatenate([[s for s, h in zip(scores, hits, strict=True) if h] for scores, hits, _ in cases])
    lesions = sum(count for _, _, count in cases)
    fps, sensitivity = compute_froc_curve_data(false, true, lesions, len(cases))
    for x, y in zip(fps, sensitivity, strict=True):
        found.setdefault("froc", {})[repr(float(x))] = max(float(y), found.get("froc", {}).get(repr(float(x)), 0.0))
    return found


def of_medpy() -> Values:
    """The same of medpy, by its own definitions."""
    from medpy.metric import binary

    return {
        name: {
            "hausdorff": float(binary.hd(*pair, voxelspacing=SPACING)),
            "pooled 95": float(binary.hd95(*pair, voxelspacing=SPACING)),
            "average": float(binary.assd(*pair, voxelspacing=SPACING)),
            "dice": float(binary.dc(*pair)),
            "jaccard": float(binary.jc(*pair)),
            "precision": float(binary.precision(*pair)),
            "sensitivity": float(binary.sensitivity(*pair)),
            "specificity": float(binary.specificity(*pair)),
        }
        for name, pair in pairs().items()
    }


def of_surface_distance() -> Values:
    """The same of surface-distance, which measures between surface elements."""
    import surface_distance

    found: Values = {}
    for name, (prediction, truth) in pairs().items():
        distances = surface_distance.compute_surface_distances(truth, prediction, SPACING)
        found[name] = {
            "hausdorff": float(surface_distance.compute_robust_hausdorff(distances, 100)),
            "surface dice at 1 mm": float(surface_distance.compute_surface_dice_at_tolerance(distances, 1.0)),
        }
    return found


def main() -> None:
    """Ask whom there is, and write."""
    recorded: dict[str, Any] = json.loads(PLACE.read_text()) if PLACE.exists() else {}
    programs: dict[str, Callable[[], Values]] = {
        "monai": of_monai,
        "medpy": of_medpy,
        "surface-distance": of_surface_distance,
    }
    for program, ask in programs.items():
        try:
            recorded[program] = {"version": importlib.metadata.version(program), "values": ask()}
        except ModuleNotFoundError as error:
            print(f"{program}: {error}; what was recorded stays")  # noqa: T201 - a script's answer
    PLACE.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()
