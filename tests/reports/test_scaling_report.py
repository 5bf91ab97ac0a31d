from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.reports.scaling import ScalingResult, scaling, scaling_figure
from orchestrator.store.record import StudyRecord, TrialRecord


def record(seconds: dict[int, float], *, quality: float = 0.5, x: float = 1.0, **info: Any) -> StudyRecord:
    """A study of complete trials, by number, with the times that they report."""
    trials = tuple(
        TrialRecord(
            number=number,
            state="complete",
            params={"x": x + number},
            values=(quality + number,),
            metrics={"score": quality + number, "train_seconds": time},
            info=info,
        )
        for number, time in seconds.items()
    )
    return StudyRecord(
        name="arm",
        objectives=("score",),
        directions=("maximize",),
        space={},
        sampler={},
        planned=len(trials),
        parallel=1,
        site="local",
        state="done",
        trials=trials,
    )


def amdahl(serial: float, counts: tuple[int, ...], *, one: float = 100.0) -> dict[int, StudyRecord]:
    return {count: record({0: one * (serial + (1 - serial) / count)}) for count in counts}


def result(records: dict[int, StudyRecord], over: str = "nodes") -> ScalingResult:
    return scaling(records, over=over, time="train_seconds")


@pytest.mark.parametrize("counts", [(1, 2, 4, 8), (2, 4, 16), (3, 5)])
@pytest.mark.parametrize("serial", [0.0, 0.05, 0.5, 1.0])
def test_times_that_follow_amdahls_law_give_its_serial_share_whatever_the_smallest_count(
    serial: float, counts: tuple[int, ...]
) -> None:
    found = result(amdahl(serial, counts))
    assert found.amdahl is not None
    assert found.amdahl.serial == pytest.approx(serial, abs=1e-9)
    assert found.amdahl.beyond == ""
    assert found.amdahl.limit == (pytest.approx(1 / serial) if serial else float("inf"))
    last, base = counts[-1], counts[0]
    expected = (serial + (1 - serial) / base) / (serial + (1 - serial) / last)
    assert found.points[-1].speedup == pytest.approx(expected)
    assert found.points[-1].efficiency == pytest.approx(expected * base / last)
    assert found.amdahl.speedup(last) / found.amdahl.speedup(base) == pytest.approx(expected)


def test_the_interval_holds_the_true_share_of_noisy_times_and_narrows_with_trials() -> None:
    # Noise that is fixed, of plus and minus four in a hundred.
    def noisy(trials: int) -> dict[int, StudyRecord]:
        return {
            count: record({k: 100 * (0.2 + 0.8 / count) * (1 + 0.04 * (-1) ** (k + count // 2)) for k in range(trials)})
            for count in (1, 2, 4)
        }

    few, many = result(noisy(2)).amdahl, result(noisy(10)).amdahl
    assert few is not None
    assert many is not None
    assert few.interval is not None
    assert many.interval is not None
    assert few.interval[0] < 0.2 < few.interval[1]
    assert many.interval[0] < 0.2 < many.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]


def test_counts_are_compared_trial_by_trial() -> None:
    found = result({1: record({0: 10.0, 1: 1000.0, 2: 50.0}), 2: record({0: 5.0, 1: 500.0}, quality=0.75)})
    second = found.points[1]
    assert second.trials == 2
    assert second.speedup == pytest.approx(2.0)  # and not what trial 2, which is missing there, would make of the means
    assert second.change == pytest.approx(0.25)
    assert second.change_interval == pytest.approx((0.25, 0.25))


def test_the_speedup_of_several_trials_is_their_geometric_mean() -> None:
    found = result({1: record({0: 8.0, 1: 8.0}), 2: record({0: 8.0, 1: 2.0})})
    assert found.points[1].speedup == pytest.approx(2.0)
    assert found.points[1].speedup_interval is not None
    assert found.points[1].speedup_interval[0] < 1.0
    assert found.points[1].speedup_interval[1] > 4.0


def test_more_devices_than_samples_of_a_batch_count_as_far_as_they_can_be_busy() -> None:
    """Else a small batch would look like a serial share."""
    times = {1: 100.0, 4: 25.0, 16: 25.0}
    found = result({n: record({0: time}, devices=n, busy_devices=min(n, 4)) for n, time in times.items()}, "gpus")
    assert found.amdahl is not None
    assert found.amdahl.serial == pytest.approx(0.0, abs=1e-9)
    assert found.points[-1].busy == 4
    assert "Of 16 no more than 4 had something to do" in found.to_markdown()


def test_a_program_that_uses_fewer_devices_than_it_was_given_is_told() -> None:
    found = result({1: record({0: 9.0}, devices=4), 2: record({0: 9.0}, devices=4)})
    assert "On nodes = 2 the program says that it trained on 4 devices." in found.to_markdown()
    grown = result({1: record({0: 9.0}, devices=4), 2: record({0: 9.0}, devices=8)})
    assert "the program says" not in grown.to_markdown()
    threads = result({1: record({0: 9.0}, devices=1), 2: record({0: 9.0}, devices=1)}, "threads")
    assert "the program says" not in threads.to_markdown()


@pytest.mark.parametrize(("times", "word"), [((10.0, 20.0), "slower"), ((10.0, 2.0), "faster")])
def test_times_that_amdahls_law_cannot_have_are_said_to_be_so(times: tuple[float, float], word: str) -> None:
    found = result({1: record({0: times[0]}), 2: record({0: times[1]})})
    assert found.amdahl is not None
    assert found.amdahl.beyond == word
    assert "Amdahl's law does not describe these times" in found.law


def test_a_count_without_a_trial_to_compare_is_left_out_and_named() -> None:
    found = result({1: record({0: 9.0}), 2: record({7: 3.0}), 4: record({0: 3.0}, x=5.0)})
    assert found.left_out == (2, 4)
    assert [point.count for point in found.points] == [1]
    assert found.amdahl is None
    assert "left out: 2, 4" in found.to_markdown()


def test_nothing_to_compare_with_and_no_time_are_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="no trial is complete on nodes = 1"):
        result({1: record({}), 2: record({0: 1.0})})
    with pytest.raises(UsageError, match="report no time 'hours'") as refused:
        scaling({1: record({0: 1.0}), 2: record({0: 1.0})}, over="nodes", time="hours")
    assert "train_seconds" in (refused.value.hint or "")


def test_the_figure_has_three_panels_and_is_the_same_twice(tmp_path: Path) -> None:
    found = result(amdahl(0.1, (1, 2, 4)))
    written = scaling_figure(found, tmp_path / "one")
    again = scaling_figure(found, tmp_path / "two")
    assert [path.name for path in written] == ["one.png", "one.svg"]
    text = written[1].read_text()
    for words in ("speed-up", "efficiency, %", "score", "Amdahl, 10.0% serial", "nodes"):
        assert words in text
    assert text == again[1].read_text()
