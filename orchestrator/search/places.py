"""Where a study runs: its sites, each with its share and with the study as it runs there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.site import Site, load_site
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.model import Job
    from orchestrator.transports.base import Transport

__all__ = ["Place", "places_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One site of a study.

    Attributes
    ----------
    study : Study
        As it runs there (`Study.at`).
    share : int or None
        Most trials in flight there; None: as many as the study allows.
    transport : Transport or None
        In place of the site's own.
    """

    study: Study
    site: Site
    share: int | None = None
    transport: Transport | None = None

    def fit(self, origin: Path) -> Callable[[Job], Job]:
        """What makes a trial's job one of this site; ``origin`` is the folder of study.yaml."""
        study = self.study
        workdir = str(origin if study.workdir is None else origin / study.workdir)
        return lambda job: dataclasses.replace(
            job, environment={**study.environment, **job.environment}, workdir=workdir
        )


def places_of(study: Study, origin: Path, chosen: str = "") -> tuple[Place, ...]:
    """Load the sites of a study.

    Parameters
    ----------
    origin : Path
        The folder of study.yaml, to which the site files that it names are relative.
    chosen : str
        Name or file of a site in place of those that the study names. What the study says of it holds there too.

    Raises
    ------
    UsageError, ConfigError
        A site that does not exist, or whose file is wrong; two sites of one name.
    """
    if chosen or not study.sites:
        site = load_site(chosen or "local")
        choice = next((choice for choice in study.sites if choice.name in {chosen, site.name}), None)
        return (Place(study=study if choice is None else study.at(choice), site=site),)
    found = [
        Place(study=study.at(choice), site=load_site(_path_or_name(choice.name, origin)), share=choice.share)
        for choice in study.sites
    ]
    loaded = [place.site.name for place in found]
    if twice := [name for name in loaded if loaded.count(name) > 1]:
        raise UsageError(
            f"two of the study's sites are called {twice[0]!r}", hint="give each site file a `name:` of its own"
        )
    return tuple(found)


def _path_or_name(name: str, origin: Path) -> str:
    is_file = "/" in name or name.endswith((".yaml", ".yml"))
    return str(origin / Path(name).expanduser()) if is_file else name
