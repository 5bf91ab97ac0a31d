"""``survey report``: the study as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.target import RootOption, StudyArgument, find_folder

__all__ = ["report"]


def report(
    study: StudyArgument = "",
    root: RootOption = Path("runs"),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; report.html in the study's folder.")
    ] = None,
    no_picture: Annotated[
        bool, typer.Option("--no-picture", help="Without the best trial's overview.png, which may show a patient.")
    ] = False,
) -> None:
    """Write a self-contained HTML report and print its path."""
    from orchestrator.reports.html import write_report
    from orchestrator.store.evaluation import read_evaluation
    from orchestrator.studies.reader import read_study

    folder = find_folder(study, root)
    path = out or folder / "report.html"
    write_report(read_study(folder), path, evaluation=read_evaluation(folder), picture=not no_picture)
    typer.echo(str(path))
