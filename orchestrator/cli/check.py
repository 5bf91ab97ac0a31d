"""``survey check``: everything that can be found wrong before anything is submitted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import emit_json
from orchestrator.cli.target import JsonOption, RootOption, load_target
from orchestrator.errors import UsageError

__all__ = ["check"]


def check(
    study: Annotated[str, typer.Argument(help="study.yaml, or the folder or name of a study that was begun.")],
    root: RootOption = Path("runs"),
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Validate a study, choose the queue, render its script and say what it will cost; submits nothing.

    Works without the site's commands, too, and says then what was not checked. Ends with 2 where `run` would
    refuse the study on the site itself.
    """
    from orchestrator.cli.forecast import forecast
    from orchestrator.config.site import load_site

    target = load_target(study, root)
    profile = load_site(site or target.site or "local")
    found = forecast(target.study, profile, root=target.root, origin=target.origin)
    unchecked = [line for line in (found.elsewhere, *found.unchecked) if line]
    if as_json:
        facts = {"study": target.study.name, "site": profile.name, "script": found.script}
        cost = dataclasses.asdict(found.cost)
        notes = {"refused": found.refusals, "unchecked": unchecked, "warnings": found.warnings}
        emit_json({**facts, "cost": cost, **notes})
    else:
        typer.echo(found.script)
        for line in (found.headline, str(found.cost)):
            typer.echo(line, err=True)
        for word, lines in (("warning", found.warnings), ("not checked", unchecked)):
            for line in lines:
                typer.echo(f"{word}: {line}", err=True)
    if found.refusals:
        raise UsageError("\n  ".join(found.refusals), hint="nothing was submitted")
    if not as_json:
        typer.echo("nothing was submitted", err=True)
