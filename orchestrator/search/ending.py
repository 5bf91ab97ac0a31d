"""What the study database is told of a trial that has ended: how its run ended, or what its runs come to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.config.constraints import amounts
from orchestrator.model import Verdict
from orchestrator.store.trials import CONSTRAINTS, SPREAD, VARIANCE, Ending, run_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.config.study import Objective, Study
    from orchestrator.model import Json, Outcome

__all__ = ["decisive", "ending", "mean", "run_facts"]


def ending(study: Study, outcomes: Mapping[int, Outcome], sites: Mapping[int, str]) -> Ending:
    """The end of a trial whose runs' last attempts ended with ``outcomes``, by run, on ``sites``.

    A failure is told as a failure, never as a value: that of one run is its trial's. Of several runs the
    values are the means, and how much they vary is told too.
    """
    run = decisive(outcomes)
    outcome = outcomes[run]
    facts = run_facts(outcome, sites[run])
    attributes: dict[str, Json] = {"info": facts.pop("info"), "metrics": facts.pop("metrics"), "outcome": facts}
    if study.repeats > 1:
        attributes |= _of_several(outcomes, run, facts, study.targets)
        attributes |= {run_name(each): run_facts(outcomes[each], sites[each]) for each in outcomes}
    if outcome.succeeded:
        metrics = attributes["metrics"]
        assert isinstance(metrics, dict)
        values = [metrics[item.metric] for item in study.targets]
        attributes[CONSTRAINTS] = amounts(study.constraints or (), metrics)
        return Ending(state="complete", values=values, attributes=attributes)
    return Ending(
        state="pruned" if outcome.verdict in {Verdict.STOPPED, Verdict.PAUSED} else "failed", attributes=attributes
    )


def decisive(outcomes: Mapping[int, Outcome]) -> int:
    """The run that says how its trial ended: the first that did not end well, but for those ended on account of it."""
    bad = {run: outcome for run, outcome in outcomes.items() if not outcome.succeeded}
    own = {run: outcome for run, outcome in bad.items() if outcome.verdict is not Verdict.CANCELLED} or bad
    return min(own, key=lambda run: (own[run].ended or math.inf, run), default=min(outcomes))


def run_facts(outcome: Outcome, site: str) -> dict[str, Json]:
    """How the last attempt of one run ended, as plain data."""
    return {
        "site": site,
        "verdict": str(outcome.verdict),
        "reason": outcome.reason,
        "attempts": outcome.attempts,
        "tag": outcome.tag,
        "job_id": outcome.job_id,
        "host": outcome.host,
        "submitted": outcome.submitted,
        "started": outcome.started,
        "ended": outcome.ended,
        "queue_wait": outcome.queue_wait,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "max_rss": outcome.max_rss,
        "gpus": list(outcome.gpus),
        "gpu_memory": outcome.gpu_memory,
        "directory": outcome.directory,
        "metrics": dict(outcome.metrics),
        "info": dict(outcome.info),
    }


def _of_several(
    outcomes: Mapping[int, Outcome], run: int, facts: Mapping[str, Json], targets: Sequence[Objective]
) -> dict[str, Json]:
    """The trial as a whole: from the first submit to the last end, its metrics' means and spreads."""
    every = list(outcomes.values())
    whole: dict[str, Json] = {
        **facts,
        "reason": f"run {run}: {outcomes[run].reason}" if outcomes[run].reason else "",
        "attempts": max(each.attempts for each in every),
        "submitted": min((each.submitted for each in every if each.submitted is not None), default=None),
        "started": min((each.started for each in every if each.started is not None), default=None),
        "ended": max((each.ended for each in every if each.ended is not None), default=None),
        "max_rss": max((each.max_rss for each in every if each.max_rss is not None), default=None),
        "gpu_memory": max((each.gpu_memory for each in every if each.gpu_memory is not None), default=None),
    }
    found: dict[str, Json] = {"outcome": whole, "info": {}, "metrics": {}}
    if all(each.succeeded for each in every):
        names = sorted(set.intersection(*(set(each.metrics) for each in every)))
        of = {name: [each.metrics[name] for each in every] for name in names}
        found["metrics"] = {name: mean(numbers) for name, numbers in of.items()}
        found[SPREAD] = {name: spread for name, numbers in of.items() if math.isfinite(spread := _deviation(numbers))}
        # Of the mean, which is what the sampler is told.
        deviations = [_deviation(of[item.metric]) for item in targets]
        variances = [deviation * deviation / len(every) for deviation in deviations]
        found[VARIANCE] = variances if all(map(math.isfinite, variances)) else []
    return found


def mean(numbers: Sequence[float]) -> float:
    """The mean, of numbers near the largest there is too."""
    return math.fsum(number / len(numbers) for number in numbers)


def _deviation(numbers: Sequence[float]) -> float:
    """The sample's standard deviation; it is not finite, or its square is not, where numbers are very large."""
    middle = mean(numbers)
    return math.hypot(*(number - middle for number in numbers)) / math.sqrt(len(numbers) - 1)
