"""A site's queues and limits as its scheduler shows them, against what the site file says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.config.units import format_duration
from orchestrator.doctor.findings import Finding, error, ok, some, warn
from orchestrator.schedulers.reading import evidence, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config.site import Site
    from orchestrator.doctor.asking import Asked
    from orchestrator.transports.base import Completion

__all__ = ["Seen", "judge_queues", "read_queues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One queue as the scheduler shows it; ``walltime`` is None where it shows none."""

    walltime: int | None = None
    open: bool = True
    queued: int | None = None


def judge_queues(asked: Asked) -> list[Finding]:
    """Compare the queues, and the user's limits, with the site file."""
    lines: list[Finding] = []
    answer = asked["queues"]
    queues = {} if answer is None or answer.returncode != 0 else read_queues(asked.site.scheduler, answer.stdout)
    if queues:
        lines += _queues(asked.site, queues)
    elif asked.site.queues and asked.site.scheduler != "local":
        lines.append(ok("queues", f"{len(asked.site.queues)} in the site file; the scheduler does not list its own"))
    lines += _limits(asked, queues)
    return lines + _arrays(asked)


def read_queues(scheduler: str, text: str) -> dict[str, Seen]:
    """Read the list of queues of a scheduler; empty where it is none."""
    found: dict[str, Seen] = {}
    if scheduler == "slurm":
        for line in text.splitlines():
            cells = line.split("|")
            if len(cells) == 3 and cells[0]:
                found[cells[0]] = Seen(walltime=_slurm_time(cells[2]), open=cells[1].strip().lower() == "up")
    elif scheduler == "pbs":
        for block in re.split(r"^Queue:\s*", text, flags=re.MULTILINE)[1:]:
            name, _, rest = block.partition("\n")
            values = dict(re.findall(r"^\s+([\w.]+) = (.*)$", rest, re.MULTILINE))
            queued = re.search(r"\bu:\w+=(\d+)", values.get("max_queued", ""))
            found[name.strip()] = Seen(
                walltime=seconds(values.get("resources_max.walltime", "")),
                open="False" not in (values.get("enabled"), values.get("started")),
                queued=int(queued[1]) if queued else None,
            )
    elif scheduler == "gridengine":
        found = {line.strip(): Seen() for line in text.splitlines() if re.fullmatch(r"[\w.@-]+", line.strip())}
    return found


def _queues(site: Site, seen: Mapping[str, Seen]) -> list[Finding]:
    shown = [f"{name} ({_limit(queue)})" if queue.open else f"{name} (closed)" for name, queue in seen.items()]
    lines = [ok("queues", some(shown, 8))]
    named = {queue.name: queue for queue in site.queues}
    missing = [name for name in named if name not in seen]
    if missing:
        make = error if len(missing) == len(named) else warn
        lines.append(
            make(
                "queues",
                f"of the site file, and not of the scheduler: {some(missing)}",
                f"Correct `queues:` in a site file with `extends: {site.name}`.",
            )
        )
    for queue in site.queues:
        there = seen.get(queue.name)
        if there is None:
            continue
        if there.walltime is not None and queue.max_walltime is not None and queue.max_walltime > there.walltime:
            lines.append(
                warn(
                    "queues",
                    f"{queue.name}: at most {format_duration(there.walltime)}, and "
                    f"{format_duration(queue.max_walltime)} in the site file",
                    "Correct `max_walltime:` in a site file of your own: longer jobs are refused.",
                )
            )
        if not there.open:
            lines.append(warn("queues", f"{queue.name} takes or starts no jobs now", "See the site's news."))
    return lines


def _limits(asked: Asked, queues: Mapping[str, Seen]) -> list[Finding]:
    answer = asked["limits"]
    if asked.site.scheduler == "pbs":
        most = [queue.queued for queue in queues.values() if queue.queued is not None]
        return _most_queued(asked.site, min(most)) if most else []
    if answer is None or answer.returncode == 127:
        return []
    said = (answer.stdout or answer.stderr).strip()
    if "accounting_storage plugin" in said:
        return [ok("limits", "none that could be listed: the cluster has no accounting")]
    if answer.returncode != 0 or "[ERR.]" in said:
        return [
            warn(
                "limits",
                f"what a user may have cannot be read: {evidence(answer)}",
                "Ask the site how many jobs you may have queued, and set `limits: {queued: N}`.",
            )
        ]
    if asked.site.scheduler == "pjm":
        return _pjm_limits(asked.site, said)
    if asked.site.scheduler == "slurm":
        return _slurm_limits(answer)
    return [ok("limits", " ".join(said.split())[:200] or "no quota is set for you")]


def _pjm_limits(site: Site, text: str) -> list[Finding]:
    # Rows "ru-accept LIMIT ALLOC": jobs of one user in one resource unit.
    rows = dict(re.findall(r"^\s*(ru-\S+)\s+(\d+|unlimited)\b", text, re.MULTILINE))
    if not rows:
        return [
            warn(
                "limits",
                f"pjstat --limit prints what is not known here: {' '.join(text.split())[:100]}",
                f"`survey doctor --site {site.name} --record DIR` saves it, for a report.",
            )
        ]
    lines = [ok("limits", ", ".join(f"{name} {limit}" for name, limit in rows.items()))]
    accept = rows.get("ru-accept", "")
    return [*lines, *_most_queued(site, int(accept))] if accept.isdigit() else lines


def _slurm_limits(answer: Completion) -> list[Finding]:
    head, *rows = answer.stdout.splitlines() or [""]
    names = head.split("|")
    shown = []
    for row in rows:
        cells = dict(zip(names, row.split("|"), strict=False))
        limits = [f"{name} {value}" for name, value in cells.items() if name != "Name" and value]
        if limits:
            shown.append(f"{cells.get('Name', '?')}: {', '.join(limits)}")
    return [ok("limits", "; ".join(shown)[:300] or "the qualities of service limit nothing")]


def _most_queued(site: Site, most: int) -> list[Finding]:
    if site.limits.queued is not None and site.limits.queued <= most:
        return []
    known = "no limit" if site.limits.queued is None else str(site.limits.queued)
    return [
        warn(
            "limits",
            f"a user has at most {most} jobs queued; the site file has {known}",
            f"Set `limits: {{queued: {most}}}` in a site file of your own, so that none is refused.",
        )
    ]


def _arrays(asked: Asked) -> list[Finding]:
    answer = asked["arrays"]
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE) if answer is not None else None
    if match is None:
        return []
    # The largest index is one less than MaxArraySize (slurm.conf(5)).
    most = int(match[1]) - 1
    if asked.site.limits.array_size > most:
        return [
            warn(
                "arrays",
                f"an array job has at most {most} elements; the site file has {asked.site.limits.array_size}",
                f"Set `limits: {{array_size: {most}}}` or `array_allowed: false` in a site file of your own.",
            )
        ]
    return [ok("arrays", f"up to {most} elements")]


def _limit(queue: Seen) -> str:
    return "no walltime limit shown" if queue.walltime is None else format_duration(queue.walltime)


def _slurm_time(text: str) -> int | None:
    """Seconds of ``[days-]hours:minutes:seconds``; None for ``infinite`` and the like."""
    days, dash, rest = text.strip().partition("-")
    if not dash:
        days, rest = "0", text.strip()
    clock = seconds(rest)
    return None if clock is None or not days.isdigit() else int(days) * 86400 + clock
