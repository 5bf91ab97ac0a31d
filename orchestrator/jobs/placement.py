"""Which queue a job goes to, how much of it the job takes, and how many attempts share the job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.config.loading import did_you_mean
from orchestrator.config.units import format_duration
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.site import BatchOptions, Queue, Site
    from orchestrator.model import Resources

__all__ = ["Placement", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One job's place.

    Attributes
    ----------
    queue : str or None
        None where the scheduler's own default is meant.
    unit : str
        What the queue hands out (`orchestrator.config.site.Queue.unit`); ``units`` of them are taken.
    gpus, cpus, memory :
        What the job gets on each node; memory in MiB, None where nothing is asked for.
    walltime : int or None
        Seconds.
    pack : int
        Attempts that run side by side in the job.
    charge : float
        Units times weight: what an hour of the job costs in the site's own measure.
    """

    queue: str | None
    unit: str
    units: int
    nodes: int
    gpus: int
    cpus: int
    memory: int | None
    walltime: int | None
    pack: int = 1
    charge: float = 0.0


def place(site: Site, resources: Resources, batch: BatchOptions, *, attempts: int = 1) -> Placement:
    """Find the cheapest queue that takes the job; the first in the site's file among equals.

    Parameters
    ----------
    resources : Resources
        Of one attempt.
    attempts : int
        How many attempts wait for a place: a job packs no more than these.

    Raises
    ------
    UsageError
        If no queue takes it; the message has each queue with the reason.
    """
    site.group_of(batch)
    if resources.nodes > 1 and batch.pack not in (1, "auto"):
        raise UsageError(
            f"`batch: pack: {batch.pack}` and `resources: nodes: {resources.nodes}` exclude each other",
            hint="Only attempts of one node can share a job.",
        )
    if site.max_nodes is not None and resources.nodes > site.max_nodes:
        raise UsageError(
            f"a job on site {site.name} has at most {_units(site.max_nodes, 'node')}, not {resources.nodes}",
            hint="Set `resources: nodes:` in study.yaml, or `max_nodes:` in a site file of your own.",
        )
    if not site.queues:
        return _unlisted(resources, batch, attempts)
    found: list[Placement] = []
    refusals: list[str] = []
    for queue in _candidates(site, batch):
        answer = _fit(queue, resources, _packed(queue, resources, batch, attempts))
        if isinstance(answer, str):
            refusals.append(f"{queue.name} (by {queue.unit}): {answer}")
        else:
            found.append(answer)
    if not found:
        raise UsageError(
            f"no queue of site {site.name} takes {_wish(resources, batch, attempts)}:\n  " + "\n  ".join(refusals),
            hint="Change `resources:` in study.yaml, or correct the queue in a site file with `extends: "
            f"{site.name}` if the site's limits have changed.",
        )
    return min(found, key=lambda placement: placement.charge / placement.pack)


def _candidates(site: Site, batch: BatchOptions) -> Sequence[Queue]:
    if batch.queue is None:
        usual = [queue for queue in site.queues if not queue.only_by_name]
        if usual:
            return usual
        raise UsageError(
            f"site {site.name} chooses no queue by itself",
            hint=f"Set `batch: queue:` to one of {', '.join(dict.fromkeys(queue.name for queue in site.queues))}.",
        )
    named = [queue for queue in site.queues if queue.name == batch.queue]
    if named:
        return named
    names = list(dict.fromkeys(queue.name for queue in site.queues))
    near = did_you_mean(batch.queue, names)
    raise UsageError(
        f"site {site.name} has no queue {batch.queue!r}{'; ' if near else ''}{near}",
        hint=f"Known queues: {', '.join(names)}. A new one goes into a site file with `extends: {site.name}`.",
    )


def _unlisted(resources: Resources, batch: BatchOptions, attempts: int) -> Placement:
    """Make a place on a site that lists no queues: what is asked for is passed on as it is."""
    pack = min(batch.pack, attempts) if isinstance(batch.pack, int) else 1
    return Placement(
        queue=batch.queue,
        unit="share",
        units=resources.nodes,
        nodes=resources.nodes,
        gpus=resources.gpus * pack,
        cpus=resources.cpus * pack,
        memory=None if resources.memory is None else resources.memory * pack,
        walltime=resources.walltime,
        pack=pack,
    )


