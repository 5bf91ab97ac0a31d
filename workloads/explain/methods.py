"""The methods of explanation over the images of a command line: each gives its maps, and nothing is written here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError
from workloads.explain.calibration import error_detection, reliability, risk_coverage, write_figure
from workloads.explain.grad_cam import feature_layer, grad_cam
from workloads.explain.images import Image, read_image, read_mask
from workloads.explain.integrated_gradients import BASELINES, baselines_of, integrated_gradients, path_integral
from workloads.explain.network import Array, check_class, class_weights, is_segmenter, of_batch
from workloads.explain.overlay import Explained
from workloads.explain.pointing import pointing_game
from workloads.explain.regions import explain_region, over_volume, sides_of
from workloads.explain.uncertainty import Answers, answers_of, dropout_network, statistics
from workloads.training.inference import compiled

__all__ = ["Found", "by_dropout_or_ensemble", "by_grad_cam", "by_integrated_gradients"]

GAP = 0.05  # of completeness; beyond it more steps are advised


@dataclass(slots=True, kw_only=True)
class Found:
    """What a method came to, before anything is written.

    ``maps`` are (image, name of the map, values); ``record`` goes into the JSON file; ``lines`` are for people.
    """

    maps: list[tuple[Image, str, NDArray[np.floating]]] = field(default_factory=list)
    shown: list[Explained] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    tables: dict[str, Sequence[Sequence[Any]]] = field(default_factory=dict)
    figure: Callable[[Path], None] | None = None


def _groups(images: Sequence[Image]) -> list[list[int]]:
    """Places of images of one shape: they are one batch."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        shapes.setdefault(image.array.shape, []).append(place)
    return list(shapes.values())


def _batch(images: Sequence[Image], group: Sequence[int]) -> Array:
    return np.stack([images[place].array for place in group])


def _class_numbers(options: argparse.Namespace, answers: Array) -> list[int]:
    if options.number is not None:
        check_class(options.number, int(answers.shape[-1]), str(options.model[0]))
        return [options.number] * len(answers)
    return [int(each) for each in np.argmax(answers, axis=-1)]


def by_integrated_gradients(
    options: argparse.Namespace, networks: Sequence[Any], images: list[Image], strategy: Any
) -> Found:
    """Integrated Gradients of a class of each image, or of what a segmenter marks, with its completeness."""
    model, found = networks[0], Found()
    path = path_integral(model, strategy)
    start = _baseline(options, images[0])
    kept: dict[int, tuple[NDArray[np.floating], dict[str, Any]]] = {}
    if is_segmenter(model):
        network = compiled(model)
        for place, image in enumerate(images):
            kept[place] = _of_region(options, model, image, start, path, network)
    else:
        for group in _groups(images):
            batch, names = _batch(images, group), [str(images[place].path) for place in group]
            numbers = _class_numbers(options, of_batch(model)(batch))
            several = start[None, None] if isinstance(start, np.ndarray) else baselines_of(
                batch, start, seed=options.seed, number=options.baselines, sigma=options.sigma)  # fmt: skip
            if isinstance(start, np.ndarray) and start.shape == batch.shape[1:]:
                several = np.broadcast_to(start, (1, *batch.shape))
            done = integrated_gradients(
                model, batch, several, class_weights(model, numbers), steps=options.steps, names=names, path=path
            )
            for at, place in enumerate(group):
                facts = {"class": numbers[at], "answer": done.answers[at], "of_baseline": done.of_baselines[at],
                         "sum": float(done.values[at].sum(dtype=np.float64)), "gap": done.gaps[at]}  # fmt: skip
                kept[place] = done.values[at].sum(axis=-1), facts
    worst = max(facts["gap"] for _, facts in kept.values())
    for place, image in enumerate(images):
        values, facts = kept[place]
        found.maps.append((image, "integrated-gradients", values))
        found.record.setdefault("images", {})[image.name] = {name: _number(value) for name, value in facts.items()}
        found.shown.append(
            Explained(
                image=image, values=np.abs(values), title=image.called(facts["class"]), where=_mask(options, image)
            )
        )
    more = ": more --steps would close it" if worst > GAP else ""
    found.lines.append(f"completeness: the sum misses f(x) - f(baseline) by {100 * worst:.2g} % at most{more}")
    _point(options, found, [np.abs(values) for _, _, values in found.maps])
    return found


