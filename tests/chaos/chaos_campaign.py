"""Runs that are drawn from a seed: drivers that are killed, a scheduler that errs, a cluster that breaks, and pauses.

A seed stands for one `Plan`, and a plan for one history: what has failed once fails again by
``python tests/chaos/chaos_by_hand.py --seed N``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_crash import Point
from chaos_invariants import Evidence, History, history, violations
from chaos_world import WAYS, World, train

from orchestrator.simulate.clock import run_virtual
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.queue_model import lognormal_wait

__all__ = ["Plan", "play", "undisturbed"]

_LARGEST = 12  # trials of the largest study; a smaller one of the same seed is its beginning

# Steps at which drivers die, the ones with most at stake more often.
_STEPS = {
    "submit": 6,
    "ledger: plan": 4,
    "ledger: job id": 4,
    "ledger: outcome": 4,
    "ledger: bundle": 2,
    "ledger: suspect": 2,
    "ledger: note": 1,
    "database: trial": 4,
    "database: end": 4,
    "database: note": 1,
    "database: report": 1,
    "database: open": 1,
    "database: backup": 1,
    "site: attempt": 2,
    "site: claim taken": 4,
    "site: look": 2,
    "site: library": 1,
    "query": 3,
    "cancel": 2,
    "snapshot": 1,
    "events: line": 2,
    "lease: token": 1,
    "lease: shown": 1,
    "lease: renewed": 1,
    "freeze: study.yaml": 1,
    "freeze: provenance.json": 1,
}
_WORDS = ("fails", "busy", "down", "hang")
_ANSWERS = ("banner", "silent", "garbage", "cut", "lost-code", "odd-word")
# How a trial's program may end other than well; each trial that does so is told as what it is.
_BAD: Mapping[str, Run] = {
    "exit code 3": Run(duration=50.0, exit_code=3),
    "no result": Run(duration=70.0),
    "not a number": Run(duration=60.0, result='{"metrics": {"m": NaN}}'),
    "torn result": Run(duration=60.0, result='{"metrics": {"m": 0.'),
    "killed by a signal": Run(duration=30.0, signal=11),
}
# A program may ask for another attempt: that one comes to the same as if it had been the first.
_AGAIN = Run(duration=40.0, exit_code=85)


@dataclass(frozen=True, slots=True)
class End:
    """How a driver ends: killed at a point or after some seconds, or told to (see `World.live`)."""

    at: Point | None = None
    seconds: float | None = None
    manner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen in one run.

    Attributes
    ----------
    ends : sequence of (End, pause)
        How drivers end, and for how long nobody starts the next one.
    mishaps : sequence of (seconds, name, arguments)
        What happens to the cluster, and when.
    bad : mapping
        Trials whose program ends badly, and how: a name in `_BAD`.
    again : int or None
        A trial whose first attempt asks to be run again.
    """

    seed: int
    kind: str
    way: str
    study: Mapping[str, Any]
    ends: Sequence[tuple[End, float]] = ()
    faults: Sequence[Fault] = ()
    mishaps: Sequence[tuple[float, str, tuple[Any, ...]]] = ()
    bad: Mapping[int, str] = field(default_factory=dict)
    again: int | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    files_lag: float = 0.0
    skew: float = 0.0

    @classmethod
    def drawn(cls, seed: int) -> Plan:
        """The plan that the seed stands for."""
        rng = random.Random(seed)
        trials = rng.randint(6, _LARGEST)
        study: dict[str, Any] = {"trials": trials, "parallel": rng.randint(1, 5)}
        if rng.random() < 0.2:
            study["storage"] = "journal:study.journal"
        rules: dict[str, Any] = {"visible_after": rng.choice((0.0, 0.0, 10.0, 60.0))}
        if rng.random() < 0.5:
            rules["queue_wait"] = lognormal_wait(rng.choice((20.0, 200.0)), 0.8, seed=seed)
        if rng.random() < 0.2:
            rules["overrules_no_rerun"] = True
        if rng.random() < 0.2:
            rules["history_lag"] = rng.choice((15.0, 60.0))
        if rng.random() < 0.2:
            rules["keep_finished"] = 1.0
        return cls(
            seed=seed,
            kind=rng.choice(list(FLAVOURS)),
            way=rng.choice(list(WAYS)),
            study=study,
            ends=[(_end(rng), rng.choice((0.0, 1.0, 90.0, 900.0, 9000.0))) for _ in range(rng.randint(0, 4))],
            faults=[_fault(rng) for _ in range(rng.randint(0, 3))],
            mishaps=sorted(_mishap(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))),
            bad={rng.randrange(trials): rng.choice(list(_BAD)) for _ in range(rng.choice((0, 0, 0, 1, 2)))},
            again=rng.choice((None, rng.randrange(trials))),
            rules=rules,
            files_lag=rng.choice((0.0, 0.0, 5.0, 45.0)),
            skew=rng.choice((0.0, 0.0, -900.0, 900.0)),
        )

    @property
    def invisible(self) -> set[int]:
        """Trials of which nothing of all this may be seen at the end."""
        return set(range(self.study["trials"])) - self.bad.keys()

    def program(self, order: Mapping[str, Any], params: Mapping[str, Any], attempt: int) -> Run:
        """What the jobs of this run run."""
        number = int(order["number"])
        if number in self.bad:
            return _BAD[self.bad[number]]
        return _AGAIN if number == self.again and attempt == 1 else train(order, params, attempt)


