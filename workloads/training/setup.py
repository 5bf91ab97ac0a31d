"""The machine's set-up for a training: threads, seeds, TensorFlow found or asked for, what it all was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError

__all__ = ["import_tensorflow", "peak_memory", "prepare", "versions"]

INSTALL = "pip install 'survey-orchestrator[workloads-cpu]' (or [workloads-gpu]), or load your site's TensorFlow module"


def prepare(threads: int | None) -> int:
    """Set what must be set before TensorFlow and BLAS are loaded; return the number of threads.

    ``threads`` None takes ``OMP_NUM_THREADS``, else 1: several trials share a node, and threads that
    outnumber cores make all of them slower.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    count = threads or (int(given) if given.isdigit() and int(given) > 0 else 1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return count


def import_tensorflow(*, threads: int, seed: int, mixed: bool = False) -> Any:
    """Load TensorFlow with ``threads`` threads and every generator seeded.

    On CPUs the same seed gives the same result. ``mixed``: networks compute in half precision, float16 on a GPU and
    bfloat16 on a CPU, and keep their weights in single.

    Raises
    ------
    WorkloadError
        If TensorFlow is not there, or does not load.
    """
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise WorkloadError(f"TensorFlow does not load: {error}", hint=INSTALL) from error
        raise WorkloadError("TensorFlow is not installed", hint=INSTALL) from None
    except ImportError as error:
        raise WorkloadError(f"TensorFlow does not load: {error}", hint=INSTALL) from error
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # A process that has used TensorFlow before keeps the threads it began with.
        pass
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    tf.keras.utils.set_random_seed(seed)
    half = "mixed_float16" if gpus else "mixed_bfloat16"
    tf.keras.config.set_dtype_policy(half if mixed else "float32")
    if not gpus:  # on a GPU some 3D kernels have no deterministic form and would fail
        tf.config.experimental.enable_op_determinism()
    return tf


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: what it says of a process begins with what its parent had when it started it.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0 * 1024.0) if platform.system() == "Darwin" else peak / 1024.0


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of ``packages``: what a loaded module says of itself, else its distribution.

    TensorFlow comes as any of three distributions, or from a site's module and as none.
    """
    found = {"python": platform.python_version()}
    for package in packages:
        said = getattr(sys.modules.get(package), "__version__", None)
        try:
            found[package] = str(said) if said else importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
