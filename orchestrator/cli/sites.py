"""``survey sites``: the clusters that are known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import resources
from orchestrator.cli.output import emit_json, error, print_table
from orchestrator.errors import SurveyError

if TYPE_CHECKING:
    from orchestrator.config.site import Site

__all__ = ["sites"]


def sites(
    name: Annotated[str, typer.Argument(help="Show this one: a name, or a path ending in .yaml.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the known sites, or show one: each value, and whether it is documented, assumed or set by default."""
    from orchestrator.config.site import load_site

    if name:
        site = load_site(name)
        if as_json:
            emit_json({"site": site.model_dump(mode="json")})
        else:
            typer.echo(site.to_yaml(), nl=False)
        return
    found: list[Site] = []
    broken: list[SurveyError] = []
    paths = resources.names("sites", ".yaml")
    for known in paths:
        try:
            found.append(load_site(known))
        except SurveyError as failure:  # one broken file of the user's must not hide the others
            broken.append(failure)
    if as_json:
        emit_json(
            {
                "sites": [
                    {
                        "name": site.name,
                        "scheduler": site.scheduler,
                        "description": site.description,
                        "queues": [queue.name for queue in site.queues],
                        "path": paths.get(site.name),
                    }
                    for site in found
                ]
            }
        )
    else:
        print_table(
            ("site", "scheduler", "description"),
            [(site.name, site.scheduler, site.description) for site in found],
            fold=True,
        )
    for one in broken:
        error(one)
    if broken:
        raise typer.Exit(broken[0].exit_code)
