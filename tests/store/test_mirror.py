"""The mirror is a storage like any other to Optuna, and writes a new trial in one go."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import HeldByAnother
from orchestrator.store.mirror import MirrorStorage
from orchestrator.store.trials import SEAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.samplers import BaseSampler


class Recording(InMemoryStorage):
    """Counts writes, and fails the next one when told to, before or after it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.fail: str = ""

    def _around(self, name: str, write: Callable[[], Any]) -> Any:
        fail, self.fail = self.fail, ""
        if fail == "before":
            raise OSError("lost")
        self.writes.append(name)
        result = write()
        if fail == "after":
            raise OSError("lost")
        return result

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number: int = self._around("create", lambda: super(Recording, self).create_new_trial(study_id, template_trial))
        return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._around(
            "param",
            lambda: super(Recording, self).set_trial_param(trial_id, param_name, param_value_internal, distribution),
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._around(f"user:{key}", lambda: super(Recording, self).set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._around(f"system:{key}", lambda: super(Recording, self).set_trial_system_attr(trial_id, key, value))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done: bool = self._around(
            f"state:{state.name}", lambda: super(Recording, self).set_trial_state_values(trial_id, state, values)
        )
        return done


def make(real: InMemoryStorage | None = None) -> tuple[Recording, MirrorStorage]:
    real = real or Recording()
    assert isinstance(real, Recording)
    # Ids that are not numbers: another study and its trials come first.
    other = real.create_new_study([StudyDirection.MINIMIZE], "other")
    real.create_new_trial(other)
    study_id = real.create_new_study([StudyDirection.MINIMIZE], "s")
    real.writes.clear()
    return real, MirrorStorage(real, study_id)


def study_on(storage: MirrorStorage, sampler: BaseSampler | None = None) -> optuna.Study:
    return optuna.study.Study("s", storage, sampler=sampler or optuna.samplers.RandomSampler(seed=1))


def agree(real: InMemoryStorage, mirror: MirrorStorage) -> bool:
    def plain(trial: FrozenTrial) -> tuple[Any, ...]:
        return (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            trial.user_attrs,
            trial.system_attrs,
            trial.intermediate_values,
        )

    study_id = real.get_study_id_from_name("s")
    return [plain(each) for each in real.get_all_trials(study_id)] == [
        plain(each) for each in mirror.get_all_trials(study_id)
    ]


def test_an_ask_is_one_write_and_comes_with_everything() -> None:
    real, mirror = make()
    trial = study_on(mirror).ask()
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_categorical("layer", ["a", None, 3])
    trial.set_user_attr("survey", {"x": 1})
    assert real.writes == []
    assert mirror.commit() == 0
    assert real.writes == ["create"]
    assert agree(real, mirror)


def test_a_discarded_draft_leaves_no_trace() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.ask().suggest_float("x", 0, 1)
    mirror.discard()
    assert (real.writes, study.trials, mirror.commit()) == ([], [], None)


def test_writes_to_a_committed_trial_go_through_one_by_one() -> None:
    real, mirror = make()
    study = study_on(mirror)
    trial = study.ask()
    mirror.commit()
    trial.suggest_float("late", 0, 1)
    trial.report(0.5, 3)
    trial.set_user_attr("job", {"job_id": "7"})
    study.tell(trial, 1.5)
    assert real.writes == ["create", "param", "user:job", "state:COMPLETE"]
    assert agree(real, mirror)


def test_what_a_reader_holds_never_changes_under_it() -> None:
    _, mirror = make()
    study = study_on(mirror)
    trial = study.ask()
    held = mirror.get_all_trials(study._study_id, deepcopy=False)
    frozen = copy.deepcopy(held)
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("a", 1)
    study.tell(trial, 1.0)
    study.ask()
    assert held == frozen


@pytest.mark.parametrize(
    "make_sampler",
    [
        lambda: optuna.samplers.RandomSampler(seed=1),
        lambda: optuna.samplers.TPESampler(seed=1, n_startup_trials=3),
        lambda: optuna.samplers.NSGAIISampler(seed=1, population_size=4),
        lambda: optuna.samplers.QMCSampler(seed=1, warn_asynchronous_seeding=False),
        lambda: optuna.samplers.GridSampler({"x": [0.0, 0.5, 1.0], "c": ["a", "b"]}, seed=1),
    ],
    ids=["random", "tpe", "nsga2", "qmc", "grid"],
)
def test_samplers_propose_the_same_as_on_optunas_own_storage(make_sampler: Callable[[], BaseSampler]) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return x if trial.suggest_categorical("c", ["a", "b"]) == "a" else 2 - x

    plain = optuna.create_study(sampler=make_sampler())
    plain.optimize(objective, n_trials=12)
    real, mirror = make()
    mirrored = study_on(mirror, make_sampler())
    mirrored.optimize(objective, n_trials=12)
    assert [trial.params for trial in mirrored.trials] == [trial.params for trial in plain.trials]
    assert real.writes.count("create") == len(plain.trials)
    assert agree(real, mirror)
    assert real.get_study_system_attrs(mirrored._study_id) == mirror.get_study_system_attrs(mirrored._study_id)


def test_an_enqueued_trial_is_claimed_with_its_parameters() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.enqueue_trial({"x": 0.25})
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]
    trial = study.ask()
    assert trial.number == 0
    assert trial.suggest_float("x", 0, 1) == 0.25
    trial.suggest_float("y", 0, 1)
    trial.set_user_attr("survey", {})
    mirror.commit()
    assert real.writes[:2] == ["create", "state:RUNNING"]
    assert real.writes[-1] == "user:survey"
    assert agree(real, mirror)


def test_an_enqueued_trial_whose_claim_is_discarded_waits_again() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.enqueue_trial({"x": 0.25})
    study.ask().suggest_float("x", 0, 1)
    mirror.discard()
    assert study.trials[0].state == TrialState.WAITING
    assert study.trials[0].params == {}
    assert agree(real, mirror)


@pytest.mark.parametrize("writes", range(1, 6))
def test_a_claim_cut_off_after_any_write_is_claimed_again_with_the_same_values(writes: int) -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.enqueue_trial({"x": 0.25})
    trial = study.ask()
    values = (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1), trial.suggest_float("z", 0, 1))
    trial.set_user_attr("survey", {})
    left = writes

    around = real._around

    def cut_off(name: str, write: Callable[[], Any]) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return around(name, write)

    real._around = cut_off  # type: ignore[method-assign]
    if writes < 5:
        with pytest.raises(KeyboardInterrupt):
            mirror.commit()
    else:
        mirror.commit()
    real._around = around  # type: ignore[method-assign]

    again = MirrorStorage(real, study._study_id)
    if writes == 5:  # the seal was written: the trial is running
        assert again.get_trial(0).state == TrialState.RUNNING
        assert tuple(again.get_trial(0).params.values()) == values
        return
    assert again.get_trial(0).state == TrialState.WAITING
    retried = study_on(again, optuna.samplers.RandomSampler(seed=99)).ask()
    taken = [retried.suggest_float(name, 0, 1) for name in ("x", "y", "z")]
    kept = max(0, writes - 1)
    assert taken[: max(1, kept)] == list(values[: max(1, kept)])
    retried.set_user_attr("survey", {})
    again.commit()
    assert real.get_trial(real.get_all_trials(study._study_id)[0]._trial_id).params == dict(
        zip(("x", "y", "z"), taken, strict=True)
    )


