"""A study begun elsewhere with Optuna goes on as one of ours: its ended trials become the first trials.

The source is read, from a copy where it is a file, and never written. The new study's database is made as a whole and put in
place at the end; ``study.yaml`` comes last, so that an import that was cut off can be done again.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.constraints import amounts
from orchestrator.config.parameters import FixedParameter
from orchestrator.errors import SurveyError, UsageError
from orchestrator.model import Verdict
from orchestrator.search import space as space_tools
from orchestrator.search.chronicle import study_record
from orchestrator.search.freeze import freeze_imported
from orchestrator.search.layout import StudyFolder
from orchestrator.search.sources import OptunaStudy, metrics_of, params_of, read_optuna
from orchestrator.store.atomic import make_directory
from orchestrator.store.database import describe, local_file, open_for_reading
from orchestrator.store.definition import find_or_make
from orchestrator.store.lease import Lease
from orchestrator.store.readers import shared
from orchestrator.store.replacing import put_in_place
from orchestrator.store.rows import number, typed
from orchestrator.store.snapshot import publish
from orchestrator.store.trials import CONSTRAINTS, SEAL, STATES, WORDS, new_trial, parted, trial_record, utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from orchestrator.config.study import Study
    from orchestrator.model import Json

__all__ = ["Imported", "import_study"]

_VERDICTS = {"complete": str(Verdict.SUCCEEDED), "failed": str(Verdict.FAILED), "pruned": str(Verdict.STOPPED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What `import_study` did.

    Attributes
    ----------
    source : str
        In words that may be shown.
    root : Path
        The new study's folder.
    numbers : tuple of int
        The trials' numbers in the source, in the order of their new ones.
    states : Counter
        Number of trials by state, in the words of `TrialRecord.state`.
    lines : tuple of str
        What was left out, and why.
    """

    source: str
    root: Path
    numbers: tuple[int, ...]
    states: Counter[str]
    lines: tuple[str, ...]


def import_study(
    study: Study, url: str, name: str | None, *, root: Path, origin: Path, clock: Clock | None = None
) -> Imported:
    """Begin ``study`` with the ended trials of a study in an Optuna database.

    Parameters
    ----------
    url : str
        The database; a relative path is below the current folder. ``${NAME}`` stands for an environment variable.
    name : str, optional
        The study there; needed where there are several.
    root : Path
        Folder that holds the new study's folder.
    origin : Path
        The folder of study.yaml.

    Raises
    ------
    UsageError
        The study was begun, there is no such source, its goal is another, or none of its trials is a point of the study.
    SurveyError
        The source cannot be read, or the new database cannot be written.
    """
    clock = clock or SystemClock()
    folder = StudyFolder((root / study.name).resolve())
    found = read_optuna(url, name, Path.cwd())
    _refuse_begun(study, folder)
    _refuse_other_goal(study, found)
    trials, lines = _converted(study, found, clock.now())
    if not trials:
        shown = "".join(f"\n    {line}" for line in lines)
        raise UsageError(
            f"no trial of {found.place} is a point of study {study.name!r}{shown}",
            hint="give the study the ranges and choices of the source, or take it as a warm start: `warm_start:`",
        )
    make_directory(folder.root)
    with shared(folder.root, study.readers), Lease.acquire(folder.root, clock):
        _refuse_begun(study, folder)

        def fill(storage: BaseStorage, called: str, place: str, *, alone: bool) -> None:
            directions: list[str] = [item.direction for item in study.targets]
            study_id = find_or_make(storage, called, directions, study.frozen(), place, alone=alone)
            for trial in trials:
                storage.create_new_trial(study_id, template_trial=trial)

        put_in_place(study.storage_url(), folder.root, study.name, "before-import", fill)
        _publish(study, folder, found, trials, lines, origin, clock.now())
    return Imported(
        source=found.place,
        root=folder.root,
        numbers=tuple(trial.user_attrs["info"]["imported_from"]["number"] for trial in trials),
        states=Counter(WORDS[trial.state] for trial in trials),
        lines=tuple(lines),
    )


def _refuse_begun(study: Study, folder: StudyFolder) -> None:
    hint = "trials are imported into a new study only: give this one another name, or use `warm_start:`"
    if folder.begun:
        raise UsageError(f"study {study.name!r} in {folder.root} was begun already", hint=hint)
    url = study.storage_url()
    path = local_file(url, folder.root)
    if path is not None:
        # One of our own without a study.yaml is left of an import that was cut off; it is put aside.
        if path.exists() and path != local_file(None, folder.root):
            raise UsageError(
                f"there is a database already where that of study {study.name!r} would be: {path}", hint=hint
            )
        return
    try:
        with open_for_reading(url, folder.root) as storage:
            names = {each.study_name for each in storage.get_all_studies()}
    except UsageError:
        raise
    except SurveyError as error:
        if error.exit_code != SurveyError.exit_code:
            raise
        return  # a server without a single study
    if study.name in names:
        raise UsageError(f"{describe(url, folder.root)} holds a study {study.name!r} already", hint=hint)


def _refuse_other_goal(study: Study, found: OptunaStudy) -> None:
    ours = tuple(item.direction for item in study.targets)
    if ours != found.directions:
        raise UsageError(
            f"{found.place} has another goal: {', '.join(found.directions)}, and study {study.name!r} has"
            f" {', '.join(f'{item.direction} {item.metric}' for item in study.targets)}",
            hint="give the study the source's objectives and directions, in its order",
        )


# --- trials


