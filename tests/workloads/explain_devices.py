"""Integrated Gradients on several devices, run as a program: ``explain_devices.py DEVICES`` prints how far they are from one."""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from workloads.explain import integrated_gradients as module


def main(devices: int) -> None:
    """Explain two images by 23 steps, which no number of devices divides, alone and spread."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf
    from tensorflow import keras

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
    keras.utils.set_random_seed(1)
    with strategy.scope():
        inputs = keras.Input((6, 6, 6, 1))
        x = keras.layers.Conv3D(4, 3, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    rng = np.random.default_rng(0)
    images, baselines = rng.normal(size=(2, 2, 6, 6, 6, 1)).astype(np.float32)
    weights = np.eye(2, dtype=np.float32)
    alone = module.integrated_gradients(model, images, baselines, weights, steps=23)
    module.SPLIT_VALUES = 1
    spread = module.integrated_gradients(model, images, baselines, weights, steps=23, strategy=strategy)
    difference = float(np.abs(alone.values - spread.values).max() / np.abs(alone.values).max())
    told = {"devices": strategy.num_replicas_in_sync, "difference": difference, "gap": float(spread.gaps.max())}
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
