"""A training on several devices, run as a program: ``several_devices.py DEVICES STOP NETWORK PARTS`` prints each epoch's loss and weights.

``DEVICES`` logical CPUs in this process (several processes are the scheduler's variables' to tell);
``STOP`` is the epoch after which the first process asks for its end, 0: never; ``NETWORK`` is detector, segmenter or
dropping, of which blocks are computed again on the way back; each device computes its share of a batch in ``PARTS`` parts.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from workloads.losses import deep_supervision, detection_loss, segmentation_loss
from workloads.training.checkpoint import Checkpoints
from workloads.training.devices import is_chief, make_strategy
from workloads.training.loop import Arrays, make_optimizer, train


def main(devices: int, stop: int, network: str, parts: int) -> None:
    """Train a net with group normalisation and, but for ``dropping``, without dropout for four epochs of eleven samples, eight a batch."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf
    from tensorflow import keras

    cpu = tf.config.list_physical_devices("CPU")[0]
    if devices > 1:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    # Several processes: the strategy must be the first that is done with TensorFlow.
    strategy = make_strategy()
    keras.utils.set_random_seed(3)
    with strategy.scope():
        inputs = keras.Input((8, 8, 8, 1))
        x = keras.layers.Conv3D(4, 3, padding="same")(inputs)
        x = keras.layers.ReLU()(keras.layers.GroupNormalization(2)(x))
        if network == "dropping":
            for _ in range(3):
                x = keras.layers.SpatialDropout3D(0.3)(keras.layers.Conv3D(4, 3, padding="same")(x))
        model = keras.Model(inputs, keras.layers.Conv3D(1, 1)(x))
        loss = detection_loss(positive_weight=3.0, dice_weight=0.3)
        if network == "segmenter":
            model = keras.Model(inputs, keras.layers.Conv3D(4, 1)(x))  # two answers for two classes
            loss = deep_supervision(segmentation_loss(), 2)
        optimizer = make_optimizer("adam", learning_rate=0.01, momentum=0.9, weight_decay=1e-3, steps=8)
    rng = np.random.default_rng(0)
    asked = []

    def epoch_data(_epoch: int) -> Arrays:
        images = rng.normal(size=(11, 8, 8, 8, 1)).astype(np.float32)
        # The last batch has three samples: on four devices one has nothing to do.
        targets = (images > 1).astype(np.float32)
        return images, np.concatenate([1 - targets, targets], axis=-1) if network == "segmenter" else targets

    def after_epoch(epoch: int, _loss: float) -> bool:
        asked.append(epoch)
        return epoch == stop

    trained = train(
        model,
        optimizer=optimizer,
        loss=loss,
        epoch_data=epoch_data,
        epochs=4,
        batch_size=8,
        after_epoch=after_epoch,
        checkpoints=Checkpoints({"test": 1}),
        generators={"data": rng},
        strategy=strategy,
        accumulate=parts,
        recompute=network == "dropping",
    )
    weights = float(sum(np.abs(np.asarray(weight)).sum() for weight in model.get_weights()))
    told = {"devices": strategy.num_replicas_in_sync, "losses": trained.losses, "weights": weights}
    print(json.dumps({**told, "stopped": trained.stopped, "asked": asked, "chief": is_chief(strategy)}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
