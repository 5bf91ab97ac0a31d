"""The earlier trials that a study begins with: matched to its space, kept in its folder, handed to its sampler.

They are read once, before the first trial, and written to ``warm_start.json``: what becomes of the source later changes
nothing, and a study that is resumed has the same ones. Parameters are matched by name; whatever does not fit is said.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.parameters import FixedParameter
from orchestrator.errors import SurveyError
from orchestrator.search.matching import matched
from orchestrator.search.sources import read_source
from orchestrator.search.space import admitter
from orchestrator.store.atomic import read_in_words, write_json

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.model import Json
    from orchestrator.samplers.transfer import Source
    from orchestrator.search.layout import StudyFolder
    from orchestrator.store.studydb import StudyDatabase

__all__ = ["FILE", "Warm", "begin_warm", "facts", "keep", "load", "resolve"]

FILE = "warm_start.json"
_VERSION = 1
_BEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Earlier trials as points of the study's own space.

    Attributes
    ----------
    trials : tuple of (params, value)
        Values as the study would have been told them; None where the trial failed.
    lines : tuple of str
        What was taken, and what does not match.
    """

    source: str
    trials: tuple[tuple[Mapping[str, Json], float | None], ...]
    lines: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the trials."""
        return hashlib.sha256(json.dumps(self.trials, sort_keys=True).encode()).hexdigest()

    def for_sampler(self) -> Source:
        """The trials as `orchestrator.samplers.bo.BOSampler` takes them."""
        from orchestrator.samplers.transfer import Source

        return Source(
            tuple(params for params, _ in self.trials),
            tuple(math.nan if value is None else value for _, value in self.trials),
        )

    def first(self, study: Study) -> list[Mapping[str, Json]]:
        """The configurations that run first, with a sampler that cannot weigh earlier trials: the best ones, once each."""
        wanted = _BEST if study.warm_start is None or study.warm_start.best is None else study.warm_start.best
        sign = 1.0 if study.targets[0].direction == "minimize" else -1.0
        ranked = sorted((sign * value, index) for index, (_, value) in enumerate(self.trials) if value is not None)
        admits = admitter(study.space, study.where) if study.where else None
        found: dict[str, Mapping[str, Json]] = {}
        for _, index in ranked:
            params = {
                name: value
                for name, value in self.trials[index][0].items()
                if not isinstance(study.space[name], FixedParameter)
            }
            if len(found) < wanted and (admits is None or admits(params)):
                found.setdefault(json.dumps(params, sort_keys=True), params)
        return list(found.values())


def begin_warm(study: Study, folder: StudyFolder, database: StudyDatabase) -> Source | None:
    """What the study's sampler is given; one that cannot weigh earlier trials has the best of them queued instead.

    They are queued before the first trial is asked for, so that their numbers are the first ones; cut off half-way,
    the next call queues those that are missing.
    """
    warm = load(folder)
    if warm is None:
        return None
    if study.sampler.name == "bo":
        return warm.for_sampler()
    queued = len(database.trials())
    for params in warm.first(study)[queued : study.trials]:
        database.enqueue(params)
    return None


def facts(folder: StudyFolder) -> dict[str, Json]:
    """What the study's provenance says of its warm start; nothing where there is none."""
    warm = load(folder)
    if warm is None:
        return {}
    return {"warm_start": {"source": warm.source, "trials": len(warm.trials), "sha256": warm.fingerprint}}


def keep(study: Study, folder: StudyFolder, origin: Path) -> tuple[str, ...]:
    """Read the source and keep its trials in the study's folder, before the first run; what there is to say.

    Raises
    ------
    UsageError
        The source cannot be used, see `resolve`.
    SurveyError
        The study was begun with earlier trials, and they are gone.
    """
    if study.warm_start is None:
        return ()
    if folder.study.exists():
        if load(folder) is None:
            raise SurveyError(
                f"the earlier trials of study {study.name!r} are gone: {folder.root / FILE}",
                hint="put the file back: without it the study would go on as another one",
            )
        return ()
    warm = resolve(study, folder, origin)
    assert warm is not None
    data = {
        "version": _VERSION,
        "source": warm.source,
        "sha256": warm.fingerprint,
        "lines": list(warm.lines),
        "trials": [{"params": dict(params), "value": value} for params, value in warm.trials],
    }
    write_json(folder.root / FILE, data)
    return warm.lines


def load(folder: StudyFolder) -> Warm | None:
    """The trials that `keep` has written; None where there are none.

    Raises
    ------
    SurveyError
        The file was changed, or is not ours.
    """
    path = folder.root / FILE
    data: Any = read_in_words(path)
    if data is None:
        return None
    try:
        trials = tuple((each["params"], each["value"]) for each in data["trials"])
        warm = Warm(source=data["source"], trials=trials, lines=tuple(data["lines"]))
        right = data["version"] == _VERSION and data["sha256"] == warm.fingerprint
    except (KeyError, TypeError):
        right = False
    if not right:
        raise SurveyError(
            f"{path} is not as this study wrote it", hint="put the right file back: the study was begun with it"
        )
    return warm


def resolve(study: Study, folder: StudyFolder, origin: Path) -> Warm | None:
    """The study's earlier trials: those that were kept, else as the source has them now.

    Raises
    ------
    UsageError
        There is no such source, it lacks the metric, has no parameter in common with the study, or hardly a
        trial that fits it.
    SurveyError
        The source cannot be read.
    """
    if study.warm_start is None:
        return None
    if folder.study.exists() and (kept := load(folder)) is not None:
        return kept
    earlier = read_source(study.warm_start.below(origin), study, folder)
    trials, lines = matched(study, earlier, direction=study.warm_start.direction)
    return Warm(source=earlier.place, trials=tuple(trials), lines=tuple(lines))
