"""The shapes of job whose scripts are kept in ``golden/``, one folder for each site."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.site import BatchOptions, Site
from orchestrator.errors import UsageError
from orchestrator.jobs.placement import place
from orchestrator.jobs.script import ScriptRequest, render, wrap_command
from orchestrator.model import Resources

__all__ = ["FOLDER", "SHAPES", "Shape", "text_of"]

FOLDER = Path(__file__).with_name("golden")
COMMAND = ("python", "-m", "train", "--data", "/work/data sets")


@dataclass(frozen=True)
class Shape:
    """What one golden file asks for."""

    resources: Resources
    batch: Mapping[str, object] = field(default_factory=dict)
    sites: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # what is asked for in another way there
    attempts: int = 1
    array: int | None = None


SHAPES = {
    "one-gpu": Shape(Resources(gpus=1, cpus=8, memory=32 * 1024, walltime=2 * 3600)),
    "four-gpus": Shape(Resources(gpus=4, cpus=16, walltime=24 * 3600)),
    "two-nodes": Shape(Resources(gpus=1, cpus=16, walltime=12 * 3600, nodes=2)),
    "packed": Shape(
        Resources(gpus=1, cpus=8, walltime=2 * 3600),
        {"pack": "auto"},
        # Where single GPUs are sold for as much as a part of a node, a packed node is chosen by name.
        {
            "flow-type2": {"queue": "cx-single"},
            "tsubame4": {"queue": "node_f"},
            "wisteria-aquarius": {"queue": "regular-a"},
            **{name: {"pack": 4} for name in ("genkai", "gridengine", "local", "pbs", "pjm", "slurm")},
        },
        attempts=8,
    ),
    "packed-by-three": Shape(Resources(gpus=1, cpus=8, walltime=2 * 3600), {"pack": 3}, attempts=3),
    "container": Shape(
        Resources(gpus=1, cpus=8, walltime=2 * 3600),
        {
            "container": {"image": "/work/images/train.sif", "binds": ["/data"]},
            "modules": ["cuda/12.4"],
            "setup": ["export TF_CPP_MIN_LOG_LEVEL=1"],
        },
    ),
    "array": Shape(Resources(gpus=1, cpus=8, walltime=2 * 3600), array=2),
}


def text_of(site: Site, shape: Shape) -> tuple[str, str]:
    """Text and suffix of a golden file: the script with the command it leads to, or the refusal."""
    batch = BatchOptions.model_validate({"group": "gx01", **shape.batch, **shape.sites.get(site.name, {})})
    python = "/opt/survey/bin/python" if site.python is None else site.python
    try:
        placement = place(site, shape.resources, batch, attempts=shape.attempts)
        count = placement.pack * (shape.array or 1)
        request = ScriptRequest(
            tag="t00007-k3j9x2q8",
            directories=tuple(f"/work/study/trials/{7 + number:05d}/attempt-1" for number in range(count)),
            agent="/work/study/lib/1f3a9c/agent.py",
            python=python,
            study="aneurysm",
            output_dir="/work/study/trials/00007/attempt-1",
            array=shape.array,
        )
        script = render(site, placement, batch, request)
    except UsageError as error:
        return f"{error}\n", ".txt"
    command = wrap_command(batch, site, COMMAND, shape.resources, binds=("/work/study",))
    shown = command if isinstance(command, str) else shlex.join(command)
    return f"{script}\n# The agent starts: {shown}\n", ".sh"
