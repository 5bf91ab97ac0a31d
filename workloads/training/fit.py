"""The largest patch and batch that a training step of a task fits into this device: ``python -m workloads TASK --fit``.

Each size is tried by one step in a process of its own, on random numbers: a process that runs out of memory, or goes
over the limit, is ended and says that its size does not fit.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from workloads.errors import WorkloadError
from workloads.training.step import add_memory_arguments, check_memory_options

__all__ = ["Patch", "Probe", "Step", "Tried", "add_arguments", "available_memory", "largest", "probe", "run", "table"]

OUT_OF_MEMORY = {"MemoryError", "ResourceExhaustedError"}

Patch = tuple[int, ...]
Probe = Callable[[Patch, int], "Tried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One size that was tried.

    Attributes
    ----------
    memory : float
        Peak of the process in MiB.
    seconds : float
        Of one step, after a first one; NaN where it does not fit.
    """

    fits: bool
    memory: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a task trains in one step.

    Attributes
    ----------
    run : callable
        Trains one step of a patch and a batch size, and another; returns the seconds of the second. Takes
        ``accumulate`` and ``recompute`` too, as `workloads.training.loop.train` does. It is the first in its
        process to load TensorFlow.
    patch : tuple of int
        The task's default.
    multiple : int
        Of which the sides of a patch have to be multiples.
    """

    run: Callable[..., float]
    patch: Patch
    multiple: int


def available_memory() -> float:
    """MiB that a program may take now: what the machine has free, or the control group leaves, whichever is less."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = float(line.split()[1]) / 1024.0
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup", name)
        text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
        if text.isdigit():
            free = min(free, float(text) / 2**20)
    return free


def _resident(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def probe(step: Callable[[Patch, int], float], *, memory: float, seconds: float) -> Probe:
    """A `Probe` that runs ``step`` in a child process and ends it above ``memory`` MiB or after ``seconds``.

    Raises
    ------
    WorkloadError
        From the probe, if a step fails for another reason than memory.
    """

    def attempt(patch: Patch, batch: int) -> Tried:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _in_child(writing, step, patch, batch)
        os.close(writing)
        peak, begun, ended = 0.0, time.monotonic(), False
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                break
            peak = max(peak, _resident(child))
            if not ended and (peak > memory or time.monotonic() - begun > seconds):
                ended = True
                os.kill(child, signal.SIGKILL)
            time.sleep(0.05)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read().decode(errors="replace")
        if answer.startswith("error: "):
            raise WorkloadError(f"a step of {batch} patches of {patch} fails: {answer.removeprefix('error: ')}")
        peak = max(peak, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024.0))
        fits = status == 0 and bool(answer) and peak <= memory
        return Tried(fits=fits, memory=peak, seconds=float(answer) if fits else float("nan"))

    return attempt


def _in_child(pipe: int, step: Callable[[Patch, int], float], patch: Patch, batch: int) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow has much to say when memory runs out
        os.write(pipe, str(step(patch, batch)).encode())
        code = 0
    except BaseException as error:
        if type(error).__name__ not in OUT_OF_MEMORY:
            os.write(pipe, f"error: {error or type(error).__name__}".encode()[:2000])
    finally:
        os._exit(code)


def _sides(start: Patch, multiple: int) -> Iterator[Patch]:
    """``start``, and then each side half as much again, in multiples, without an end."""
    patch = start
    while True:
        yield patch
        patch = tuple(-(-side * 3 // 2 // multiple) * multiple for side in patch)


def largest(attempt: Probe, start: Patch, *, multiple: int, most: int) -> list[tuple[Patch, int, Tried]]:
    """For each patch from ``start`` on that fits at all, the largest batch of 1, 2, 4, ... up to ``most`` that fits.

    Raises
    ------
    WorkloadError
        If one patch of the size ``start`` does not fit.
    """
    found: list[tuple[Patch, int, Tried]] = []
    for patch in _sides(start, multiple):
        best: tuple[Patch, int, Tried] | None = None
        batch = 1
        # A larger patch takes no larger batch than a smaller one did.
        while batch <= (found[-1][1] if found else most):
            tried = attempt(patch, batch)
            if not tried.fits:
                break
            best = (patch, batch, tried)
            batch *= 2
        if best is None:
            break
        found.append(best)
    if not found:
        raise WorkloadError(
            f"not even one patch of {start} fits", hint="choose a smaller --patch, a narrower network, or more --memory"
        )
    return found


def table(found: Sequence[tuple[Patch, int, Tried]]) -> str:
    """What `largest` found, for people."""
    lines = ["patch              largest batch   peak memory   seconds a step"]
    for patch, batch, tried in found:
        size = " x ".join(str(side) for side in patch)
        lines.append(f"{size:<18} {batch:>13}   {tried.memory:>7.0f} MiB   {tried.seconds:>14.3f}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser, step: Step) -> None:
    """Say what the command line may have besides ``--fit``."""
    parser.add_argument(
        "--patch", type=int, nargs=len(step.patch), default=step.patch, metavar="N", help="to begin with"
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="the largest of interest (default: 64)")
    parser.add_argument("--memory", type=float, metavar="MIB", help="not more than this (default: 0.9 of what is free)")
    parser.add_argument("--seconds", type=float, default=120.0, help="for one size, then it is too slow (default: 120)")
    add_memory_arguments(parser)


def run(options: argparse.Namespace, step: Step) -> None:
    """Try sizes and print what fits.

    Raises
    ------
    WorkloadError
        If an option cannot be, or nothing fits.
    """
    patch = tuple(options.patch)
    if any(side < step.multiple or side % step.multiple for side in patch):
        raise WorkloadError(f"--patch must be of multiples of {step.multiple}, not {patch}")
    memory = 0.9 * available_memory() if options.memory is None else options.memory
    if min(memory, options.seconds, options.batch) <= 0:
        raise WorkloadError("--memory, --seconds and --batch must be positive")
    check_memory_options(options)
    print(f"within {memory:.0f} MiB and {options.seconds:g} s:", flush=True)  # noqa: T201 - the answer to --fit
    run_step = functools.partial(step.run, accumulate=options.accumulate, recompute=options.recompute)
    attempt = probe(run_step, memory=memory, seconds=options.seconds)
    print(table(largest(attempt, patch, multiple=step.multiple, most=options.batch)))  # noqa: T201 - as above
