"""One trial of a classifier, from the command line to the result: what all classification tasks share.

Images of the training cases train a network that gives each image its class; the balanced accuracy over the
validation cases is the objective. A task says how its data are read, which network, and how images are varied.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator import trial
from workloads.data.dataset import checksum
from workloads.data.labelled import Labelled, Samples, check_classes, load_samples
from workloads.data.splits import Split, read_patients, read_split
from workloads.errors import WorkloadError
from workloads.evaluation.classification import Classified, Shown, intervals, summarise, write_artifacts
from workloads.parameters import Parameter, resolve
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import is_chief, make_strategy, total, wait_for_chief
from workloads.training.loop import Arrays, Trained, make_optimizer, train
from workloads.training.setup import import_tensorflow, peak_memory, prepare, versions
from workloads.trials.patches import seed_of

__all__ = ["BALANCES", "OBJECTIVE", "ClassificationTask", "add_arguments", "class_weights", "epoch_order", "run"]

OBJECTIVE = "balanced_accuracy"
BALANCES = ("none", "weights", "oversampling", "undersampling")
AT_ONCE = 32  # images that are classified at once: memory is bound by them

Images = NDArray[np.float32]


def _unchanged(_rng: np.random.Generator, images: Images, _settings: Mapping[str, Any]) -> Images:
    return images


def _alone(_rng: np.random.Generator, samples: Samples, _settings: Mapping[str, Any]) -> Samples:
    return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationTask:
    """What makes a classification task.

    Attributes
    ----------
    parameters : tuple of Parameter
        What is searched.
    fixed : mapping
        What is not: together they give ``learning_rate``, ``batch_size``, ``weight_decay``, ``balance`` (one of
        `BALANCES`), and what the functions below want to know.
    open : callable
        The data set that the command line names.
    build : callable
        The network of a set of hyperparameters, for the shape of an image and a number of classes: to logits.
    show : callable
        An image, as the network sees it, to how people see it.
    augment : callable
        Images of an epoch, the same one several times among them, to varied ones.
    multiply : callable
        The training samples to those and others made of them, once before the training.
    epochs : int
        Default of the training's length.
    """

    parameters: tuple[Parameter, ...]
    open: Callable[[argparse.Namespace], Labelled]
    build: Callable[[Mapping[str, Any], tuple[int, ...], int], Any]
    show: Callable[[Images], Shown]
    epochs: int
    augment: Callable[[np.random.Generator, Images, Mapping[str, Any]], Images] = _unchanged
    multiply: Callable[[np.random.Generator, Samples, Mapping[str, Any]], Samples] = _alone
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """The cases of a split, in memory; patients are of all cases of the data set."""

    labelled: Labelled
    split: Split
    patients: Mapping[str, str]
    parts: Mapping[str, Samples]
    checksum: str


def add_arguments(task: ClassificationTask, parser: argparse.ArgumentParser, *, data: str) -> None:
    """Say what the command line of a classifier's trial may have; ``data`` is what its data folder holds."""
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {data}")
    parser.add_argument("--split", type=Path, help="split file (default: splits.json of the data folder)")
    parser.add_argument("--fold", type=int, help="of a split file with folds, from 1 (default: the trial's run)")
    parser.add_argument("--epochs", type=int, default=task.epochs, help="(default: %(default)s)")
    parser.add_argument("--mixed", action="store_true", help="compute in half precision, keep weights in single")
    parser.add_argument("--report-every", type=int, default=5, metavar="EPOCHS", help="validate after so many epochs")
    parser.add_argument("--test", action="store_true", help="evaluate the test cases too: for the final choice alone")
    parser.add_argument("--threads", type=int, help="CPU threads (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--seed", type=int, help="default: the trial's seed, else 0")
    parser.add_argument("--out", type=Path, help="folder of the artifacts (default: the trial's)")


