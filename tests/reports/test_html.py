from __future__ import annotations

import re
import stat
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from study_records import SPACE, from_values, study, training_like, trial

from orchestrator.errors import UsageError
from orchestrator.reports import interactive
from orchestrator.reports.compare import Arm, compare
from orchestrator.reports.html import render_report, write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """A page's elements and text, without the contents of scripts; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if plotly were not installed."""
    monkeypatch.setattr(interactive, "plotly_js", lambda: None)


STUDIES = {
    "new": study(state="new", planned=50),
    "one": from_values([0.5]),
    "all failed": from_values([None, None, None]),
    "running": replace(training_like(12), state="running", planned=40),
    "minimise": training_like(12, direction="minimize"),
    "same values": from_values([0.5] * 6),
    "without a space": study([trial(0, 0.1, params={}), trial(1, 0.2, params={})], space={}),
    "without times": study(
        [trial(n, n / 10, created=None, submitted=None, started=None) for n in range(3)], updated=0.0
    ),
    "two objectives": study(
        [trial(n, None, state="complete", values=(n / 10, 1.0)) for n in range(5)],
        objectives=("pauc", "dice"),
        directions=("maximize", "maximize"),
    ),
}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.usefixtures("plain")
def test_a_report_of_any_study_is_whole(name: str) -> None:
    page = Page(render_report(STUDIES[name]))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    best = ["front", "history"] if name == "two objectives" else ["history", "best"]
    assert sections == [
        "summary", *best, "parameters", "importances", "parallel", "failures", "slots", "trials", "space", "provenance",
    ]  # fmt: skip


@pytest.mark.usefixtures("plain")
def test_the_summary_says_what_there_is() -> None:
    page = Page(render_report(from_values([0.25, None, 0.75], planned=10, state="running")))
    assert "best pauc 0.75 trial 2" in page.text
    assert "3 of 10" in page.text
    assert "2 complete, 1 failed" in page.text
    assert Page(render_report(study(state="new"))).text.count("No trial is complete yet") == 1


@pytest.mark.usefixtures("plain")
def test_a_study_cannot_put_markup_into_its_report() -> None:
    record = study(
        [
            trial(n, n / 10, params={EVIL: EVIL if n % 2 else "b"}, metrics={EVIL: 1.0}, host=EVIL, job_id=EVIL)
            for n in range(6)
        ]
        + [trial(6, None, reason=EVIL, verdict=EVIL)],
        name=EVIL,
        objectives=(EVIL,),
        message=EVIL,
        site=EVIL,
        space={EVIL: {"type": "categorical", "choices": [EVIL, "b"], "when": {EVIL: EVIL}}},
        sampler={"name": EVIL},
        provenance={"git": {"commit": EVIL}, "packages": {EVIL: EVIL}},
    )
    arm = Arm(label=EVIL, sampler=EVIL, parallel=1, repeat=0, record=record)
    page = Page(render_report(record, comparison=compare([arm], baseline=EVIL)))
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert all(attributes.get("nonce") for attributes in scripts)
    assert [attributes for tag, attributes in page.tags if tag == "img" or "onerror" in attributes] == []


def test_names_cannot_leave_the_data_of_the_interactive_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "plotly_js", lambda: "window.Plotly = {};")
    html = render_report(from_values([0.1, 0.2], objectives=("</script><script>alert(1)</script>",)))
    page = Page(html)
    assert all(attributes.get("nonce") for tag, attributes in page.tags if tag == "script")
    assert "<b>" not in str(interactive.figures(from_values([0.1, 0.2], objectives=("<b>",))))


def test_a_report_asks_nobody_for_anything() -> None:
    html = render_report(training_like(12))
    page = Page(html)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    styles = re.findall(r"<style.*?</style>", html, flags=re.DOTALL)
    assert not any("@import" in text or "url(http" in text for text in styles)


def test_plotly_is_in_the_file_where_it_is_installed() -> None:
    html = render_report(training_like(12))
    assert "plotly.js v" in html
    assert 'data-plot="history"' in html
    assert 'data-plot="parallel"' in html


def test_without_plotly_the_figures_are_plain_and_the_file_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    html = render_report(training_like(12))
    assert "Plotly" not in html
    assert len(html) < 500_000
    assert html.count("<svg") == 5


@pytest.mark.slow
def test_a_thousand_trials_of_seventeen_parameters_fit_in_eight_megabytes() -> None:
    record = training_like(1000, parallel=16)
    extra: dict[str, dict[str, Any]] = {f"p{index}": {"type": "float", "low": 0.0, "high": 1.0} for index in range(10)}
    trials = tuple(
        replace(t, params={**t.params, **{name: (t.number * (i + 7) % 1000) / 1000 for i, name in enumerate(extra)}})
        for t in record.trials
    )
    record = replace(record, trials=trials, space={**SPACE, **extra})
    assert len(render_report(record).encode()) < 8_000_000


@pytest.mark.usefixtures("plain")
def test_names_of_files_and_people_stay_out() -> None:
    record = training_like(40)
    trials = tuple(replace(t, info={"case": "Tanaka"}, directory="/work/Tanaka/00001") for t in record.trials)
    html = render_report(replace(record, trials=trials, root="/home/Tanaka", message="see /home/Tanaka/log"))
    assert "cannot read &#39;[path]&#39;" in html
    assert not any(word in html for word in ("Tanaka", "patient_0012", "someone", "secret-diff"))


@pytest.mark.usefixtures("plain")
def test_a_comparison_has_a_section_of_its_own() -> None:
    arms = [
        Arm(label=f"{s}{r}", sampler=s, parallel=1, repeat=r, record=from_values([0.1, 0.2 + r / 10 + d]))
        for s, d in (("random", 0.0), ("bo", 0.1))
        for r in range(2)
    ]
    page = Page(render_report(arms[-1].record, comparison=compare(arms)))
    assert "gain over random" in page.text
    assert "+0.1 [+0.1, +0.1], n=2" in page.text


@pytest.mark.usefixtures("plain")
def test_a_report_is_written_whole_for_its_owner_only(tmp_path: Path) -> None:
    path = write_report(from_values([0.5]), tmp_path / "new" / "report.html")
    assert path == tmp_path / "new" / "report.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


@pytest.mark.usefixtures("plain")
def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        write_report(from_values([0.5]), tmp_path / "file" / "report.html")
