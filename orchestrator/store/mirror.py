"""A storage that answers every read of one study from memory and writes a new trial in one go.

Optuna's RDB storage commits each suggested parameter by itself: eleven synced transactions for an ask
of nine parameters, and a crash between them leaves half a trial. Here a new trial is a *draft* in
memory, which samplers see and write to like any other, until `MirrorStorage.commit` creates it whole.

Trial ids are trial numbers, because a draft has no id of the real storage yet. That is sound for the
one process that writes the study, which its lease makes sure of.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import HeldByAnother
from orchestrator.store.onestudy import OneStudyStorage
from orchestrator.store.trials import FIXED, SEAL, aware, new_trial, own, parted, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from optuna.storages import BaseStorage

__all__ = ["MirrorStorage"]


@runtime_checkable
class _Finisher(Protocol):
    """A storage that ends a trial in one transaction."""

    def finish_trial(
        self, trial_id: int, attributes: Mapping[str, Any], state: TrialState, values: Sequence[float] | None
    ) -> None: ...


class MirrorStorage(OneStudyStorage):
    """One study of ``real``, held in memory; works as the storage of an `optuna.Study`.

    Parameters
    ----------
    real : BaseStorage
        Where the study is kept.
    study_id : int
        The study in ``real``.
    now : callable
        Seconds since the epoch, for the times of trials.

    Notes
    -----
    Each whole trial has the user attribute `SEAL`. A running trial that was enqueued and lacks it was
    cut short while it was claimed, and counts as waiting again.

    Only one draft exists at a time. Any write that concerns its life (a state, an intermediate
    value) and the next new trial commit it first, so that `optuna.Study.optimize` works too.
    After a write that failed, what the real storage has is unknown: it is read again before the
    next write. A draft outlives that: `commit` may be called again, and finds out whether the draft
    was written after all.
    """

    def __init__(self, real: BaseStorage, study_id: int, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(real, study_id)
        self._now = now
        self._trials: list[FrozenTrial] = []
        self._real_ids: list[int] = []
        self._distributions: dict[str, BaseDistribution] = {}
        self._draft: int | None = None
        self._claimed: FrozenTrial | None = None  # the waiting trial that the draft continues
        self.reload()

    def reload(self) -> None:
        """Read the study from the real storage again; a draft is dropped."""
        with self._lock:
            loaded = self._real.get_all_trials(self._study_id, deepcopy=False)
            self._reload_attributes()
            self._draft = self._claimed = None
            self._trials, self._real_ids, self._distributions = [], [], {}
            for trial in sorted(loaded, key=lambda each: each.number):
                mine = copy.copy(trial)
                self._real_ids.append(trial._trial_id)  # noqa: SLF001 - Optuna's storages know trials by it
                mine._trial_id = trial.number  # noqa: SLF001 - see above
                mine.datetime_start = aware(trial.datetime_start)
                mine.datetime_complete = aware(trial.datetime_complete)
                if mine.state == TrialState.RUNNING and self._half_claimed(mine):
                    mine.state = TrialState.WAITING
                    mine.system_attrs = {**mine.system_attrs, FIXED: {**mine.system_attrs[FIXED], **mine.params}}
                self._distributions.update(trial.distributions)
                self._trials.append(mine)
            self._stale = False

    def refresh(self) -> None:
        """Read the study again if a failed write has left open what the real storage has."""
        with self._lock:
            if self._stale and self._draft is None:
                self.reload()

    def _half_claimed(self, trial: FrozenTrial) -> bool:
        return FIXED in trial.system_attrs and SEAL not in trial.user_attrs

    # --- drafts

    def commit(self) -> int | None:
        """Write the draft to the real storage, a new trial in one transaction.

        After a failure it may be called again, or the draft be given up by `discard`.

        Returns
        -------
        int or None
            Its number; None if there was no draft.

        Raises
        ------
        HeldByAnother
            Somebody else wrote trials to this study.
        """
        with self._lock:
            number = self._draft
            if number is None:
                return None
            if self._stale and self._was_written(number):
                return number
            trial, claimed = self._trials[number], self._claimed
            if claimed is None:
                self._create(copy.copy(trial), number)
            else:
                self._write(lambda: self._commit_claim(self._real_ids[number], trial, claimed))
            self._draft = self._claimed = None
            return number

    def _was_written(self, number: int) -> bool:
        """Find out, after a commit that failed, whether it took place; if not the draft is put back to be written."""
        draft, claimed = self._trials[number], self._claimed
        self.reload()
        there = self._trials[number] if number < len(self._trials) else None
        if there is not None and SEAL in draft.user_attrs and there.user_attrs.get(SEAL) == draft.user_attrs[SEAL]:
            return True
        if claimed is not None and there is not None:
            self._claimed, self._trials[number] = there, draft
        elif claimed is None and there is None and number == len(self._trials):
            self._trials.append(draft)
        else:
            raise self._disturbed(len(self._trials) - 1, number)
        self._draft = number
        return False

    def _disturbed(self, actual: int, expected: int) -> HeldByAnother:
        self._stale = True
        return HeldByAnother(
            f"study {self._name!r} got trial {actual} where {expected} was next: another program writes to its database",
            hint="end the other program (a second driver, a script with study.optimize), then run the study again",
        )

    def _create(self, trial: FrozenTrial, number: int) -> None:
        def create() -> int:
            real_id = self._real.create_new_trial(self._study_id, template_trial=trial)
            # Part of the write: where this question is cut off, the trial is there, and is not to be written again.
            self._check_number(real_id, number)
            return real_id

        self._real_ids.append(self._write(create))

    def _check_number(self, real_id: int, number: int) -> None:
        # Ids are handed out in sequence: one more than the last means that nobody wrote in between,
        # which saves asking.
        if self._real_ids and real_id == self._real_ids[-1] + 1:
            return
        actual = self._real.get_trial_number_from_id(real_id)
        if actual != number:
            raise self._disturbed(actual, number)

    def _commit_claim(self, real_id: int, trial: FrozenTrial, claimed: FrozenTrial) -> None:
        """Write what the draft adds to an enqueued trial, the seal last."""
        self._real.set_trial_state_values(real_id, TrialState.RUNNING)
        for name, value in trial.params.items():
            if name not in claimed.params:
                distribution = trial.distributions[name]
                self._real.set_trial_param(real_id, name, distribution.to_internal_repr(value), distribution)
        for key, value in trial.system_attrs.items():
            if claimed.system_attrs.get(key) != value:
                self._real.set_trial_system_attr(real_id, key, value)
        for key in sorted(trial.user_attrs, key=lambda each: each == SEAL):
            self._real.set_trial_user_attr(real_id, key, trial.user_attrs[key])

    def discard(self) -> None:
        """Forget the draft; an enqueued trial that it had claimed waits again."""
        with self._lock:
            if self._draft is None:
                return
            if self._claimed is None:
                self._trials.pop()
            else:
                self._trials[self._draft] = self._claimed
            self._draft = self._claimed = None

    # --- trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a draft, or write ``template_trial`` at once (`optuna.Study.enqueue_trial` does)."""
        with self._lock:
            self._check_study(study_id)
            self.commit()
            self.refresh()
            number = len(self._trials)
            if template_trial is None:
                trial = new_trial(number, self._now())
                self._draft = number
            else:
                trial = copy.deepcopy(template_trial)
                self._create(template_trial, number)
                trial.number = trial._trial_id = number  # noqa: SLF001 - Optuna's storages know trials by it
                self._distributions.update(trial.distributions)
            self._trials.append(trial)
            return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter; in memory only, as long as the trial is a draft."""
        with self._lock:
            trial = self._changeable(trial_id)
            if param_name in self._distributions:
                check_distribution_compatibility(self._distributions[param_name], distribution)
            if trial_id != self._draft:
                real_id = self._real_ids[trial_id]
                self._write(lambda: self._real.set_trial_param(real_id, param_name, param_value_internal, distribution))
            self._distributions[param_name] = distribution
            trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
            trial.distributions = {**trial.distributions, param_name: distribution}
            self._trials[trial_id] = trial

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change a trial's state; claiming a waiting trial makes it the draft."""
        with self._lock:
            waiting = self._trial(trial_id)
            if state == TrialState.RUNNING and waiting.state == TrialState.WAITING:
                self.commit()
                trial = self._changeable(trial_id)
                trial.state = state
                trial.datetime_start = utc(self._now())
                self._draft, self._claimed = trial_id, waiting
                self._trials[trial_id] = trial
                return True
            if trial_id == self._draft:
                self.commit()
            trial = self._changeable(trial_id)
            if state == TrialState.RUNNING:
                return False
            self._write(lambda: self._real.set_trial_state_values(self._real_ids[trial_id], state, values))
            self._trials[trial_id] = self._ended(trial, state, values)
            return True

    def finish_trial(
        self, trial_id: int, attributes: Mapping[str, Any], state: TrialState, values: Sequence[float] | None
    ) -> None:
        """End a running trial: attributes first (see `orchestrator.store.trials.parted`), then state and values.

        In one transaction where the real storage has a ``finish_trial`` of its own.

        Raises
        ------
        UpdateFinishedTrialError
            If it has ended before.
        """
        with self._lock:
            if trial_id == self._draft:
                self.commit()
            trial = self._changeable(trial_id)
            user, system = parted(attributes)
            if not isinstance(self._real, _Finisher):
                for key, value in user.items():
                    self.set_trial_user_attr(trial_id, key, value)
                for key, value in system.items():
                    self.set_trial_system_attr(trial_id, key, value)
                self.set_trial_state_values(trial_id, state, values)
                return
            real, real_id = self._real, self._real_ids[trial_id]
            self._write(lambda: real.finish_trial(real_id, attributes, state, values))
            trial.user_attrs = {**trial.user_attrs, **user}
            trial.system_attrs = {**trial.system_attrs, **system}
            self._trials[trial_id] = self._ended(trial, state, values)

    def _ended(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> FrozenTrial:
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state.is_finished():
            trial.datetime_complete = utc(self._now())
        return trial

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value at a step."""
        with self._lock:
            if trial_id == self._draft:
                self.commit()
            trial = self._changeable(trial_id)
            self._write(
                lambda: self._real.set_trial_intermediate_value(self._real_ids[trial_id], step, intermediate_value)
            )
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}
            self._trials[trial_id] = trial

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute; in memory only, as long as the trial is a draft."""
        with self._lock:
            trial = self._changeable(trial_id)
            if trial_id != self._draft:
                self._write(lambda: self._real.set_trial_user_attr(self._real_ids[trial_id], key, value))
            trial.user_attrs = {**trial.user_attrs, key: value}
            self._trials[trial_id] = trial

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute; in memory only, as long as the trial is a draft."""
        with self._lock:
            trial = self._changeable(trial_id)
            if trial_id != self._draft:
                self._write(lambda: self._real.set_trial_system_attr(self._real_ids[trial_id], key, value))
            trial.system_attrs = {**trial.system_attrs, key: value}
            self._trials[trial_id] = trial

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return the trial with this id, which is its number."""
        with self._lock:
            trial = self._trial(trial_id)
            return own(trial) if trial_id == self._draft else trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials by number, the draft among them."""
        with self._lock:
            self._check_study(study_id)
            trials = (
                [trial for trial in self._trials if trial.state in states] if states is not None else list(self._trials)
            )
        return copy.deepcopy(trials) if deepcopy else trials

    def remove_session(self) -> None:
        """Close this thread's session of the real storage."""
        with self._lock:
            self._real.remove_session()

    def _trial(self, trial_id: int) -> FrozenTrial:
        if not 0 <= trial_id < len(self._trials):
            raise KeyError(f"no trial with id {trial_id}")
        return self._trials[trial_id]

    def _changeable(self, trial_id: int) -> FrozenTrial:
        """Return a copy to change and to put in place: what readers hold must not change under them."""
        self.refresh()
        trial = self._trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return copy.copy(trial)
