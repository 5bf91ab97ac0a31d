from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sampler_spaces import mixed, quiet_study, run

from orchestrator.samplers import BOSampler, fitting
from orchestrator.samplers.gp import Evidence

if TYPE_CHECKING:
    import optuna


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    fitting._kept.clear()


def twelve_ended() -> optuna.Study:
    study = quiet_study(BOSampler(seed=3))
    run(study, mixed, 12)
    fitting._kept.clear()
    return study


def fill(study: optuna.Study, slots: int) -> list[dict[str, Any]]:
    """Ask for several trials, each with a sampler of its own, as the driver does."""
    asked = []
    for _ in range(slots):
        study.sampler = BOSampler(seed=3)
        trial = study.ask()
        mixed(trial)
        asked.append(trial.params)
    return asked


def test_a_fill_of_several_slots_is_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    study = twelve_ended()
    fits = []
    fit = Evidence.fit

    def counted(self: Evidence, **options: Any) -> Any:
        fits.append(options)
        return fit(self, **options)

    monkeypatch.setattr(Evidence, "fit", counted)
    fill(study, 1)
    of_one = len(fits)
    asked = fill(study, 5)
    assert len(fits) == of_one > 0
    assert len({tuple(sorted(params.items())) for params in asked}) == 5


def test_whether_a_fit_was_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fill(twelve_ended(), 4)
    monkeypatch.setattr(fitting, "KEPT", 0)
    assert fill(twelve_ended(), 4) == kept


def test_a_new_result_is_a_new_fit_and_old_fits_are_forgotten() -> None:
    study = twelve_ended()
    run(study, mixed, 1)
    first = set(fitting._kept)
    run(study, mixed, fitting.KEPT + 2)
    assert len(fitting._kept) == fitting.KEPT
    assert not first & set(fitting._kept)


def test_studies_of_other_seeds_do_not_share_a_fit() -> None:
    study = twelve_ended()
    for seed in (3, 4):
        study.sampler = BOSampler(seed=seed)
        mixed(study.ask())
    assert len(fitting._kept) == 2
