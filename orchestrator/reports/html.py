"""The report of a study: one HTML file that needs nothing else and asks nobody for anything.

Clinical sites block the network, and a request would tell that a study exists: scripts, styles and
figures are in the file, and its Content-Security-Policy forbids the browser every connection. Every
word of a study is escaped, and a script runs only if it carries the file's own nonce.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.reports import figures, interactive
from orchestrator.reports.axes import label
from orchestrator.reports.curves import gpu_hours, job_hours, utilisation
from orchestrator.reports.importance import FEWEST, importances
from orchestrator.reports.pareto import MOST_OBJECTIVES, pareto_figure
from orchestrator.reports.picture import best_picture
from orchestrator.reports.privacy import provenance_rows, without_paths
from orchestrator.store import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.model import Json
    from orchestrator.reports.compare import ComparisonResult
    from orchestrator.store.evaluation import EvaluationRecord
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["Cell", "Table", "render_report", "write_report"]

TEMPLATE = "report.html.j2"
BEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table's cell: what is read, what it is sorted by, and how it is set."""

    text: str
    key: float | str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that a click on a heading sorts."""

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def write_report(
    record: StudyRecord,
    path: str | Path,
    *,
    comparison: ComparisonResult | None = None,
    evaluation: EvaluationRecord | None = None,
    picture: bool = True,
) -> Path:
    """Write the study's report, whole or not at all, readable by its owner only.

    Parameters
    ----------
    comparison : ComparisonResult, optional
        Adds the comparison that the study is an arm of.
    evaluation : EvaluationRecord, optional
        Adds what its best trials came to on the test cases.
    picture : bool
        Whether the ``overview.png`` of the best trial is shown, where it left one.

    Returns
    -------
    Path
        Absolute path of the file.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the path cannot be written.
    """
    path = Path(path).absolute()
    text = render_report(record, comparison=comparison, evaluation=evaluation, picture=picture)
    atomic.make_directory(path.parent)
    atomic.write_bytes(path, text.encode())
    return path


def render_report(
    record: StudyRecord,
    *,
    comparison: ComparisonResult | None = None,
    evaluation: EvaluationRecord | None = None,
    picture: bool = True,
) -> str:
    """Make the report's HTML.

    With plotly installed the history and the parallel coordinates answer to the mouse; without it, or
    where the browser cannot run them, they are plain figures.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    found = importances(record)
    svgs = {
        "history": figures.history_figure(record),
        "pareto": pareto_figure(record),
        "parameters": figures.parameters_figure(record),
        "importances": figures.importances_figure(found),
        "parallel": figures.parallel_figure(record),
        "slots": figures.slots_figure(record),
        "comparison": None if comparison is None else figures.comparison_svg(comparison),
    }
    specs = interactive.figures(record)
    return environment.get_template(TEMPLATE).render(
        record=record,
        nonce=secrets.token_urlsafe(16),
        state=_state(record),
        updated=_moment(record.updated) if record.updated else "",
        message=without_paths(record.message),
        facts=_facts(record),
        best=[(name, label(value)) for trial in record.best() for name, value in trial.params.items()],
        best_number=next((trial.number for trial in record.best()), None),
        picture=best_picture(record) if picture else None,
        svg={name: Markup(svg or "") for name, svg in svgs.items()},  # noqa: S704  matplotlib escapes a figure's texts
        plots=specs,
        plotly=Markup(_script()) if specs else "",  # noqa: S704  plotly's own source, which holds no study's words
        verdicts=_verdicts(record),
        best_table=_trials(record, "best", "The best trials", record.best(BEST)),
        tested_table=None if evaluation is None else _tested(record, evaluation),
        front_table=_trials(record, "front", "Trials on the front", record.front()),
        most_objectives=MOST_OBJECTIVES,
        goals=[f"{way} {name}" for way, name in zip(record.directions, record.objectives, strict=True)],
        bounds=[_bound(each) for each in record.constraints],
        failures=_failures(record),
        all_table=_trials(record, "trials", "All trials, by number", record.trials),
        importances=found,
        fewest=FEWEST,
        use=utilisation(record),
        comparison=comparison,
        comparison_table=None if comparison is None else _comparison(comparison),
        provenance=provenance_rows(record.provenance),
        space=_space(record),
        sampler=_sampler(record),
    )