def _converted(study: Study, found: OptunaStudy, now: float) -> tuple[list[FrozenTrial], list[str]]:
    """Trials of the new study, and in words what was left out."""
    constants = _constants_of(found.trials, study)
    admits = space_tools.admitter(study.space, study.where) if study.where else None
    trials: list[FrozenTrial] = []
    problems: dict[str, list[int]] = {}
    for trial in found.trials:
        try:
            trials.append(_one(study, found, trial, len(trials), now, set(constants), admits))
        except UsageError as error:
            problems.setdefault(error.message, []).append(trial.number)
    lines = [f"{name} = {value}: no parameter of this study, dropped" for name, value in constants.items()]
    lines += [f"left out, {message}: {_numbers(numbers)}" for message, numbers in problems.items()]
    return trials, lines


def _constants_of(trials: Sequence[FrozenTrial], study: Study) -> dict[str, Any]:
    """Parameters that the study does not have, and the source always had with one value."""
    seen: dict[str, list[Any]] = {}
    with_params = [params_of(trial) for trial in trials if params_of(trial)]
    for params in with_params:
        for name in set(params) - set(study.space):
            seen.setdefault(name, []).append(params[name])
    return {
        name: values[0]
        for name, values in sorted(seen.items())
        if len(values) == len(with_params) and all(value == values[0] for value in values)
    }


def _one(
    study: Study,
    found: OptunaStudy,
    trial: FrozenTrial,
    place: int,
    now: float,
    dropped: set[str],
    admits: Callable[[Mapping[str, Any]], bool] | None,
) -> FrozenTrial:
    from optuna.trial import FixedTrial, TrialState

    if not trial.state.is_finished():
        raise UsageError(f"still {WORDS[trial.state]}")
    theirs = {name: value for name, value in params_of(trial).items() if name not in dropped}
    if not theirs:
        raise UsageError("without parameters")
    params: dict[str, Json] = {}
    for name, value in theirs.items():
        ours = typed(study.space[name], value) if name in study.space else value
        if ours is None:
            raise UsageError(f"parameter {name} cannot be {value!r}")
        params[name] = ours
    constants = {name: each.value for name, each in study.space.items() if isinstance(each, FixedParameter)}
    for name, value in constants.items():
        if space_tools.is_active(study.space[name], {**constants, **params}):
            params.setdefault(name, value)
    space_tools.validate(study.space, params)
    if admits is not None and not admits(params):
        raise UsageError("breaks a condition between parameters")
    failed = trial.state is TrialState.FAIL
    values = None if failed or trial.values is None else [number(value) for value in trial.values]
    if values is not None and None in values:
        raise UsageError("its value is not finite")
    metrics = metrics_of(trial) | dict(zip((item.metric for item in study.targets), values or (), strict=False))
    if trial.state is TrialState.COMPLETE:
        lacking = [each.metric for each in study.constraints or () if each.metric not in metrics]
        if lacking:
            raise UsageError(f"without the metric {lacking[0]}, of which the study has a constraint")
    fixed: Any = FixedTrial(params, number=place)
    whole = dict(space_tools.suggest(study.space, fixed))
    made = new_trial(place, now)
    made.distributions = dict(fixed.distributions)
    made.params = {name: params[name] for name in made.distributions}
    made.state = trial.state
    made.values = None if values is None else [float(value) for value in values if value is not None]
    made.datetime_complete = utc(now)
    made.intermediate_values = {
        step: value for step, value in trial.intermediate_values.items() if math.isfinite(value)
    }
    user, system = parted(_attributes(study, found, trial, metrics, now, None if whole == made.params else whole))
    made.user_attrs, made.system_attrs = user, system
    return made


def _attributes(
    study: Study,
    found: OptunaStudy,
    trial: FrozenTrial,
    metrics: Mapping[str, Any],
    now: float,
    whole: Mapping[str, Json] | None,
) -> dict[str, Any]:
    """What the study keeps of a trial beside its values: where it comes from, and when it really ran."""
    times = {
        name: when.timestamp()
        for name, when in (("started", trial.datetime_start), ("ended", trial.datetime_complete))
        if when is not None
    }
    origin = {"study": found.name, "number": trial.number, **times}
    attributes: dict[str, Any] = {
        SEAL: {"created": now, "imported": True, **({} if whole is None else {"params": dict(whole)})},
        "outcome": {
            "verdict": _VERDICTS[WORDS[trial.state]],
            "reason": f"imported: trial {trial.number} of {found.place}",
            "ended": now,
        },
        "metrics": dict(metrics),
        "info": {"imported_from": origin},
    }
    if study.constraints and trial.state is STATES["complete"]:
        attributes[CONSTRAINTS] = amounts(study.constraints, metrics)
    return {name: value for name, value in attributes.items() if value}


def _numbers(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:8]))}{more}"


# --- the folder


def _publish(
    study: Study,
    folder: StudyFolder,
    found: OptunaStudy,
    trials: Sequence[FrozenTrial],
    lines: Sequence[str],
    origin: Path,
    now: float,
) -> None:
    """Let readers see the study, and drivers find it: an event, a snapshot, and study.yaml last."""
    facts: dict[str, Json] = {"source": found.place, "trials": len(trials), "left_out": list(lines)}
    event = {"time": now, "event": "imported", **facts}
    with folder.events.open("a", encoding="utf-8") as events:
        events.write(json.dumps(event) + "\n")
    record = study_record(
        study,
        tuple(trial_record(trial) for trial in trials),
        site="no site yet",
        state="interrupted",
        message=f"imported from {found.place}",
        root=folder.root,
        planned=study.trials,
        updated=now,
        used={},
        provenance={"imported": facts},
    )
    publish(folder.root, record)
    freeze_imported(study, folder, facts, origin=origin, now=now)
