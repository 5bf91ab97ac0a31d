"""One trial on several devices, run as a program: ``trial_on_devices.py DEVICES TASK ARGUMENT...``, on ``DEVICES`` logical CPUs."""

from __future__ import annotations

import os
import sys

from workloads.__main__ import main


def run(devices: int, *arguments: str) -> int:
    """Make the devices, then do as ``python -m workloads`` does."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return main(list(arguments))


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), *sys.argv[2:]))
