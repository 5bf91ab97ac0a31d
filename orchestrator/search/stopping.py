"""Whether a study has reached what it was to reach, or used what it may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.stopping import Stopping
    from orchestrator.search.usage import Usage
    from orchestrator.store.record import TrialRecord

__all__ = ["why_stop"]


def why_stop(rules: Stopping, trials: Sequence[TrialRecord], usage: Usage, *, direction: str, now: float) -> str:
    """Say which rule ends the study, in words; empty while none does.

    A trial that somebody has asked for again is run whatever was found without it; only a limit of cost keeps it back.

    Parameters
    ----------
    direction : str
        ``maximize`` or ``minimize``, of the only objective that `target` and `patience` look at.
    now : float
        Seconds since the epoch.
    """
    if over := _over_time(rules, trials, now) or _over_hours(rules, trials, usage):
        return over
    asked_again = any(trial.state == "waiting" and trial.retry_of is not None for trial in trials)
    return "" if asked_again else _good_enough(rules, trials, direction)


def _over_time(rules: Stopping, trials: Sequence[TrialRecord], now: float) -> str:
    begun = min((trial.created for trial in trials if trial.created is not None), default=now)
    if rules.wall_clock is not None and now - begun >= rules.wall_clock:
        return f"wall_clock: {rules.wall_clock / 3600:g} h since its first trial are over"
    return ""


def _over_hours(rules: Stopping, trials: Sequence[TrialRecord], usage: Usage) -> str:
    spent, more = usage.total, usage.ahead(trial.number for trial in trials if trial.state == "running")
    for name, limit, used, ahead in (
        ("gpu_hours", rules.gpu_hours, spent.gpu_hours, more.gpu_hours),
        ("node_hours", rules.node_hours, spent.node_hours, more.node_hours),
    ):
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
        value = sign * (trial.values or (0.0,))[0] if trial.feasible else float("inf")
        if rules.target is not None and value <= sign * rules.target:
            return f"target: trial {trial.number} has reached {rules.target:g}"
        best, waited = (value, 0) if value < best else (best, waited + 1)
        if rules.patience is not None and waited >= rules.patience:
            found = f"were no better than {sign * best:g}" if best < float("inf") else "broke a constraint"
            return f"patience: {waited} complete trials in a row {found}"
    return ""