def _end(rng: random.Random) -> End:
    seconds = rng.choice((1.0, 30.0, 300.0, 900.0)) * rng.random()
    if rng.random() < 0.2:
        return End(seconds=seconds)
    manner = rng.choice(("drain", "leave", "cancel", "tick")) if rng.random() < 0.3 else ""
    if manner and rng.random() < 0.5:
        return End(seconds=seconds, manner=manner)
    step = rng.choices(list(_STEPS), weights=list(_STEPS.values()))[0]
    once = step.startswith(("freeze", "lease: t", "lease: s", "database: o", "database: b", "site: l"))
    point = Point(step, rng.choice(("before", "within", "after")), 1 if once else rng.randint(1, 10))
    return End(point, seconds if manner else None, manner)


def _fault(rng: random.Random) -> Fault:
    match rng.randrange(6):
        case 0:  # taken, and nobody hears of it
            kind = rng.choice(("reply-lost", "timed-out", "lost-code", "silent", "garbage", "cut"))
            return Fault(command="submit", kind=kind, calls=[rng.randint(1, 8) for _ in range(rng.randint(1, 3))])
        case 1:  # not taken, for a while
            since = rng.uniform(0.0, 600.0)
            kind = rng.choice((*_WORDS, "limit"))
            return Fault(command="submit", kind=kind, since=since, until=since + rng.choice((30.0, 600.0)))
        case 2:  # refused: the study pauses, and goes on once it is run again
            return Fault(command="submit", kind="refused", calls=[rng.randint(1, 8)])
        case 3:  # nobody to ask
            since = rng.uniform(0.0, 600.0)
            return Fault(command="any", kind=rng.choice(_WORDS), since=since, until=since + rng.choice((60.0, 1800.0)))
        case 4:  # answers that say nothing, or not all
            command = rng.choice(("query", "history", "find", "any"))
            kinds = _ANSWERS if command != "any" else ("banner",)
            return Fault(command=command, kind=rng.choice((*kinds, *_WORDS)), chance=0.3, until=3000.0)
        case _:
            kind = rng.choice(("missing-job", "half-list"))
            return Fault(command="query", kind=kind, calls=[rng.randint(1, 12) for _ in range(3)])


def _mishap(rng: random.Random) -> tuple[float, str, tuple[Any, ...]]:
    name, arguments = rng.choice(
        (
            ("fail_node", (rng.choice((60.0, 900.0)),)),
            ("preempt", ()),
            ("requeue", ()),
            ("cancel", ()),
            ("crash", (rng.choice((30.0, 120.0)),)),
            ("reset_counter", ()),
        )
    )
    return rng.uniform(5.0, 900.0), name, arguments


_UNDISTURBED: list[History] = []


def undisturbed(folder: Path) -> History:
    """What a study of the largest size comes to if nothing happens to it."""
    if not _UNDISTURBED:

        async def body() -> History:
            world = World(folder / "undisturbed", study={"trials": _LARGEST})
            assert (await world.finish()).end == "done"
            assert await world.violations() == []
            return world.history()

        _UNDISTURBED.append(run_virtual(body()))
    return _UNDISTURBED[0]


def play(plan: Plan, folder: Path) -> list[str]:
    """Let the plan happen in ``folder``; returns what of the invariants does not hold at the end."""
    expected = undisturbed(folder)

    async def body() -> list[str]:
        world = World(
            folder / str(plan.seed),
            plan.kind,
            plan.way,
            program=plan.program,
            faults=plan.faults,
            seed=plan.seed,
            files_lag=plan.files_lag,
            skew=plan.skew,
            study=plan.study,
            rules=plan.rules,
        )
        for after, name, arguments in plan.mishaps:
            world.mishap(after, name, *arguments)
        for end, pause in plan.ends:
            await world.live(end.at, seconds=end.seconds, manner=end.manner)
            await asyncio.sleep(pause)
        await world.finish()
        evidence = await world.evidence()
        return violations(evidence) + list(_visible(plan, evidence, expected))

    return run_virtual(body())


def _visible(plan: Plan, evidence: Evidence, expected: History) -> list[str]:
    """Of what can be seen although it may not: other parameters, other values, another end."""
    wrong = []
    for trial, (number, state, params, values) in zip(history(evidence.told()), expected, strict=False):
        verdict = evidence.attempts(number)[-1].outcome
        spoilt = number not in plan.invisible or (
            # A job that was cancelled by hand has failed; so has one whose node or controller failed too often.
            any(name in {"cancel", "crash", "preempt", "fail_node", "requeue"} for _, name, _ in plan.mishaps)
            and verdict is not None
            and str(verdict.verdict) in {"cancelled", "lost", "node-failure", "preempted"}
        )
        if trial[2] != params:
            wrong.append(f"INV8: trial {number} has {trial[2]}, undisturbed it has {params}")
        elif number in plan.bad:
            if trial[1] != "failed":
                wrong.append(f"INV2: trial {number} is {trial[1]} by a program with {plan.bad[number]}")
        elif not spoilt and trial[1:] != (state, params, values):
            words = "" if verdict is None else f" ({verdict.verdict}: {verdict.reason})"
            wrong.append(
                f"INV8: trial {number} is {trial[1]} with {trial[3]}{words}, undisturbed {state} with {values}"
            )
    return wrong
