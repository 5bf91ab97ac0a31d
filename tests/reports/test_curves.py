from __future__ import annotations

import numpy as np
import pytest
from study_records import START, from_values, study, training_like, trial

from orchestrator.errors import UsageError
from orchestrator.reports.curves import best_so_far, durations, gpu_hours, mean_band, t_quantile, utilisation


def test_a_failed_trial_counts_and_keeps_the_best() -> None:
    x, y = best_so_far(from_values([None, 0.3, None, 0.2, 0.5]))
    assert x.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_equal(y, [np.nan, 0.3, 0.3, 0.3, 0.5])


def test_the_best_of_a_minimised_objective_is_its_lowest() -> None:
    _, y = best_so_far(from_values([0.3, 0.4, 0.1], directions=("minimize",)))
    assert y.tolist() == [0.3, 0.3, 0.1]


def test_trials_are_counted_in_the_order_of_their_ends() -> None:
    record = study([trial(0, 0.9, ended=300.0), trial(1, 0.1, ended=100.0), trial(2, 0.5, ended=200.0)])
    assert best_so_far(record)[1].tolist() == [0.1, 0.5, 0.9]


def test_running_and_waiting_trials_are_not_counted() -> None:
    record = study([trial(0, 0.5), trial(1, None, state="running"), trial(2, None, state="waiting")])
    assert best_so_far(record)[0].tolist() == [1.0]


def test_a_pruned_trial_counts_without_its_value() -> None:
    record = study([trial(0, 0.5), trial(1, 0.9, state="pruned")])
    assert best_so_far(record)[1].tolist() == [0.5, 0.5]


def test_a_failed_trial_and_its_retry_share_one_place() -> None:
    record = study([trial(0, None), trial(1, 0.4), trial(2, 0.6, retry_of=0)])
    x, y = best_so_far(record)
    assert x.tolist() == [1.0, 2.0]
    assert y.tolist() == [0.4, 0.6]


def test_time_is_counted_from_the_first_trial_that_was_made() -> None:
    # The first trial was made 80 s before its end at 100 s.
    x, _ = best_so_far(from_values([0.1, 0.2]), by="time")
    assert x.tolist() == [80.0, 180.0]


def test_gpu_hours_add_up_over_trials_superseded_ones_included() -> None:
    trials = [trial(0, None, gpus=("0",)), trial(1, 0.4, gpus=("0", "1")), trial(2, 0.6, retry_of=0, gpus=("0",))]
    x, y = best_so_far(study(trials), by="gpu-hours")
    np.testing.assert_allclose(x, [180 / 3600, 240 / 3600])
    assert y.tolist() == [0.4, 0.6]
    assert gpu_hours(trials) == pytest.approx(240 / 3600)


def test_gpu_hours_of_a_study_without_gpus_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="aneurysm used a GPU"):
        best_so_far(from_values([0.1]), by="gpu-hours")


def test_an_empty_study_gives_empty_curves() -> None:
    assert [len(part) for part in best_so_far(study())] == [0, 0]
    assert [len(part) for part in best_so_far(study(), by="gpu-hours")] == [0, 0]


def test_the_band_of_three_repeats_is_their_range() -> None:
    band = mean_band([np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([3.0, 9.0])])
    assert (band.kind, band.n) == ("range", 3)
    assert (band.mean.tolist(), band.low.tolist(), band.high.tolist()) == ([2.0, 5.0], [1.0, 2.0], [3.0, 9.0])
    assert band.words == "lowest to highest of 3 repeats"


def test_the_band_of_five_repeats_is_a_t_interval() -> None:
    band = mean_band([np.array([float(value)]) for value in (1, 2, 3, 4, 5)])
    # t(0.975, 4) = 2.776445 (any table); SD of 1..5 is sqrt(2.5).
    half = 2.776445 * np.sqrt(2.5) / np.sqrt(5)
    assert band.kind == "t"
    assert band.low[0] == pytest.approx(3 - half, rel=1e-6)
    assert band.high[0] == pytest.approx(3 + half, rel=1e-6)
    assert "95% t interval" in band.words


def test_one_repeat_has_no_band() -> None:
    band = mean_band([np.array([1.0, 2.0])])
    assert band.kind == "none"
    assert band.low.tolist() == band.high.tolist() == [1.0, 2.0]


def test_repeats_of_unequal_length_are_averaged_as_far_as_all_go() -> None:
    band = mean_band([np.array([1.0, 2.0, 3.0]), np.array([3.0, np.nan])])
    np.testing.assert_equal(band.mean, [2.0, np.nan])


def test_a_band_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_band([])


def test_t_quantiles_agree_with_the_tables() -> None:
    assert t_quantile(0.95, 2) == pytest.approx(4.302653, rel=1e-6)
    assert t_quantile(0.99, 10) == pytest.approx(3.169273, rel=1e-6)


def test_slot_time_is_split_into_running_waiting_and_empty() -> None:
    # Two slots over 100 s: one runs 0-100 (20 s of it waiting), one runs 0-40 without waiting.
    record = study(
        [
            trial(0, 0.5, created=START, submitted=START, started=START + 20, ended=100.0),
            trial(1, 0.5, created=START, submitted=START, started=START, ended=40.0),
        ]
    )
    use = utilisation(record)
    assert use.span == 100.0
    assert (use.running, use.waiting, use.empty) == pytest.approx((0.6, 0.1, 0.3))
    assert use.idle_share == pytest.approx(0.4)
    assert [[stay.number for stay in lane] for lane in use.slots] == [[0], [1]]


def test_a_trial_follows_in_the_slot_that_became_free_last() -> None:
    def stay(number: int, begin: float, end: float) -> object:
        return trial(number, 0.5, created=START + begin, submitted=None, started=START + begin, ended=end)

    record = study([stay(0, 0, 50), stay(1, 0, 90), stay(2, 95, 120)])  # type: ignore[list-item]
    assert [[s.number for s in lane] for lane in utilisation(record).slots] == [[0], [1, 2]]


def test_a_running_trial_holds_its_slot_until_now() -> None:
    running = trial(0, None, state="running", created=START, submitted=START, started=START + 10)
    from dataclasses import replace

    record = study([replace(running, ended=None)], parallel=1, updated=START + 50, state="running")
    use = utilisation(record)
    assert use.span == 50.0
    assert (use.running, use.waiting) == pytest.approx((0.8, 0.2))


def test_shares_add_up_to_one_in_a_study_like_a_real_one() -> None:
    use = utilisation(training_like(60, parallel=4))
    assert use.running + use.waiting + use.empty == pytest.approx(1.0)
    assert len(use.slots) == 4
    assert 0.0 < use.idle_share < 0.3


def test_utilisation_of_an_empty_study_is_zero() -> None:
    use = utilisation(study())
    assert (use.slots, use.span, use.idle_share) == ((), 0.0, 0.0)


def test_durations_say_nan_for_what_is_not_known() -> None:
    found = durations(study([trial(0, 0.5, ask_seconds=0.25), trial(1, None, started=None)]))
    assert found.number.tolist() == [0, 1]
    assert found.run[0] == 60.0
    assert found.wait[0] == 20.0
    assert found.ask[0] == 0.25
    assert np.isnan([found.run[1], found.wait[1], found.ask[1]]).all()
