from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import _pylab_helpers
from study_records import SPACE, from_values, study, training_like, trial

from orchestrator.errors import UsageError
from orchestrator.reports import figures
from orchestrator.reports.axes import NOT_SET, parameter_axes, value_range
from orchestrator.reports.compare import Arm, ComparisonResult, compare

FIGURES = [
    figures.history_figure,
    figures.parameters_figure,
    figures.parallel_figure,
    figures.slots_figure,
]


def result(repeats: int = 3) -> ComparisonResult:
    def arm(sampler: str, parallel: int, repeat: int) -> Arm:
        record = training_like(20, parallel=parallel, seed=repeat + 10 * parallel)
        return Arm(
            label=f"{sampler}-{parallel}-{repeat}", sampler=sampler, parallel=parallel, repeat=repeat, record=record
        )

    arms = [arm("bo", parallel, repeat) for parallel in (1, 2, 4, 8) for repeat in range(repeats)]
    return compare([*arms, *(arm("random", 16, repeat) for repeat in range(repeats))])


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_comparison_is_written_as_png_and_as_svg_with_text_as_text(tmp_path: Path) -> None:
    png, svg = figures.comparison_figure(result(), tmp_path / "new" / "fig.3")
    assert (png.name, svg.name) == ("fig.3.png", "fig.3.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    words = texts(svg.read_text(encoding="utf-8"))
    assert {"random", "bo, N = 1", "bo, N = 8", "trials ended", "best pauc so far (mean)"} <= set(words)
    assert "band: lowest to highest of 3 repeats" in words


def test_the_comparison_is_one_latex_column_wide(tmp_path: Path) -> None:
    (svg,) = figures.comparison_figure(result(1), tmp_path / "fig", formats=("svg",))
    assert 'width="252pt"' in svg.read_text(encoding="utf-8")


def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    once = figures.comparison_figure(result(), tmp_path / "a", formats=("png", "svg", "pdf"))
    again = figures.comparison_figure(result(), tmp_path / "b", formats=("png", "svg", "pdf"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_the_lines_of_a_comparison_differ_in_more_than_colour(tmp_path: Path) -> None:
    (svg,) = figures.comparison_figure(result(), tmp_path / "fig", formats=("svg",))
    styles = set(re.findall(r"stroke-dasharray: ([^;]+);", svg.read_text(encoding="utf-8")))
    assert len(styles) >= 4


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_of_a_study_is_an_element_whose_colours_are_the_pages(figure: object) -> None:
    assert callable(figure)
    svg = figure(training_like(30))
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert "var(--ink)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) in ([], ["#000000"] * svg.count("#000000"))
    assert "metadata" not in svg


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_has_nothing_to_show_of_an_empty_study(figure: object) -> None:
    assert callable(figure)
    assert figure(study()) is None


def test_figures_in_one_page_do_not_share_ids() -> None:
    ids: list[str] = []
    for figure in FIGURES:
        ids += re.findall(r'\bid="([^"]+)"', figure(training_like(10)) or "")
    assert len(ids) == len(set(ids)) > 0


def test_references_within_a_figure_lead_somewhere() -> None:
    svg = figures.history_figure(training_like(30)) or ""
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used
    assert used <= ids


def test_a_name_with_markup_or_mathematics_is_drawn_as_it_is() -> None:
    name = 'a</text><script>alert("1")</script> $x^{ #0072b2'
    record = from_values([0.1, 0.2], objectives=(name,))
    svg = figures.history_figure(record) or ""
    assert "<script" not in svg
    assert name in texts(svg)


def test_a_name_in_another_script_is_drawn_without_complaint() -> None:
    svg = figures.history_figure(from_values([0.1, 0.2], objectives=("感度",))) or ""
    assert "感度" in texts(svg)


def test_drawing_leaves_the_users_matplotlib_alone() -> None:
    before = dict(mpl.rcParams)
    figures.history_figure(training_like(5))
    assert dict(mpl.rcParams) == before
    assert _pylab_helpers.Gcf.figs == {}


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(UsageError, match=r"survey-orchestrator\[report\]"):
        figures.history_figure(from_values([0.1]))


def test_one_diverged_trial_does_not_flatten_the_rest() -> None:
    values = [0.5 + index / 100 for index in range(20)]
    assert value_range([*values, -1e6], "maximize") == pytest.approx((0.545 - 3 * 0.1, 0.69), abs=0.03)
    assert value_range([*values, 1e6], "minimize") == pytest.approx((0.5, 0.645 + 3 * 0.1), abs=0.03)
    # On the better side everything is shown.
    assert value_range([*values, 1e6], "maximize") == (0.5, 1e6)
    assert value_range([float("nan")], "maximize") is None
    record = from_values([*values, -1e6])
    assert "off the scale" in texts(figures.history_figure(record) or "")


def test_axes_place_numbers_logarithms_and_choices() -> None:
    axes = {axis.name: axis for axis in parameter_axes(training_like(3))}
    assert axes["learning_rate"].place(1e-3) == pytest.approx(0.5)
    assert axes["dropout"].place(0.3) == pytest.approx(0.5)
    assert axes["optimizer"].place("adam") == pytest.approx(0.5)
    assert axes["augment"].place(True) == 0.25
    assert axes["augment"].place(1) is None
    assert [label for _, label in axes["learning_rate"].ticks] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert [label for _, label in axes["layers"].ticks] == ["1", "2", "4", "5", "6"]


def test_a_fixed_parameter_has_no_axis() -> None:
    assert "epochs" in SPACE
    assert "epochs" not in {axis.name for axis in parameter_axes(training_like(3))}


def test_a_parameter_outside_the_space_takes_its_range_from_the_trials() -> None:
    record = study([trial(0, 0.1, params={"y": 2.0, "z": "b"}), trial(1, 0.2, params={"y": 4.0, "z": "a"})], space={})
    y, z = parameter_axes(record)
    assert (y.low, y.high, z.choices) == (2.0, 4.0, ("a", "b"))


def test_an_enqueued_trial_outside_its_range_widens_the_axis() -> None:
    record = study([trial(0, 0.1, params={"x": 3.0})])
    assert parameter_axes(record)[0].high == 3.0


def test_a_conditional_parameter_that_is_not_set_has_a_place_of_its_own() -> None:
    svg = figures.parallel_figure(training_like(30)) or ""
    assert "not set" in texts(svg)
    assert NOT_SET < 0


def test_slots_show_a_trial_that_runs_now() -> None:
    record = training_like(8)
    last = record.trials[-1]
    assert last.started is not None
    running = replace(last, state="running", ended=None, values=None)
    record = replace(record, trials=(*record.trials[:-1], running), updated=last.started + 5000)
    assert "running now" in texts(figures.slots_figure(record) or "")
