"""``survey check``: everything that can be found wrong before anything is submitted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import emit_json
from orchestrator.cli.target import JsonOption, RootOption, load_target

__all__ = ["check"]


def check(
    study: Annotated[str, typer.Argument(help="study.yaml, or the folder or name of a study that was begun.")],
    root: RootOption = Path("runs"),
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Validate a study, choose the queue, render its script and say what it will cost; submits nothing."""
    from orchestrator.config.site import load_site
    from orchestrator.search.rehearsal import rehearse

    target = load_target(study, root)
    profile = load_site(site or target.site or "local")
    found = rehearse(target.study, profile, root=target.root, origin=target.origin, which=shutil.which)
    if as_json:
        facts: dict[str, Any] = {
            "study": target.study.name,
            "site": profile.name,
            "script": found.script,
            "cost": found.cost,
            "warnings": list(found.warnings),
        }
        emit_json(facts)
        return
    typer.echo(found.script)
    for line in found.summary:
        typer.echo(line, err=True)
    for line in found.warnings:
        typer.echo(f"warning: {line}", err=True)
    typer.echo("nothing was submitted", err=True)
