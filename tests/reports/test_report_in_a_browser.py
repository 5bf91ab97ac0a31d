"""A report opened in Chromium: its scripts run, its tables sort, and it asks for nothing."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from browser import dump_dom
from study_records import from_values, study, training_like, trial
from test_picture import left, png

from orchestrator.reports import interactive
from orchestrator.reports.html import render_report

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store.record import StudyRecord

pytestmark = pytest.mark.system

# Stands first in the page, so that nothing the page does can escape it.
LISTEN = """
const seen = { errors: [], violations: [], requests: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.violations.push(event.violatedDirective + " " + event.blockedURI));
"""

# Stands last: sorts every table by every column, both ways, and says what the page looks like.
ACT = """
addEventListener("load", () => setTimeout(() => {
  const column = (table, index) => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.key ?? row.cells[index].textContent);
  seen.sorted = {};
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const before = table.tBodies[0].rows.length;
    heads.forEach((head, index) => {
      const orders = [];
      for (let click = 0; click < 2; click++) {
        head.firstElementChild.click();
        orders.push([head.getAttribute("aria-sort"), column(table, index)]);
      }
      seen.sorted[table.id + "/" + head.textContent] = orders;
    });
    if (table.tBodies[0].rows.length !== before) seen.errors.push("rows lost in " + table.id);
  }
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("data:"));
  seen.plots = Object.fromEntries([...document.querySelectorAll("[data-plot]")].map((place) =>
    [place.dataset.plot, { shown: !place.hidden, drawn: place.querySelectorAll("svg").length > 0, plain: !place.previousElementSibling.hidden }]));
  seen.images = [...document.images].map((image) => [image.naturalWidth, image.naturalHeight]);
  seen.title = document.title;
  seen.ink = getComputedStyle(document.body).color;
  seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.documentElement.dataset.seen = JSON.stringify(seen);
}, 3000));
"""


def look(record: StudyRecord, folder: Path, *options: str) -> dict[str, Any]:
    """What the browser saw of the record's report."""
    text = render_report(record)
    nonce = re.search(r'<script nonce="([^"]+)"', text)
    assert nonce is not None
    tag = f'<script nonce="{nonce[1]}">'
    text = text.replace("<title>", f"{tag}{LISTEN}</script><title>", 1)
    end = text.rindex("</body>")
    page = folder / "report.html"
    page.write_text(f"{text[:end]}{tag}{ACT}</script>{text[end:]}", encoding="utf-8")
    seen = re.search(r'data-seen="([^"]*)"', dump_dom(page, options=options))
    assert seen is not None, "the page's scripts did not come to their end"
    found: dict[str, Any] = json.loads(html.unescape(seen[1]))
    return found


def test_scripts_run_without_errors_and_nothing_is_requested(tmp_path: Path) -> None:
    seen = look(training_like(30), tmp_path)
    assert seen["errors"] == []
    assert seen["violations"] == []
    assert seen["requests"] == []
    history = seen["plots"]["history"]
    assert history == {"shown": True, "drawn": True, "plain": False}
    # With or without WebGL there is exactly one picture of the parallel coordinates.
    assert seen["plots"]["parallel"]["shown"] is not seen["plots"]["parallel"]["plain"]
    assert not seen["wide"]


def test_a_click_on_a_heading_sorts_numbers_as_numbers_with_gaps_last(tmp_path: Path) -> None:
    record = from_values([0.5, 10.0, None, 9.0, -2.0])
    (up, ascending), (down, descending) = look(record, tmp_path)["sorted"]["table-trials/pauc"]
    assert (up, ascending) == ("ascending", ["-2", "0.5", "9", "10", ""])
    assert (down, descending) == ("descending", ["10", "9", "0.5", "-2", ""])


def test_a_click_on_a_heading_sorts_words(tmp_path: Path) -> None:
    record = study([trial(number, 0.5, host=host) for number, host in enumerate(["b2", "a10", "c1"])])
    seen = look(record, tmp_path)
    assert seen["sorted"]["table-trials/host"][0] == ["ascending", ["a10", "b2", "c1"]]


def test_without_plotly_the_plain_figures_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "plotly_js", lambda: None)
    seen = look(training_like(10), tmp_path)
    assert seen["errors"] == seen["violations"] == []
    assert seen["plots"] == {}


def test_the_page_is_dark_where_the_reader_wants_it_dark(tmp_path: Path) -> None:
    light = look(from_values([0.5]), tmp_path)["ink"]
    dark = look(from_values([0.5]), tmp_path, "--blink-settings=preferredColorScheme=0")["ink"]
    assert (light, dark) == ("rgb(20, 24, 31)", "rgb(232, 235, 239)")


def test_the_picture_of_the_best_trial_is_drawn(tmp_path: Path) -> None:
    record = study([trial(0, 0.5, directory=left(tmp_path / "attempt", png()))])
    seen = look(record, tmp_path)
    assert seen["images"] == [[1, 1]]
    assert seen["errors"] == seen["violations"] == seen["requests"] == []


def test_a_script_in_a_name_does_not_run(tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    record = from_values([0.5, 0.6], name=evil, objectives=(evil,))
    seen = look(record, tmp_path)
    assert seen["errors"] == seen["violations"] == seen["requests"] == []
    assert seen["title"] == f"{evil} - survey report"