def _number(value: Any) -> Any:
    """As JSON has it, which knows no infinity."""
    if isinstance(value, int | str | None):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _baseline(options: argparse.Namespace, like: Image) -> str | Array:
    """The kind of baseline, or the baseline of a file, as the network sees it."""
    if options.baseline in BASELINES:
        return str(options.baseline)
    path = Path(options.baseline)
    if not path.is_file():
        raise WorkloadError(
            f"--baseline {options.baseline}: no such file", hint="a file, or one of " + ", ".join(BASELINES)
        )
    size = tuple(options.size) if options.size else None
    return read_image(path, channels=like.array.shape[-1], size=size, channel=options.channel).array


def _of_region(
    options: argparse.Namespace, model: Any, image: Image, start: str | Array, path: Any, network: Any
) -> tuple[NDArray[np.floating], dict[str, Any]]:
    """Integrated Gradients of what a segmenter says of a region."""
    sides = sides_of(model, options.window)
    volume = image.array if image.array.ndim == 4 else image.array[:, :, None]
    classes = options.classes or int(model.outputs[0].shape[-1])
    check_class(classes - 1, int(model.outputs[0].shape[-1]), "--classes")
    number = classes - 1 if options.number is None else options.number
    check_class(number, classes, str(options.model[0]))
    if options.region is not None:
        region = read_mask(options.region, image).reshape(volume.shape[:3])
    else:
        logits = over_volume(network, volume, sides)[..., :classes]
        region = logits[..., 0] > 0 if classes == 1 else np.argmax(logits, axis=-1) == number
    if not region.any():
        raise WorkloadError(
            f"{image.path}: the network marks nothing as class {number}" if options.region is None
            else f"{options.region}: is empty",
            hint="ask for another class by --class, or say where by --region",
        )  # fmt: skip
    if isinstance(start, np.ndarray) and start.ndim == 3:
        start = start[:, :, None]
    values, done = explain_region(
        path, model, volume, region, number, sides, baseline=start, baselines=options.baselines,
        sigma=options.sigma, steps=options.steps, seed=options.seed, name=str(image.path),
    )  # fmt: skip
    answer, of_baseline = float(done.answers.sum()), float(done.of_baselines.sum())
    summed = float(done.values.sum(dtype=np.float64))
    gap = abs(summed - answer + of_baseline) / abs(answer - of_baseline) if answer != of_baseline else float("inf")
    facts = {"class": number, "voxels": int(region.sum()), "answer": answer, "of_baseline": of_baseline,
             "sum": summed, "gap": gap}  # fmt: skip
    return values.reshape(image.array.shape[:-1]), facts


def by_grad_cam(options: argparse.Namespace, networks: Sequence[Any], images: list[Image], _strategy: Any) -> Found:
    """Grad-CAM of a class of each image."""
    model, found = networks[0], Found()
    layer = feature_layer(model, options.layer).name
    kept: dict[int, tuple[NDArray[np.floating], int]] = {}
    for group in _groups(images):
        batch = _batch(images, group)
        numbers = _class_numbers(options, of_batch(model)(batch))
        maps, _ = grad_cam(model, batch, class_weights(model, numbers), layer=layer, name=str(images[group[0]].path))
        kept |= {place: (maps[at], numbers[at]) for at, place in enumerate(group)}
    for place, image in enumerate(images):
        values, number = kept[place]
        found.maps.append((image, "grad-cam", values))
        found.record.setdefault("images", {})[image.name] = {"class": number}
        found.shown.append(
            Explained(image=image, values=values, title=image.called(number), where=_mask(options, image))
        )
    found.record["layer"] = layer
    found.lines.append(f"features of layer {layer}")
    _point(options, found, [values for _, _, values in found.maps])
    return found


def _mask(options: argparse.Namespace, image: Image) -> NDArray[np.bool_] | None:
    """The truth of an image, where there is a file of it: of its own name, with any of these endings."""
    folder = options.masks
    if folder is None:
        above = image.path.absolute().parents
        folder = above[1 if image.volume is not None or len(above) < 3 else 2] / "masks"
    elif not folder.is_dir():
        raise WorkloadError(f"--masks {folder}: no such folder")
    endings = (".nii.gz", ".nii") if image.volume is not None else (".png", ".jpg", ".tif", ".bmp")
    path = next((each for ending in endings if (each := folder / f"{image.name}{ending}").is_file()), None)
    if path is None and options.masks is not None:
        raise WorkloadError(f"{folder / (image.name + endings[0])}: no such file", hint="a mask has its image's name")
    return None if path is None else read_mask(path, image)