def _packed(queue: Queue, resources: Resources, batch: BatchOptions, attempts: int) -> int:
    """How many attempts one job of ``queue`` carries."""
    if isinstance(batch.pack, int):
        return max(1, min(batch.pack, attempts))
    if queue.unit != "node" or resources.nodes > 1:
        return 1  # a queue that sells parts of nodes has nothing left over to fill
    room = []
    if resources.gpus:
        room.append(queue.gpus_per_unit // resources.gpus)
    if queue.cores_per_unit is not None:
        room.append(queue.cores_per_unit // max(1, resources.cpus))
    if resources.memory and queue.memory_per_unit is not None:
        room.append(queue.memory_per_unit // resources.memory)
    # Where nothing is known of the node, nothing says that a second attempt fits.
    return max(1, min(*room, attempts)) if room else 1


def _fit(queue: Queue, resources: Resources, pack: int) -> Placement | str:
    """Make the place that ``queue`` gives, or say why it gives none."""
    gpus, cpus = resources.gpus * pack, resources.cpus * pack
    memory = None if resources.memory is None else resources.memory * pack
    if gpus and not queue.gpus_per_unit:
        return "it has no GPUs"
    whole = queue.unit in {"node", "share"}
    wanted = [
        (gpus, queue.gpus_per_unit or None, "GPUs", ""),
        (cpus, queue.cores_per_unit, "cores", ""),
        (memory or 0, queue.memory_per_unit, "memory", " MiB"),
    ]
    if whole:
        for need, have, what, suffix in wanted:
            if have is not None and need > have:
                return f"{need}{suffix} {what} a node are more than its {have}{suffix}"
        units = resources.nodes
    elif resources.nodes > 1:
        return "its jobs stay on one node"
    else:
        units = max(1, *(math.ceil(need / have) for need, have, _, _ in wanted if have))
    units = max(units, 1 if whole else queue.min_units)
    if units < queue.min_units or (queue.max_units is not None and units > queue.max_units):
        return f"{_units(units, queue.unit)}, and it takes {_range(queue)}"
    walltime = resources.walltime or queue.default_walltime
    if walltime is not None and queue.max_walltime is not None and walltime > queue.max_walltime:
        return f"a walltime of {format_duration(walltime)} is over its {format_duration(queue.max_walltime)}"
    share = 1.0
    if queue.unit == "share":
        share = max((need / have for need, have, _, _ in wanted if have), default=1.0)
    per_node = 1 if whole else units
    return Placement(
        queue=queue.name,
        unit=queue.unit,
        units=units,
        nodes=resources.nodes,
        gpus=gpus if queue.unit == "share" else queue.gpus_per_unit * per_node,
        cpus=cpus if queue.unit == "share" else max(cpus, (queue.cores_per_unit or 0) * per_node),
        memory=memory,
        walltime=walltime,
        pack=pack,
        charge=queue.weight * units * share,
    )


def _units(count: int, unit: str) -> str:
    word = {"gpu": "GPU"}.get(unit, unit)
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _range(queue: Queue) -> str:
    if queue.max_units is None:
        return f"at least {queue.min_units}"
    return str(queue.max_units) if queue.min_units == queue.max_units else f"{queue.min_units} to {queue.max_units}"


def _wish(resources: Resources, batch: BatchOptions, attempts: int) -> str:
    words = [_units(resources.gpus, "gpu"), f"{resources.cpus} core{'s' if resources.cpus > 1 else ''}"]
    if resources.memory is not None:
        words.append(f"{resources.memory} MiB")
    if resources.nodes > 1:
        words = [f"{resources.nodes} nodes with {words[0]}", *words[1:]]
    if resources.walltime is not None:
        words.append(f"for {format_duration(resources.walltime)}")
    pack = min(batch.pack, attempts) if isinstance(batch.pack, int) else 1
    together = f"{pack} attempts in one job, each with " if pack > 1 else ""
    return together + ", ".join(words)
