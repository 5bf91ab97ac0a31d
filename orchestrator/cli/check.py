"""``survey check``: everything that can be found wrong before anything is submitted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import emit_json
from orchestrator.cli.target import JsonOption, RootOption, load_target
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.studies.forecast import Forecast

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
    from orchestrator.search.places import places_of
    from orchestrator.studies.forecast import dearest, forecast

    target = load_target(study, root)
    places = places_of(target.study, target.origin, target.chosen(site))
    among = [place.site for place in places]
    found = [
        forecast(place.study, place.site, root=target.root, origin=target.origin, among=among, share=place.share)
        for place in places
    ]
    if as_json:
        facts = [{"site": place.site.name, **_facts(one)} for place, one in zip(places, found, strict=True)]
        several = {"sites": facts, "cost": dataclasses.asdict(dearest([one.cost for one in found]))}
        emit_json({"study": target.study.name, **(facts[0] if len(facts) == 1 else several)})
    else:
        for one in found:
            _show(one)
        if len(found) > 1:
            typer.echo(f"in all {dearest([one.cost for one in found])}", err=True)
    if refusals := [words for one in found for words in one.refusals]:
        raise UsageError("\n  ".join(refusals), hint="nothing was submitted")
    if not as_json:
        typer.echo("nothing was submitted", err=True)


def _unchecked(found: Forecast) -> list[str]:
    return [line for line in (found.elsewhere, *found.unchecked) if line]


def _facts(found: Forecast) -> dict[str, Any]:
    notes = {
        "notes": found.notes,
        "refused": found.refusals,
        "unchecked": _unchecked(found),
        "warnings": found.warnings,
    }
    return {"script": found.script, "cost": dataclasses.asdict(found.cost), **notes}


def _show(found: Forecast) -> None:
    typer.echo(found.script)
    for line in (found.headline, str(found.cost), *found.notes):
        typer.echo(line, err=True)
    for word, lines in (("warning", found.warnings), ("not checked", _unchecked(found))):
        for line in lines:
            typer.echo(f"{word}: {line}", err=True)
