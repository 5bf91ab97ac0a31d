"""Which nodes a training was given, and which of its processes this one is: from the scheduler, for ``TF_CONFIG``.

TensorFlow's own resolver for Slurm divides by a node's GPUs and fails where there are none; for the other
schedulers it has none. A launcher (srun, mpirun) starts one process a node, or several; all of them find the
same list in the same order, and themselves in it by their rank.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from workloads.errors import WorkloadError

__all__ = ["expand", "processes", "rank", "tensorflow_config"]

_RANKS = (
    # rank, how many: as the launcher tells each process it starts
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
_FILES = ("PBS_NODEFILE", "PE_HOSTFILE", "PJM_O_NODEINF")
_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
_PORTS = 20_000, 12_000  # from, how many: below the ports that a kernel hands out by itself
_RANGE = re.compile(r"(\d+)(?:-(\d+))?$")


def rank(environ: Mapping[str, str]) -> tuple[int, int]:
    """Which of the launcher's processes this is, from 0, and how many they are; (0, 1) without a launcher."""
    for own, all_ in _RANKS:
        if environ.get(own, "").isdigit() and environ.get(all_, "").isdigit():
            return int(environ[own]), int(environ[all_])
    return 0, 1


def processes(environ: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Host of each of ``count`` processes, by rank.

    Raises
    ------
    WorkloadError
        If the scheduler does not name the nodes, or they do not divide the processes among them.
    """
    hosts = _hosts(environ)
    if len(hosts) == count:
        return hosts
    nodes = tuple(dict.fromkeys(hosts))
    if not nodes or count % len(nodes):
        raise WorkloadError(
            f"{count} processes were started on {len(nodes)} nodes ({', '.join(nodes) or 'none is named'})",
            hint="start as many on each node, e.g. srun --ntasks-per-node=1; or set TF_CONFIG yourself",
        )
    return tuple(node for node in nodes for _ in range(count // len(nodes)))


def tensorflow_config(environ: Mapping[str, str] | None = None) -> str | None:
    """``TF_CONFIG`` for this process; None if it is alone, and the given one if there is one.

    The ports follow from the attempt's tag, so that two trainings on one node do not meet.

    Raises
    ------
    WorkloadError
        As `processes`.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get("TF_CONFIG"):
        return given
    index, count = rank(environ)
    if count == 1:
        return None
    hosts = processes(environ, count)
    name = environ.get("SURVEY_TAG") or next((environ[key] for key in (*_FILES, *_LISTS) if environ.get(key)), "")
    first, room = _PORTS
    port = first + zlib.crc32(name.encode()) % (room // count) * count
    workers = [f"{host}:{port + number}" for number, host in enumerate(hosts)]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def expand(hosts: str) -> tuple[str, ...]:
    """Names in Slurm's short form, ``gpu[01-03,7],login1``, one by one.

    Raises
    ------
    ValueError
        If it is not of that form.
    """
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hosts):
        pieces = re.split(r"\[([^\]]*)\]", part)
        made = [pieces[0]]
        for inner, after in zip(pieces[1::2], pieces[2::2], strict=True):
            made = [f"{name}{number}{after}" for name in made for number in _numbers(inner)]
        names.extend(made)
    return tuple(names)


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        found = _RANGE.match(part.strip())
        if found is None:
            raise ValueError(f"not a list of numbers: [{ranges}]")
        first, last = found[1], found[2] or found[1]
        numbers.extend(f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return numbers


def _hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    for name in _LISTS:
        if environ.get(name):
            return expand(environ[name])
    for name in _FILES:
        if environ.get(name):
            try:
                lines = Path(environ[name]).read_text(encoding="utf-8").splitlines()
            except OSError as error:
                raise WorkloadError(
                    f"the scheduler's list of nodes, {environ[name]}, cannot be read: {error}"
                ) from error
            return tuple(line.split()[0] for line in lines if line.strip())
    return ()
