"""Several objectives and constraints in figures, report and export."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

import numpy as np
import pytest
from study_records import study, trial

from orchestrator.errors import UsageError
from orchestrator.reports.compare import Arm, compare
from orchestrator.reports.curves import best_so_far
from orchestrator.reports.export import columns, rows, to_csv
from orchestrator.reports.figures import history_figure, parallel_figure, parameters_figure
from orchestrator.reports.html import render_report
from orchestrator.reports.interactive import figures
from orchestrator.reports.pareto import pareto_figure
from orchestrator.store.record import StudyRecord, TrialRecord

BOUND = {"metric": "memory", "at_most": 16000.0}


def point(number: int, *values: float, beyond: float = -1.0) -> TrialRecord:
    return dataclasses.replace(
        trial(number, 0.5), values=values, metrics={"memory": 16000.0 + beyond}, constraints={"memory <= 16000": beyond}
    )


def several(*trials: TrialRecord, count: int = 2) -> StudyRecord:
    return study(
        trials,
        objectives=("loss", "seconds", "energy", "size", "noise")[:count],
        directions=("minimize", "maximize", "minimize", "minimize", "minimize")[:count],
        constraints=(BOUND,),
        where=("a <= b",),
    )


TWO = several(
    point(0, 3.0, 1.0), point(1, 1.0, 1.0), point(2, 2.0, 5.0), point(3, 0.0, 9.0, beyond=500.0), trial(4, None)
)


def words(figure: str | None) -> set[str]:
    assert figure is not None
    return set(re.findall(r">([^<>]+)</text>", figure))


def test_the_figure_has_the_front_with_its_numbers_and_what_breaks_a_constraint() -> None:
    assert words(pareto_figure(TWO)) >= {
        "1", "2", "dominated", "on the front", "breaks a constraint", "loss (minimize)", "seconds (maximize)",
    }  # fmt: skip


def test_without_constraints_the_figure_does_not_speak_of_them() -> None:
    assert "breaks a constraint" not in words(pareto_figure(several(point(0, 1.0, 1.0), point(1, 2.0, 0.5))))


@pytest.mark.parametrize(("count", "panels"), [(2, 1), (3, 3), (4, 6)])
def test_each_two_objectives_have_a_panel(count: int, panels: int) -> None:
    values = np.random.default_rng(1).random((8, count))
    figure = pareto_figure(several(*(point(number, *row) for number, row in enumerate(values)), count=count))
    assert figure is not None
    assert len(set(re.findall(r'id="pareto-(axes_\d+)"', figure))) == panels


def test_one_objective_five_of_them_or_no_complete_trial_have_no_such_figure() -> None:
    assert pareto_figure(study([trial(0, 1.0)])) is None
    assert pareto_figure(several(point(0, 1, 2, 3, 4, 5), count=5)) is None
    assert pareto_figure(several(trial(0, None))) is None


def test_equal_trials_and_one_alone_are_drawn() -> None:
    assert words(pareto_figure(several(point(0, 1.0, 1.0)))) >= {"0"}
    assert words(pareto_figure(several(point(0, 1.0, 1.0), point(1, 1.0, 1.0)))) >= {"0", "1"}


def test_what_breaks_a_constraint_is_never_the_best_so_far() -> None:
    assert best_so_far(TWO)[1].tolist() == [3.0, 1.0, 1.0, 1.0, 1.0]
    only = several(point(0, 1.0, 1.0, beyond=2.0), point(1, 5.0, 1.0))
    assert np.isnan(best_so_far(only)[1][0])
    assert best_so_far(only)[1][1] == 5.0


def test_the_report_of_several_objectives_has_the_front_in_place_of_the_best_trials() -> None:
    page = render_report(TWO)
    assert '<section id="front"' in page
    assert '<section id="best"' not in page
    assert "minimize loss, maximize seconds · memory at most 16000 ·" in page
    assert "Where a &lt;= b." in page
    front = page[page.index('id="table-front"') : page.index("</table>", page.index('id="table-front"'))]
    assert [row.split("</td>")[0] for row in re.findall(r"<tr><td>(.*)", front)] == ["1", "2"]
    assert 'class="s-infeasible">infeasible' in page
    assert '<section id="front"' not in render_report(study([trial(0, 1.0)]))


def test_a_report_in_which_nothing_is_feasible_says_so() -> None:
    record = several(point(0, 1.0, 1.0, beyond=3.0), point(1, 2.0, 2.0, beyond=1.0), count=2)
    page = render_report(record)
    assert "none is feasible" in page
    assert "No complete trial keeps to the constraints." in page
    assert record.nothing_feasible == (
        "none of 2 complete trials keeps to the constraints; the nearest, trial 1, breaks memory <= 16000 by 1"
    )
    assert all(
        figure is not None for figure in (history_figure(record), parameters_figure(record), parallel_figure(record))
    )
    assert figures(record)["history"]["data"][0]["marker"]["symbol"] == ["x-thin-open"] * 2


def test_the_history_marks_what_breaks_a_constraint() -> None:
    assert "breaks a constraint" in words(history_figure(TWO))
    assert "breaks a constraint" not in words(history_figure(study([trial(0, 1.0), trial(1, 2.0)])))


def test_the_parallel_coordinates_have_an_axis_for_each_objective() -> None:
    assert {"loss (rank)", "seconds (rank)"} <= words(parallel_figure(TWO))
    assert {"pauc (rank)"} <= words(parallel_figure(study([trial(0, 1.0), trial(1, 2.0)])))


def test_the_export_says_what_is_feasible_and_on_the_front() -> None:
    assert columns(TWO)[:6] == ("number", "state", "verdict", "feasible", "pareto", "values.loss")
    assert [(row["feasible"], row["pareto"]) for row in rows(TWO)] == [
        (True, False), (True, True), (True, True), (False, False), (None, None),
    ]  # fmt: skip
    read = list(csv.DictReader(io.StringIO(to_csv(TWO))))
    assert [row["pareto"] for row in read] == ["False", "True", "True", "False", ""]
    assert not {"feasible", "pareto"} & set(columns(study([trial(0, 1.0)])))


def test_studies_of_several_objectives_are_not_compared() -> None:
    arms = [Arm(label="a", sampler="random", parallel=1, repeat=1, record=TWO)]
    with pytest.raises(UsageError, match="compares one objective, and these studies have 2"):
        compare(arms)