def _script() -> str:
    # A script element ends at its end tag, wherever that stands.
    return (interactive.plotly_js() or "").replace("</script", "<\\/script")


def _facts(record: StudyRecord) -> list[tuple[str, str, str]]:
    ended = len(record.finished)
    use = utilisation(record)
    failed = sum(trial.state == "failed" for trial in record.trials)
    gpus = gpu_hours(record.trials)
    facts = [
        *_best_facts(record),
        ("trials ended", f"{ended} of {record.planned}", f"{len(record.complete)} complete, {failed} failed"),
        ("idle share", f"{use.idle_share:.0%}" if use.span else "-", f"of {record.parallel} slots' time"),
        ("took", _duration(use.span) if use.span else "-", f"on {record.site}"),
        ("job-hours", f"{job_hours(record.trials):.2f}", "programs running, last attempts"),
    ]
    if gpus:
        facts.append(("GPU-hours", f"{gpus:.2f}", "last attempts"))
    return facts


def _best_facts(record: StudyRecord) -> list[tuple[str, str, str]]:
    """The best trial of one objective; the front of several."""
    nothing = "none is feasible" if record.nothing_feasible else "none yet"
    on = record.front()
    if len(record.objectives) > 1:
        return [("on the front", f"{len(on)} trials" if len(on) != 1 else "1 trial", nothing if not on else "")]
    if not on:
        return [(f"best {record.objectives[0]}", nothing, record.directions[0])]
    return [(f"best {record.objectives[0]}", f"{(on[0].values or (0.0,))[0]:.6g}", f"trial {on[0].number}")]


def _bound(constraint: Mapping[str, Json]) -> str:
    bounds = [f"{word} {constraint[key]:g}" for key, word in _BOUNDS.items() if constraint.get(key) is not None]
    return f"{_word(constraint['metric'])} {' and '.join(bounds)}"


_BOUNDS = {"at_least": "at least", "at_most": "at most"}


def _state(record: StudyRecord) -> tuple[str, str]:
    words = {
        "new": "not started",
        "running": "running",
        "interrupted": "interrupted: run it again to go on",
        "paused": "paused: it waits for a person",
        "done": "done",
    }
    return record.state, words.get(record.state, record.state)


def _verdicts(record: StudyRecord) -> Table:
    counted = Counter((_shown_state(trial), trial.verdict or "") for trial in record.trials)
    rows = tuple(
        (Cell(text=state, key=state, mark=state), Cell(text=verdict, key=verdict), _number(count))
        for (state, verdict), count in sorted(counted.items(), key=lambda item: -item[1])
    )
    return Table(name="verdicts", caption="Trials by state and verdict", head=("state", "verdict", "trials"), rows=rows)


def _trials(record: StudyRecord, name: str, caption: str, trials: tuple[TrialRecord, ...]) -> Table:
    params = list(record.space)
    params += sorted({key for trial in record.trials for key in trial.params} - set(params))
    metrics = sorted({key for trial in trials for key in trial.metrics} - set(record.objectives))
    head = ("trial", "state", *record.objectives, *params, *metrics, "ran (s)", "waited (s)", "attempts", "host")
    rows = tuple(
        (
            _number(trial.number),
            Cell(text=(shown := _shown_state(trial)), key=shown, mark=shown),
            *(
                _number(trial.values[index] if trial.values and index < len(trial.values) else None)
                for index in range(len(record.objectives))
            ),
            *(_param(trial.params.get(key), unset=key not in trial.params) for key in params),
            *(_number(trial.metrics.get(key)) for key in metrics),
            _number(_between(trial.started, trial.ended)),
            _number(_between(trial.submitted, trial.started)),
            _number(trial.attempts),
            Cell(text=trial.host, key=trial.host),
        )
        for trial in trials
    )
    return Table(name=name, caption=caption, head=head, rows=rows)


