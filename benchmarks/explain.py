"""What Integrated Gradients cost: one batched graph beside a loop over the steps, and on several devices beside one.

    python benchmarks/explain.py [--rounds 5] [--devices 2 4]

CPU seconds of this process, all within one run and one thread, 200 steps of one image. ``eager``: a gradient for each
step, as one writes it first. ``graph``: the same gradient as a `tf.function`, called for each step. Rounds of both
alternate with ours; figures are medians over rounds, and of eager one round. ``devices``: logical CPUs, which share the
machine's cores, so that they show what spreading costs and not what it gains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from workloads.explain.integrated_gradients import integrated_gradients, path_integral
from workloads.training.setup import import_tensorflow, prepare

STEPS = 200
SIZES = {"2D 32^2 x 3": (32, 32, 3), "3D 16^3": (16, 16, 16, 1), "3D 32^3": (32, 32, 32, 1)}
SPREAD = {**SIZES, "3D 64^3": (64, 64, 64, 1)}


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads: other programs on the machine do not count."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def classifier(shape: tuple[int, ...]) -> Any:
    """Three convolutions and a dense layer for three classes."""
    from tensorflow import keras

    layers = keras.layers
    flat = len(shape) == 3
    convolution, pooling = (
        (layers.Conv2D, layers.AveragePooling2D) if flat else (layers.Conv3D, layers.AveragePooling3D)
    )
    x = inputs = keras.Input(shape)
    for width in (8, 16):
        x = pooling(2)(convolution(width, 3, padding="same", activation="relu")(x))
    x = convolution(16, 3, padding="same", activation="relu")(x)
    pooled = (layers.GlobalAveragePooling2D if flat else layers.GlobalAveragePooling3D)()(x)
    return keras.Model(inputs, layers.Dense(3)(pooled))


def case(shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
    """A network, an image, a baseline and the weights of class 1."""
    rng = np.random.default_rng(0)
    image, baseline = rng.normal(size=(2, 1, *shape)).astype(np.float32)
    return classifier(shape), image, baseline, np.eye(3, dtype=np.float32)[[1]]


def loops(name: str, rounds: int) -> dict[str, Any]:
    """Ours beside both loops over the steps."""
    import tensorflow as tf

    model, image, baseline, weights = case(SIZES[name])
    alphas = (np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS
    x, start = tf.constant(image), tf.constant(baseline)

    def gradient(point: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(point)
            answer = model(point, training=False)[:, 1]
        return tape.gradient(answer, point)

    def over(step: Callable[[Any], Any]) -> Any:
        total = tf.zeros_like(x)
        for alpha in alphas:
            total = total + step(start + alpha * (x - start))
        return total * (x - start) / STEPS

    step = tf.function(gradient)
    path = path_integral(model)

    def ours() -> Any:
        return integrated_gradients(model, image, baseline, weights, steps=STEPS, path=path).values

    both = over(step).numpy(), ours()
    eager = seconds(lambda: over(gradient))
    pairs = [(seconds(lambda: over(step)), seconds(ours)) for _ in range(rounds)]
    graph, mine = (statistics.median(each) for each in zip(*pairs, strict=True))
    return {
        "size": name,
        "eager_s": round(eager, 3),
        "graph_s": round(graph, 3),
        "ours_s": round(mine, 4),
        "over_eager": round(eager / mine, 1),
        "over_graph": round(statistics.median([each / own for each, own in pairs]), 2),
        "difference": float(np.abs(both[0] - both[1]).max() / np.abs(both[0]).max()),
    }


def spread(name: str, counts: list[int], rounds: int) -> dict[str, Any]:
    """Ours on several devices over ours on one, medians of ratios within a round."""
    import tensorflow as tf

    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    model, image, baseline, weights = case(SPREAD[name])
    strategies = {count: tf.distribute.MirroredStrategy(names[:count]) for count in counts}
    paths = {1: path_integral(model)} | {count: path_integral(model, each) for count, each in strategies.items()}

    def run(count: int) -> Any:
        return integrated_gradients(model, image, baseline, weights, steps=STEPS, path=paths[count]).values

    for count in paths:
        run(count)
    times = [{count: seconds(lambda count=count: run(count)) for count in paths} for _ in range(rounds)]  # type: ignore[misc]
    ratios = {f"on_{count}": round(statistics.median([each[count] / each[1] for each in times]), 3) for count in counts}
    return {"size": name, "on_1_s": round(statistics.median([each[1] for each in times]), 3), **ratios}


def main() -> None:
    """Measure and print, a JSON line a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, nargs="*", default=[2, 4])
    options = parser.parse_args()
    threads = prepare(1)
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    several = [tf.config.LogicalDeviceConfiguration()] * max([1, *options.devices])
    tf.config.set_logical_device_configuration(cpu, several)
    import_tensorflow(threads=threads, seed=0)
    for name in SIZES:
        print(json.dumps(loops(name, options.rounds)), flush=True)
    for name in SPREAD if options.devices else ():
        print(json.dumps(spread(name, options.devices, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
