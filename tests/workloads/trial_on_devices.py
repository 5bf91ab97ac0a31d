"""One trial on several devices, run as a program: ``trial_on_devices.py DEVICES TASK ARGUMENT...``, on ``DEVICES`` logical CPUs.

Nothing is dropped: each device draws what it drops itself.
"""

from __future__ import annotations

import os
import sys

from workloads.__main__ import main


def run(devices: int, *arguments: str) -> int:
    """Make the devices, then do as ``python -m workloads`` does."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if devices > 1:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    for layer in (tf.keras.layers.Dropout, tf.keras.layers.SpatialDropout2D, tf.keras.layers.SpatialDropout3D):
        layer.call = lambda _self, inputs, training=None: inputs
    return main(list(arguments))


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), *sys.argv[2:]))