@pytest.mark.parametrize(("when", "known"), [("before", 0), ("after", 1)])
def test_after_a_write_of_unknown_outcome_the_real_storage_is_read_again(when: str, known: int) -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.ask().suggest_float("x", 0, 1)
    real.fail = when
    with pytest.raises(OSError, match="lost"):
        mirror.commit()
    mirror.discard()
    mirror.refresh()
    assert len(study.trials) == known
    following = study.ask()
    following.suggest_float("x", 0, 1)
    mirror.commit()
    assert following.number == known
    assert agree(real, mirror)


def test_a_trial_whose_number_could_not_be_asked_for_is_not_written_twice() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.ask()
    mirror.commit()
    real.create_new_trial(real.get_study_id_from_name("other"))  # a gap in the ids, as one rolled back leaves
    following = study.ask()
    following.set_user_attr(SEAL, {"seed": 1})
    asked, cut = real.get_trial_number_from_id, [True]

    def number(trial_id: int) -> int:
        if cut.pop() if cut else False:
            raise OSError("lost")
        return asked(trial_id)

    real.get_trial_number_from_id = number  # type: ignore[method-assign]
    with pytest.raises(OSError, match="lost"):
        mirror.commit()
    assert mirror.commit() == following.number == 1
    assert agree(real, mirror)


def test_another_writer_is_noticed_at_the_next_trial() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.ask()
    mirror.commit()
    real.create_new_trial(study._study_id)
    study.ask()
    with pytest.raises(HeldByAnother, match="trial 2 where 1 was next"):
        mirror.commit()


def test_trials_of_another_study_in_the_same_database_do_no_harm() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.ask()
    mirror.commit()
    real.create_new_trial(real.get_study_id_from_name("other"))
    trial = study.ask()
    mirror.commit()
    assert trial.number == 1
    assert agree(real, mirror)


def test_a_parameter_that_changes_its_kind_is_refused_at_once() -> None:
    _, mirror = make()
    study = study_on(mirror)
    study.ask().suggest_float("x", 0, 1)
    mirror.commit()
    trial = study.ask()
    with pytest.raises(ValueError, match="distribution"):
        trial.suggest_categorical("x", ["a"])


def test_a_finished_trial_refuses_writes() -> None:
    real, mirror = make()
    study = study_on(mirror)
    study.tell(study.ask(), 1.0)
    count = len(real.writes)
    for write in (
        lambda: mirror.set_trial_user_attr(0, "a", 1),
        lambda: mirror.set_trial_system_attr(0, "a", 1),
        lambda: mirror.set_trial_intermediate_value(0, 1, 1.0),
        lambda: mirror.set_trial_state_values(0, TrialState.FAIL),
        lambda: mirror.set_trial_param(0, "x", 0.5, FloatDistribution(0, 1)),
    ):
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            write()
    assert len(real.writes) == count


def test_it_is_one_study_only() -> None:
    _, mirror = make()
    with pytest.raises(KeyError):
        mirror.get_study_id_from_name("other")
    with pytest.raises(KeyError):
        mirror.get_trial(0)
    with pytest.raises(NotImplementedError):
        mirror.create_new_study([StudyDirection.MINIMIZE], "third")
    study = optuna.create_study(study_name="s", storage=mirror, load_if_exists=True)
    assert [each.study_name for each in mirror.get_all_studies()] == [study.study_name]
