"""What comes before a study is driven: what is meant is loaded, looked at, and its cost agreed to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.login import accepting
from orchestrator.cli.manners import be_nice, be_private, hold_threads
from orchestrator.cli.output import message
from orchestrator.cli.target import Target, load_target
from orchestrator.search.layout import StudyFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.study import Study
    from orchestrator.search.places import Place
    from orchestrator.studies.notify import Notifier

__all__ = ["Prepared", "make_notifier", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study that is ready to be driven."""

    target: Target
    places: Sequence[Place]
    folder: StudyFolder


def prepare(study: str, root: Path, site: str, *, host_key: str = "", ask: bool = True) -> Prepared:
    """Load a study and its sites, refuse what cannot work, say the cost and, where ``ask``, ask for consent.

    Raises
    ------
    SurveyError
        What is wrong; nothing was written.
    typer.Exit
        The answer was not yes.
    """
    be_private()
    hold_threads()
    from orchestrator.cli.consent import announce
    from orchestrator.search.places import places_of
    from orchestrator.studies.forecast import dearest, forecast

    target = load_target(study, root)
    places = [
        dataclasses.replace(place, site=accepting(place.site, host_key))
        for place in places_of(target.study, target.origin, target.chosen(site))
    ]
    among = [place.site for place in places]
    be_nice(among)
    found = [
        forecast(place.study, place.site, root=target.root, origin=target.origin, among=among, share=place.share)
        for place in places
    ]
    for one in found:
        one.refuse()
    if any(place.site.scheduler != "local" for place in places):
        new = any(one.new for one in found)
        announce([one.headline for one in found], dearest([one.cost for one in found]), ask=new and ask)
    folder = StudyFolder((target.root / target.study.name).resolve())
    return Prepared(target=target, places=places, folder=folder)


def make_notifier(study: Study, root: Path, *, again: float = 3600.0) -> Notifier:
    """What tells somebody when ``study`` pauses or ends, as study.yaml says, or the user for all studies.

    Parameters
    ----------
    again : float
        Seconds for which the same thing is not told a second time.

    Raises
    ------
    ConfigError
        If the user's notify.yaml is wrong.
    """
    from orchestrator.config.notify import users_notify
    from orchestrator.studies.notify import Notifier

    how = users_notify() if study.notify is None else study.notify or None
    return Notifier(how, root, on_trouble=message, again=again)
