"""Pruners by name: at which reports a trial is judged, and what is wished of it then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from orchestrator.config.pruning import Asha, Hyperband, Median
from orchestrator.jobs.early import Early, Wish
from orchestrator.search.halving import Halving, Standing, crosses
from orchestrator.store.trials import is_paused

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from orchestrator.config.pruning import Pruner
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["AshaJudge", "Judge", "make_judge"]


class Judge(Protocol):
    """What decides on a running trial by what it reports."""

    def is_due(self, after: int, step: int) -> bool:
        """Whether a trial is judged at its report of ``step``, if ``after`` was its latest step before."""
        ...

    def judge(self, number: int, step: int, value: float) -> Wish | None:
        """What is wished of a trial that reports, before the report is written; None if it is to go on."""
        ...


def make_judge(pruner: Pruner, database: StudyDatabase, *, maximize: bool, closing: Callable[[], bool]) -> Judge:
    """Make what decides for ``pruner``.

    Parameters
    ----------
    closing : callable
        Whether no new trials are to come.
    """
    match pruner:
        case Median():
            return _MedianJudge(pruner, database)
        case Hyperband():
            return _HyperbandJudge(pruner, database)
        case Asha():
            return AshaJudge(pruner, database, maximize=maximize, closing=closing)


class _MedianJudge:
    def __init__(self, pruner: Median, database: StudyDatabase) -> None:
        self._pruner = pruner
        self._database = database

    def is_due(self, after: int, step: int) -> bool:
        first, interval = self._pruner.warmup_steps, self._pruner.interval_steps
        return step >= first and (after < first or (step - first) // interval > (after - first) // interval)

    def judge(self, number: int, step: int, value: float) -> Wish | None:
        from optuna.pruners import MedianPruner

        median = MedianPruner(
            n_startup_trials=self._pruner.startup_trials,
            n_warmup_steps=self._pruner.warmup_steps,
            interval_steps=self._pruner.interval_steps,
        )
        if not self._database.would_prune(median, number, step, value):
            return None
        words = f"at step {step}: {value:.6g} and all before it are worse than the median of the complete trials there"
        return Wish(how=Early.PRUNE, words=words)


class _HyperbandJudge:
    def __init__(self, pruner: Hyperband, database: StudyDatabase) -> None:
        self._pruner = pruner
        self._database = database

    def is_due(self, after: int, step: int) -> bool:
        pruner = self._pruner
        return crosses(pruner.min_step, pruner.reduction_factor, after=after, step=step)

    def judge(self, number: int, step: int, value: float) -> Wish | None:
        from optuna.pruners import HyperbandPruner

        pruner = self._pruner
        if pruner.max_step is not None and step >= pruner.max_step:
            return None
        hyperband = HyperbandPruner(
            min_resource=pruner.min_step,
            max_resource="auto" if pruner.max_step is None else pruner.max_step,
            reduction_factor=pruner.reduction_factor,
        )
        if not self._database.would_prune(hyperband, number, step, value):
            return None
        words = f"at step {step}: {value:.6g} is not among the best of its bracket, of {pruner.reduction_factor} one"
        return Wish(how=Early.PRUNE, words=words)


class AshaJudge:
    """Pauses trials at rungs, and chooses those that go on."""

    def __init__(self, pruner: Asha, database: StudyDatabase, *, maximize: bool, closing: Callable[[], bool]) -> None:
        self._pruner = pruner
        self._database = database
        self._maximize = maximize
        self._closing = closing

    def is_due(self, after: int, step: int) -> bool:
        """Whether a rung lies between the two."""
        return crosses(self._pruner.min_step, self._pruner.reduction_factor, after=after, step=step)

    def judge(self, number: int, step: int, value: float) -> Wish | None:
        """Pause a trial that is not among the best at its rung."""
        trials = standings(self._database.trials())
        trials[number] = dataclasses.replace(trials[number], steps={**trials[number].steps, step: value})
        words = self._halving().why_paused(number, trials)
        return Wish(how=Early.PAUSE, words=words) if words else None

    def promotable(self) -> int | None:
        """The paused trial that goes on first; None if none is to."""
        return self._halving().promotable(standings(self._database.trials()))

    def _halving(self) -> Halving:
        return Halving(
            min_step=self._pruner.min_step,
            factor=self._pruner.reduction_factor,
            max_step=self._pruner.max_step,
            maximize=self._maximize,
            # Once no new ones come that could make up a whole rung, the best one goes on all the same.
            least=int(self._closing()),
        )


def standings(trials: Sequence[FrozenTrial]) -> dict[int, Standing]:
    """How the trials of a study stand, but for those that have failed: nobody would go on with them."""
    from optuna.trial import TrialState

    taking_part = {TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED}
    return {
        trial.number: Standing(
            steps=trial.intermediate_values,
            paused=is_paused(trial),
            complete=trial.state == TrialState.COMPLETE,
        )
        for trial in trials
        if trial.state in taking_part
    }