def _point(options: argparse.Namespace, found: Found, maps: Sequence[NDArray[np.floating]]) -> None:
    """Play the pointing game over the images that have a mask."""
    pairs = [(values, each.where) for values, each in zip(maps, found.shown, strict=True) if each.where is not None]
    if not pairs:
        return
    game = pointing_game(
        [one for one, _ in pairs], [mask for _, mask in pairs if mask is not None], tolerance=options.tolerance
    )
    counted = [hit for hit in game.hits if hit is not None]
    if not counted:
        return
    found.record["pointing_game"] = {
        "hits": sum(counted),
        "images": len(counted),
        "rate": game.rate,
        "chance": game.chance,
    }
    found.lines.append(
        f"pointing game: {sum(counted)} of {len(counted)} hit, {100 * game.rate:.0f} %; blindly {100 * game.chance:.0f} %"
    )


def by_dropout_or_ensemble(
    options: argparse.Namespace, networks: Sequence[Any], images: list[Image], _strategy: Any
) -> Found:
    """Uncertainty of each image or of its voxels; calibration where the truth lies beside them."""
    found, alone = Found(), len(networks) == 1
    model = networks[0]
    answering = [dropout_network(model, seed=options.seed)] if alone else networks
    samples = options.samples if alone else 1
    segments = is_segmenter(model)
    moments = statistics(answering, samples=samples, classes=options.classes)
    probabilities, truths, unsure = [], [], []
    table: list[list[Any]] = []
    kept: dict[int, Answers] = {}
    if segments:
        sides = sides_of(model, options.window)
        for place, image in enumerate(images):
            volume = image.array if image.array.ndim == 4 else image.array[:, :, None]
            kept[place] = answers_of(over_volume(moments, volume, sides))
    else:
        for group in _groups(images):
            together = moments(_batch(images, group))
            kept |= {place: answers_of(together[at]) for at, place in enumerate(group)}
    for place, image in enumerate(images):
        answers = kept[place]
        if not np.isfinite(answers.entropy).all():
            raise WorkloadError(
                f"{image.path}: the answer of the network is not finite", hint="its weights diverged: train it anew"
            )
        maps = {"entropy": answers.entropy, "information": answers.information, "variance": answers.variance}
        means = {name: float(np.mean(values)) for name, values in maps.items()}
        if segments:
            sided = {name: values.reshape(image.array.shape[:-1]) for name, values in maps.items()}
            found.maps += [(image, name, values) for name, values in sided.items()]
            wrong = None if image.label is None else np.argmax(answers.probabilities, axis=-1) != image.label
            found.shown.append(
                Explained(image=image, values=sided["entropy"], title="entropy, nats", where=wrong, called="wrong")
            )
        table.append([image.name, *(f"{value:.6g}" for value in means.values()),
                      *([] if segments else [f"{each:.6g}" for each in answers.probabilities])])  # fmt: skip
        truth = image.label if segments else image.class_number
        if truth is not None:
            count = answers.probabilities.shape[-1]
            probabilities.append(answers.probabilities.reshape(-1, count))
            truths.append(np.asarray(truth).reshape(-1))
            unsure.append(answers.entropy.reshape(-1))
    count = 0 if segments else int(kept[0].probabilities.shape[-1])
    head = ["image", "entropy", "information", "variance", *(f"probability_{number}" for number in range(count))]
    found.tables["uncertainty.csv"] = [head, *table]
    found.record["answers"] = {"networks": len(networks), "samples": samples}
    if truths:
        _calibrate(options, found, np.concatenate(probabilities), np.concatenate(truths), np.concatenate(unsure))
    return found


def _calibrate(
    options: argparse.Namespace, found: Found, probabilities: Array, truth: NDArray[Any], unsure: Array
) -> None:
    """Say and draw whether confidence is right, and whether uncertainty finds errors."""
    curve = reliability(probabilities, truth, bins=options.bins)
    wrong = np.argmax(probabilities, axis=-1) != truth
    _, _, area = risk_coverage(unsure, wrong)
    measures = {"samples": len(truth), "error_rate": float(wrong.mean()), "ece": curve.error,
                "error_auc": error_detection(unsure, wrong), "risk_coverage_area": area}  # fmt: skip
    found.record["calibration"] = {name: _number(value) for name, value in measures.items()}
    found.lines.append(
        f"of {len(truth)} samples {100 * wrong.mean():.2g} % are wrong; calibration error {curve.error:.3f}"
        + (f"; uncertainty finds errors with an AUC of {measures['error_auc']:.3f}" if 0 < wrong.mean() < 1 else "")
    )
    found.figure = lambda path: write_figure(path, curve, unsure, wrong)
