"""``survey export``: the trials as CSV or JSON."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import emit_json
from orchestrator.cli.target import RootOption, StudyArgument, find_folder

__all__ = ["Format", "export"]


class Format(StrEnum):
    """What `survey export` writes."""

    CSV = "csv"
    JSON = "json"


def export(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    form: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.CSV,
    runs: Annotated[bool, typer.Option("--runs", help="One row for each run of a trial that has several.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write all trials to stdout: parameters, values, metrics, times, verdicts."""
    from orchestrator.reports.export import csv_of, rows, rows_of_runs, to_csv
    from orchestrator.studies.reader import read_study

    record = read_study(find_folder(study, root))
    if runs:
        names, table = rows_of_runs(record)
        if as_json or form is Format.JSON:
            emit_json({"study": record.name, "runs": table})
        else:
            sys.stdout.write(csv_of(names, table))
    elif as_json or form is Format.JSON:
        emit_json({"study": record.name, "trials": rows(record)})
    else:
        sys.stdout.write(to_csv(record))
