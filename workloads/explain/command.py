"""``python -m workloads explain``: what a trained network looks at, and how sure it is.

::

    python -m workloads explain integrated-gradients --model model.keras --image FILE... --out DIR
    python -m workloads explain grad-cam             --model model.keras --image FILE... --out DIR
    python -m workloads explain uncertainty          --model model.keras [MORE...] --image FILE... --out DIR
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, did_you_mean
from workloads.explain.images import Image, read_image, unique_names, write_map
from workloads.explain.integrated_gradients import BASELINES
from workloads.explain.methods import Found, by_dropout_or_ensemble, by_grad_cam, by_integrated_gradients
from workloads.explain.network import check_shape, is_segmenter, load_network, logits_of
from workloads.explain.overlay import write_overlays
from workloads.training.devices import make_strategy
from workloads.training.setup import import_tensorflow, prepare

__all__ = ["METHODS", "main"]

RECORD = "explanation.json"


def _parser(method: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m workloads explain {method}", description=METHODS[method][1])
    several = method == "uncertainty"
    parser.add_argument("--model", type=Path, nargs="+" if several else 1, required=True, metavar="FILE",
                        help="model.keras of a trial" + ("; several are an ensemble" if several else ""))  # fmt: skip
    parser.add_argument("--image", type=Path, nargs="+", required=True, metavar="FILE", help="NIfTI, or a picture")
    parser.add_argument("--out", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="bring pictures to it")
    parser.add_argument("--channel", help="what volumes outside of a data set are of: CT is in Hounsfield units")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    if method != "grad-cam":
        parser.add_argument("--window", type=int, help="longest side of a volume that is computed at once")
        parser.add_argument(
            "--classes", type=int, help="of a segmenter with several answers: how many channels are one"
        )
    if not several:
        parser.add_argument(
            "--class", type=int, dest="number", help="its number (default: the answer's; of a segmenter the last)"
        )
        parser.add_argument(
            "--masks", type=Path, help="folder of masks for the pointing game (default: masks/ of the data)"
        )
        parser.add_argument("--tolerance", type=float, default=0.0, help="of the pointing game, in pixels (default: 0)")
    if method == "integrated-gradients":
        parser.add_argument(
            "--baseline", default="noise", help=f"{', '.join(BASELINES)}, or a file (default: %(default)s)"
        )
        parser.add_argument(
            "--baselines", type=int, default=1, help="mean over so many of noise (default: %(default)s)"
        )
        parser.add_argument(
            "--sigma", type=float, help="of blurred, in pixels (default: an eighth of the longest side)"
        )
        parser.add_argument("--steps", type=int, default=200, help="of the path (default: %(default)s)")
        parser.add_argument("--region", type=Path, help="of a segmenter: a mask (default: what it marks itself)")
    if method == "grad-cam":
        parser.add_argument("--layer", help="(default: the last convolution)")
    if several:
        parser.add_argument("--samples", type=int, default=20, help="of dropout (default: %(default)s)")
        parser.add_argument("--bins", type=int, default=10, help="of calibration (default: %(default)s)")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Explain images by one method and write what it came to.

    Nothing is written before everything is computed.

    Raises
    ------
    WorkloadError
        If an option, a model or an image cannot be used.
    """
    if not arguments or arguments[0].startswith("-"):
        raise WorkloadError("explain by which method?", hint="there is: " + ", ".join(METHODS))
    method = arguments[0]
    if method not in METHODS:
        raise WorkloadError(f"no method is called {method!r}", hint=did_you_mean(method, METHODS))
    options = _parser(method).parse_args(arguments[1:])
    for name in ("steps", "baselines", "samples", "bins", "window", "classes"):
        if (value := getattr(options, name, None)) is not None and value < 1:
            raise WorkloadError(f"--{name} must be at least 1")
    for path in (*options.model, *options.image):
        if not path.is_file():
            raise WorkloadError(f"{path}: no such file")
    import_tensorflow(threads=prepare(options.threads), seed=options.seed)
    strategy = make_strategy()
    with strategy.scope():
        networks = [logits_of(load_network(path), str(path)) for path in options.model]
    channels = int(networks[0].inputs[0].shape[-1])
    size = tuple(options.size) if options.size else None
    images = [read_image(path, channels=channels, size=size, channel=options.channel) for path in options.image]
    unique_names(images)
    for image in images:
        _check_image(networks[0], image)
    found = METHODS[method][0](options, networks, images, strategy)
    _write(options, method, found)


def _check_image(model: Any, image: Image) -> None:
    """Make sure that the network takes the image, or slices of it, or windows."""
    if not is_segmenter(model):
        check_shape(model, image.array.shape, str(image.path))
        return
    taken = model.inputs[0].shape[1:]
    flat = len(taken) == 3
    sides = image.array.ndim - 1
    if taken[-1] != image.array.shape[-1] or (sides == 2 and not flat):
        shown = " x ".join("any" if side is None else str(side) for side in taken)
        given = " x ".join(map(str, image.array.shape))
        raise WorkloadError(f"{image.path}: is {given}, but the network takes {shown}", hint="is it of another task?")


def _write(options: argparse.Namespace, method: str, found: Found) -> None:
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    limits = {}
    for image, name, values in found.maps:
        path, limits_of_map = write_map(out, image, name, values)
        limits[path.name] = limits_of_map
    for name, rows in found.tables.items():
        stream = io.StringIO(newline="")
        csv.writer(stream).writerows(rows)
        _write_text(out / name, stream.getvalue())
    if found.figure is not None:
        found.figure(out / "calibration.png")
    if found.shown:
        write_overlays(out / "overview.png", found.shown, title=method)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
             if name not in {"out", "threads"} and value is not None}  # fmt: skip
    given |= {name: [str(path) for path in given[name]] for name in ("model", "image")}
    record = {"method": method, "options": given, **found.record, "limits": limits}
    _write_text(out / RECORD, json.dumps(record, indent=1) + "\n")
    for line in found.lines:
        print(line)  # noqa: T201 - this verb's answer
    print(f"{out}: {len(found.maps)} maps, {RECORD}")  # noqa: T201 - as above


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


METHODS: Mapping[str, tuple[Callable[..., Found], str]] = {
    "integrated-gradients": (by_integrated_gradients, "How much each voxel adds to the network's answer."),
    "grad-cam": (by_grad_cam, "Where the features lie that speak for a class."),
    "uncertainty": (by_dropout_or_ensemble, "How sure the network is, by Monte Carlo dropout or an ensemble."),
}
