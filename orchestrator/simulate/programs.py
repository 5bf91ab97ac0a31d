"""What a job's program does in a simulation: a function of its parameters instead of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from orchestrator.model import Json
from orchestrator.simulate.batchjob import Key

__all__ = ["Execution", "Program", "Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a program, as it would go if nothing came between. Times are seconds from its start.

    Attributes
    ----------
    duration : float
        Until it ends by itself.
    exit_code, signal : int
        How it ends then; a ``signal`` counts for more.
    metrics : mapping or None
        What it writes into result.json at its end; None: it writes none.
    result : str or None
        The text of result.json in place of what is made of ``metrics`` (torn, of another tag, ...).
    result_at : float or None
        When result.json is written, if not at the end.
    progress : sequence of (step, value)
        Reports, spread evenly over the duration.
    heeds_stop : bool
        Whether it ends at its next report once the file ``stop`` is there, with its result.
    heeds_signals : bool
        Whether SIGTERM ends it at once; else only SIGKILL does.
    agent_dies, out_of_memory : float or None
        When the agent is killed without a word, or the whole job for want of memory.
    checkpoint : bool
        Whether it writes a checkpoint, which the agent's report then tells.
    resumes : bool
        Whether it goes on after the last step that an earlier attempt of its trial has reported.
    """

    duration: float
    exit_code: int = 0
    signal: int = 0
    metrics: Mapping[str, float] | None = None
    info: Mapping[str, Json] = field(default_factory=dict)
    result: str | None = None
    result_at: float | None = None
    progress: Sequence[tuple[int, float]] = ()
    heeds_stop: bool = True
    heeds_signals: bool = True
    agent_dies: float | None = None
    out_of_memory: float | None = None
    checkpoint: bool = False
    resumes: bool = False


Program: TypeAlias = "Callable[[Mapping[str, Any], Mapping[str, Any], int], Run]"
"""``program(order, params, attempt)``: the agent's order (job.json), params.json and the attempt's number."""


@dataclass(slots=True, kw_only=True)
class Execution:
    """One execution as the outside world counts it: not in the study's folder, and not by the driver.

    ``job_id`` is as the agent found it, ``key`` the job's number and index in the cluster. ``ended`` stays
    None while it runs; ``how`` is ``finished``, ``stopped``, ``killed`` or ``lost``.
    """

    tag: str
    job_id: str
    key: Key
    started: float
    ended: float | None = None
    how: Literal["", "finished", "stopped", "killed", "lost"] = ""
