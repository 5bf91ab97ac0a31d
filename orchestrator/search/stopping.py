"""Whether a study has reached what it was to reach, or used what it may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.stopping import Stopping
    from orchestrator.search.usage import Usage
    from orchestrator.store.record import TrialRecord

__all__ = ["why_stop"]


def why_stop(
    rules: Stopping, trials: Sequence[TrialRecord], usage: Usage, *, direction: str, in_flight: int, now: float
) -> str:
    """Say which rule ends the study, in words; empty while none does.

    Parameters
    ----------
    direction : str
        ``maximize`` or ``minimize``, of the only objective that `target` and `patience` look at.
    in_flight : int
        Trials that are running: each is reckoned to use as much as the mean of those before it.
    now : float
        Seconds since the epoch.
    """
    return (
        _over_time(rules, trials, now) or _over_hours(rules, usage, in_flight) or _good_enough(rules, trials, direction)
    )


def _over_time(rules: Stopping, trials: Sequence[TrialRecord], now: float) -> str:
    begun = min((trial.created for trial in trials if trial.created is not None), default=now)
    if rules.wall_clock is not None and now - begun >= rules.wall_clock:
        return f"wall_clock: {rules.wall_clock / 3600:g} h since its first trial are over"
    return ""


def _over_hours(rules: Stopping, usage: Usage, in_flight: int) -> str:
    spent, trials = usage.total, usage.trials
    for name, limit, used in (
        ("gpu_hours", rules.gpu_hours, spent.gpu_hours),
        ("node_hours", rules.node_hours, spent.node_hours),
    ):
        ahead = in_flight * used / trials if trials else 0.0
        if limit is not None and used + ahead >= limit:
            words = f"{name}: {used:.4g} of {limit:g} are used"
            return words + (f", and trials in flight will use about {ahead:.4g}" if ahead else "")
    return ""


def _good_enough(rules: Stopping, trials: Sequence[TrialRecord], direction: str) -> str:
    if not rules.of_value:
        return ""
    sign = 1.0 if direction == "minimize" else -1.0
    complete = [trial for trial in trials if trial.state == "complete" and trial.values]
    best, waited = float("inf"), 0
    for trial in sorted(complete, key=lambda each: (each.ended or 0.0, each.number)):
        value = sign * (trial.values or (0.0,))[0]
        if rules.target is not None and value <= sign * rules.target:
            return f"target: trial {trial.number} has reached {rules.target:g}"
        best, waited = (value, 0) if value < best else (best, waited + 1)
        if rules.patience is not None and waited >= rules.patience:
            return f"patience: {waited} complete trials in a row were no better than {sign * best:g}"
    return ""