def _tested(record: StudyRecord, evaluation: EvaluationRecord) -> Table:
    """The best trials: by what they were chosen, and what they came to on the test cases."""
    head = ["trial", *(f"{name} (chosen by)" for name in record.objectives)]
    head += [words for name in evaluation.metrics for words in (f"{name}, mean", "sd")]
    rows = []
    for trial in evaluation.trials:
        row = [_number(trial.number), *(_number(value) for value in trial.values)]
        results = [trial.result(name) for name in evaluation.metrics]
        row += [_number(found and found[index]) for found in results for index in (0, 1)]
        row.append(_number(max((found[2] for found in results if found), default=0)))
        rows.append(tuple(row))
    caption = "Runs with seeds that the search has not used; the search never learned of them."
    return Table(name="tested", caption=caption, head=(*head, "runs"), rows=tuple(rows))


def _shown_state(trial: TrialRecord) -> str:
    return "infeasible" if trial.state == "complete" and not trial.feasible else trial.state


def _failures(record: StudyRecord) -> Table:
    rows = tuple(
        (
            _number(trial.number),
            Cell(text=trial.verdict or "", key=trial.verdict or ""),
            Cell(text=(reason := without_paths(trial.reason)), key=reason),
            _number(trial.attempts),
            Cell(text=trial.host, key=trial.host),
            Cell(text=trial.job_id, key=trial.job_id),
        )
        for trial in record.trials
        if trial.state == "failed"
    )
    head = ("trial", "verdict", "reason", "attempts", "host", "job")
    return Table(name="failures", caption="Failed trials", head=head, rows=rows)


def _comparison(result: ComparisonResult) -> Table:
    head = ("sampler", "N", "repeats", "mean", "SD", "median", "to target", "reached", "area", "hours")
    rows = tuple(
        (
            Cell(text=row.sampler, key=row.sampler),
            *(
                _number(value)
                for value in (
                    row.parallel, row.repeats, row.mean, row.sd, row.median, row.reach, row.reached, row.area, row.hours
                )
            ),
            Cell(
                text=result.gain_words(row),
                key="" if row.gain is None or row.gain.mean is None else row.gain.mean,
            ),
        )
        for row in result.rows
    )  # fmt: skip
    caption = f"After {result.trials} trials"
    return Table(name="comparison", caption=caption, head=(*head, f"gain over {result.baseline}"), rows=rows)


def _space(record: StudyRecord) -> Table:
    rows = []
    for name, entry in record.space.items():
        choices = entry.get("choices")
        if isinstance(choices, list | tuple):
            extent = ", ".join(_word(choice) for choice in choices)
        elif "value" in entry:
            extent = _word(entry["value"])
        else:
            extent = f"{label(entry.get('low'))} to {label(entry.get('high'))}"
        flags = [word for word in ("log",) if entry.get(word)]
        flags += [f"step {_word(entry['step'])}"] if entry.get("step") else []
        rows.append(
            tuple(
                Cell(text=text, key=text)
                for text in (
                    name,
                    _word(entry.get("type", "")),
                    extent,
                    ", ".join(flags),
                    _when(entry.get("when")),
                )
            )
        )
    head = ("parameter", "type", "range", "scale", "only when")
    return Table(name="space", caption="Search space", head=head, rows=tuple(rows))


def _sampler(record: StudyRecord) -> str:
    rest = [f"{name} {_word(value)}" for name, value in record.sampler.items() if name != "name" and value]
    name = _word(record.sampler.get("name", ""))
    return f"{name} ({', '.join(rest)})" if rest else name


def _when(condition: Json) -> str:
    if not isinstance(condition, dict):
        return _word(condition) if condition else ""
    parts = []
    for name, value in condition.items():
        several = isinstance(value, list | tuple)
        parts.append(f"{name} in {', '.join(map(_word, value))}" if several else f"{name} = {_word(value)}")
    return " and ".join(parts)


def _number(value: float | None) -> Cell:
    if value is None:
        return Cell(text="")
    if not math.isfinite(value):
        return Cell(text=str(value), key=str(value))
    # Sorted by what is read: a second number in each of many cells would make the file much larger.
    text = str(value) if isinstance(value, int) else f"{value:.6g}"
    return Cell(text=text, key=text)


def _param(value: Json, *, unset: bool) -> Cell:
    if unset:
        return Cell(text="not set", mark="unset")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return Cell(text=label(value), key=_word(value))


def _word(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _between(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else max(0.0, second - first)


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