def run(task: ClassificationTask, options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Train and validate one classifier and report it; ahead of the walltime as in `workloads.trials.detection.run`.

    Raises
    ------
    WorkloadError
        If the data, a parameter or an option cannot be used; before any training.
    """
    params = resolve(task.parameters, given)
    settings = {**task.fixed, **params}
    for name in ("epochs", "report_every"):
        if getattr(options, name) < 1:
            raise WorkloadError(f"--{name.replace('_', '-')} must be at least 1")
    threads = prepare(options.threads)
    seed = seed_of(options)
    data = _read(task, options)
    import_tensorflow(threads=threads, seed=seed, mixed=options.mixed)
    strategy = make_strategy()
    with strategy.scope():
        model = task.build(settings, data.parts["train"].images.shape[1:], len(data.labelled.classes))
    classify = _classifier(model)

    def examine(part: str) -> Classified:
        samples = data.parts[part]
        return Classified(
            names=samples.names,
            classes=data.labelled.classes,
            truth=samples.classes,
            probabilities=classify(samples.images),
            patients=tuple(data.patients[name] for name in samples.names),
        )

    trained = _train(
        task,
        model,
        data,
        options,
        settings,
        params=params,
        seed=seed,
        measure=lambda: summarise(examine("validation"))[OBJECTIVE],
        strategy=strategy,
    )
    if not is_chief(strategy):
        wait_for_chief(strategy)
        return
    found = examine("validation")
    metrics = {**summarise(found), "train_seconds": trained.seconds}
    trial.report(len(trained.losses), metrics[OBJECTIVE])
    out = options.out or Path(trial.artifacts_dir())
    write_artifacts(out, found, lambda index: task.show(data.parts["validation"].images[index]))
    if options.test:
        tested = examine("test")
        metrics.update({f"test_{name}": value for name, value in summarise(tested).items()})
        write_artifacts(out / "test", tested, lambda index: task.show(data.parts["test"].images[index]))
    model.save(out / "model.keras")
    measured = {f"{name}_interval": asdict(each) for name, each in intervals(found).items()}
    trial.finish(metrics, {**measured, **_record(data, trained, params=params, seed=seed, strategy=strategy)})
    wait_for_chief(strategy)


def _read(task: ClassificationTask, options: argparse.Namespace) -> _Data:
    labelled = task.open(options)
    dataset = labelled.dataset
    run_of_trial = trial.run() if trial.runs() > 1 else None
    split = read_split(options.split or dataset.root / "splits.json", dataset, fold=options.fold, run=run_of_trial)
    if options.test and not split.test:
        raise WorkloadError("the split has no test cases", hint='name some as "test", or leave out --test')
    names = {"train": split.train, "validation": split.validation, **({"test": split.test} if options.test else {})}
    check_classes(labelled, split, names)
    order = tuple(name for part in names.values() for name in part)
    everything = load_samples(labelled, order)
    parts, begin = {}, 0
    for part, those in names.items():
        cut = slice(begin, begin + len(those))
        parts[part] = Samples(names=those, images=everything.images[cut], classes=everything.classes[cut])
        begin += len(those)
    return _Data(
        labelled=labelled,
        split=split,
        patients=read_patients(dataset),
        parts=parts,
        checksum=checksum(dataset, order),
    )


def class_weights(classes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Weight of each of ``count`` classes, all of equal weight together; the mean weight of ``classes`` is 1."""
    return np.asarray(len(classes) / (count * np.bincount(classes, minlength=count)))


def epoch_order(rng: np.random.Generator, classes: NDArray[np.int64], balance: str) -> NDArray[np.int64]:
    """Which samples an epoch trains on, in random order.

    Parameters
    ----------
    balance : str
        ``oversampling``: of each class as many as of the commonest, those of rarer ones again and again;
        ``undersampling``: of each as many as of the rarest, others in each epoch; else all of them once.
    """
    if balance not in {"oversampling", "undersampling"}:
        return rng.permutation(len(classes))
    counts = np.unique(classes, return_counts=True)[1]
    wanted = int(counts.max() if balance == "oversampling" else counts.min())
    chosen = []
    for number in np.unique(classes):
        mine = np.flatnonzero(classes == number)
        # Each as often as the others, but for one; which ones that are, chance says.
        turns = [rng.permutation(mine) for _ in range(math.ceil(wanted / len(mine)))]
        chosen.append(np.concatenate(turns)[:wanted])
    return rng.permutation(np.concatenate(chosen))


def _train(
    task: ClassificationTask,
    model: Any,
    data: _Data,
    options: argparse.Namespace,
    settings: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    seed: int,
    measure: Callable[[], float],
    strategy: Any,
) -> Trained:
    """Train ``model``, go on from the trial's checkpoint if there is one, report on the way."""
    count = len(data.labelled.classes)
    # Made again, alike, by an attempt that goes on.
    samples = task.multiply(np.random.default_rng([seed, 1]), data.parts["train"], settings)
    weights = class_weights(samples.classes, count) if settings["balance"] == "weights" else np.ones(count)
    what = {"params": params, "seed": seed, "data": data.checksum, "split": [data.split.train, data.split.validation]}
    what |= {"epochs": options.epochs, "shape": samples.images.shape, "mixed": options.mixed}
    rng = np.random.default_rng(seed)

    def draw(_epoch: int) -> Arrays:
        order = epoch_order(rng, samples.classes, settings["balance"])
        targets = np.eye(count, dtype=np.float32)[samples.classes[order]]
        images = task.augment(rng, samples.images[order], settings)
        return images, targets * weights[samples.classes[order], None].astype(np.float32)

    def after_epoch(epoch: int, _loss: float) -> bool:
        if epoch % options.report_every == 0 and epoch < options.epochs:
            trial.report(epoch, measure())
        return trial.should_stop()

    length = len(epoch_order(np.random.default_rng(0), samples.classes, settings["balance"]))
    with strategy.scope():
        optimizer = make_optimizer(
            "adam",
            learning_rate=settings["learning_rate"],
            momentum=0.9,
            weight_decay=settings["weight_decay"],
            steps=options.epochs * math.ceil(length / settings["batch_size"]),
        )
    trained = train(
        model,
        optimizer=optimizer,
        loss=_cross_entropy,
        epoch_data=draw,
        epochs=options.epochs,
        batch_size=settings["batch_size"],
        after_epoch=after_epoch,
        checkpoints=Checkpoints(what),
        generators={"data": rng},
        strategy=strategy,
    )
    if trained.stopped and trial.stop_reason() == "walltime":
        trial.requeue()
    return trained


def _cross_entropy(targets: Any, logits: Any) -> Any:
    """Mean cross-entropy of a batch; each target, (batch, classes), holds its sample's weight at its class."""
    import tensorflow as tf

    # Not TensorFlow's own of labels: the gradient of that is right for targets that add up to one alone.
    entropy = -tf.reduce_sum(targets * tf.nn.log_softmax(logits))
    count = tf.cast(tf.shape(targets)[0], targets.dtype)
    summed = total(tf.stack([entropy, count]))
    return summed[0] / tf.maximum(summed[1], 1.0)


def _classifier(model: Any) -> Callable[[Images], NDArray[np.float64]]:
    """A Keras model as a function of images to probabilities; of a network that diverged all are equal."""
    import tensorflow as tf

    signature = [tf.TensorSpec(model.input_shape, tf.float32)]
    graph = tf.function(
        lambda images: tf.cast(model(images, training=False), tf.float32), input_signature=signature, autograph=False
    )

    def probabilities(images: Images) -> NDArray[np.float64]:
        starts = range(0, len(images), AT_ONCE)
        logits = np.concatenate([np.asarray(graph(tf.constant(images[at : at + AT_ONCE]))) for at in starts])
        finite = np.isfinite(logits).all(axis=1, keepdims=True)
        return np.asarray(special.softmax(np.where(finite, logits, 0.0).astype(np.float64), axis=1))

    return probabilities


def _record(data: _Data, trained: Trained, *, params: Mapping[str, Any], seed: int, strategy: Any) -> dict[str, Any]:
    """What the result says of a training besides its metrics."""
    classes = data.labelled.classes
    return {
        "classes": list(classes),
        "cases": {
            part: {name: int(np.count_nonzero(samples.classes == number)) for number, name in enumerate(classes)}
            for part, samples in data.parts.items()
        },
        "diverged": trained.diverged,
        "stopped": trained.stopped,
        "losses": [round(value, 5) for value in trained.losses if np.isfinite(value)],
        "seed": seed,
        "params": params,
        **({"fold": data.split.fold} if data.split.fold else {}),
        "data": data.checksum,
        "versions": versions("tensorflow", "keras", "numpy", "survey-orchestrator"),
        "peak_memory_mib": round(peak_memory(), 1),
        "devices": strategy.num_replicas_in_sync,
    }
