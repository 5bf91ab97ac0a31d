"""Earlier trials, wherever they are: a study of ours, an Optuna database, a table. Nothing of them is ever written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.urls import filled
from orchestrator.errors import UsageError
from orchestrator.search.layout import StudyFolder
from orchestrator.store.rows import cell, names, number, read_rows

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from orchestrator.config.study import Study
    from orchestrator.config.warm_start import WarmStart
    from orchestrator.store.record import StudyRecord

__all__ = [
    "Earlier",
    "EarlierTrial",
    "OptunaStudy",
    "described",
    "metrics_of",
    "params_of",
    "read_optuna",
    "read_source",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """One trial of a source.

    Attributes
    ----------
    value : float or None
        Of the metric that was asked for; None where the trial failed.
    pruned : bool
        Whether it was ended early, with the last value that it had reported.
    """

    params: Mapping[str, Any]
    value: float | None
    pruned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a source holds.

    Attributes
    ----------
    direction : str or None
        ``maximize`` or ``minimize``, where the source knows of its metric.
    space : mapping
        What the source says of its parameters, in the words of study.yaml; empty where it says nothing.
    left_out : mapping of str to int
        Trials that are no use, by what they are.
    """

    place: str
    metric: str
    direction: str | None
    trials: tuple[EarlierTrial, ...]
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_source(warm: WarmStart, study: Study, folder: StudyFolder) -> Earlier:
    """Read the source of ``study``, which will be run in ``folder``.

    Parameters
    ----------
    warm : WarmStart
        With absolute paths.

    Raises
    ------
    UsageError
        There is no such source, or it lacks the metric.
    SurveyError
        It cannot be read.
    """
    metric = warm.metric or study.targets[0].metric
    if warm.table is not None:
        return _of_table(Path(warm.table), metric, study)
    if warm.storage is not None:
        found = read_optuna(warm.storage, warm.name, folder.root.parent)
        return _of_optuna(found, metric, named=warm.metric is not None)
    assert warm.study is not None
    return _of_study(_folder_of(warm.study, folder), metric)


# --- a study of ours


def _folder_of(name: str, own: StudyFolder) -> StudyFolder:
    """The folder of the study that ``name`` means: it, or its study.yaml, or what is called so beside our own."""
    from orchestrator.config.study import Study

    path = Path(name)
    if path.is_dir() and not StudyFolder(path).begun and (path / "study.yaml").is_file():
        path /= "study.yaml"
    candidates = [path, own.root.parent / path.name]
    if path.is_file():
        called = Study.load(path).name
        candidates = [own.root.parent / called, path.parent / "runs" / called]
    found = next((StudyFolder(each.resolve()) for each in candidates if StudyFolder(each).begun), None)
    if found is None:
        raise UsageError(
            f"warm_start: there is no study in {candidates[0]}",
            hint="name the folder of a study that was run (it has a study.db or a snapshot.json)",
        )
    if found.root == own.root:
        raise UsageError("warm_start: a study cannot begin with its own trials", hint="name another study")
    return found


def _of_study(folder: StudyFolder, metric: str) -> Earlier:
    from orchestrator.store.snapshot import read

    record = read(folder.root, loader=_from_database)
    place = f"study {record.name!r} in {folder.root}"
    known = dict.fromkeys([*record.objectives, *(name for trial in record.trials for name in trial.metrics)])
    _need(metric, known, place)
    index = record.objectives.index(metric) if metric in record.objectives else None
    trials, left_out = [], dict[str, int]()
    for trial in record.counted:
        value = trial.metrics.get(metric)
        if index is not None and trial.values is not None:
            value = trial.values[index]
        pruned = trial.state == "pruned"
        if pruned and value is None and index == 0 and trial.steps:
            value = trial.steps[max(trial.steps)]
        if trial.state != "failed" and value is None:
            left_out[f"without {metric}"] = left_out.get(f"without {metric}", 0) + 1
            continue
        kept = None if trial.state == "failed" else value
        trials.append(EarlierTrial(params=trial.params, value=kept, pruned=pruned))
    if count := len(record.trials) - len(record.finished):
        left_out["not ended"] = count
    return Earlier(
        place=place,
        metric=metric,
        direction=None if index is None else record.directions[index],
        trials=tuple(trials),
        space=record.space,
        left_out=left_out,
    )


def _from_database(root: Path) -> StudyRecord:
    from orchestrator.config.study import Study
    from orchestrator.search.chronicle import study_record
    from orchestrator.store.studydb import read_trials

    study = Study.load(StudyFolder(root).study)
    trials = read_trials(root, name=study.name, url=study.storage_url())
    return study_record(
        study,
        trials,
        site="",
        state="interrupted",
        message="",
        root=root,
        planned=study.trials,
        updated=0.0,
        used={},
        provenance={},
    )


# --- an Optuna database


@dataclass(frozen=True, slots=True, kw_only=True)
class OptunaStudy:
    """One study of an Optuna database, as it is.

    Attributes
    ----------
    place : str
        In words that may be shown.
    directions : tuple of str
        ``maximize`` or ``minimize``, for each objective.
    metrics : tuple of str
        Names of its objectives where it has them.
    """

    place: str
    name: str
    directions: tuple[str, ...]
    metrics: tuple[str, ...]
    trials: tuple[FrozenTrial, ...]


def read_optuna(url: str, name: str | None, root: Path) -> OptunaStudy:
    """Read a study of the Optuna database at ``url``, from a copy where it is a file.

    Parameters
    ----------
    url : str
        May hold ``${NAME}`` for an environment variable. A relative path is below ``root``.
    name : str, optional
        The study; needed where the database has several.

    Raises
    ------
    UsageError
        There is no such database or study.
    SurveyError
        It cannot be read.
    """
    import optuna

    from orchestrator.store.database import describe, explained, local_file, open_for_reading

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    full = filled(url, f"the database {describe(url, root)}")
    place = describe(full, root)
    if (path := local_file(full, root)) is not None and not path.is_file():
        raise UsageError(f"there is no database {path}", hint="sqlite:////absolute/path.db, journal:/absolute/path.log")
    try:
        with explained(place), open_for_reading(full, root) as storage:
            studies = {each.study_name: each for each in storage.get_all_studies()}
            chosen = _named(studies, name, place)
            return OptunaStudy(
                place=f"study {chosen!r} in {place}",
                name=chosen,
                directions=tuple(direction.name.lower() for direction in studies[chosen].directions),
                metrics=tuple(studies[chosen].system_attrs.get("study:metric_names", ())),
                trials=tuple(storage.get_all_trials(studies[chosen]._study_id, deepcopy=False)),  # noqa: SLF001 - no public name
            )
    except RuntimeError as error:
        raise UsageError(
            f"the database {place} is of another version of Optuna: {' '.join(str(error).split())}",
            hint="make a copy of it and bring that up to date: `optuna storage upgrade --storage URL`",
        ) from error


def _named(studies: Mapping[str, Any], name: str | None, place: str) -> str:
    from orchestrator.config.loading import did_you_mean

    listed = ", ".join(map(repr, sorted(studies)[:8])) or "none"
    if name is None:
        if len(studies) != 1:
            raise UsageError(
                f"{place} holds {len(studies)} studies: {listed}", hint="say which one is meant, by its name"
            )
        return next(iter(studies))
    if name not in studies:
        raise UsageError(
            f"{place} holds no study {name!r}", hint=did_you_mean(name, studies) or f"the studies there: {listed}"
        )
    return name


def _of_optuna(found: OptunaStudy, metric: str, *, named: bool) -> Earlier:
    from optuna.trial import TrialState

    measured = [metrics_of(trial) for trial in found.trials]
    known = dict.fromkeys([*found.metrics, *(name for each in measured for name in each)])
    # A study of one objective without a name has that one, unless another was asked for.
    index = found.metrics.index(metric) if metric in found.metrics else None
    if index is None and len(found.directions) == 1 and not found.metrics and not named:
        index = 0
    if index is None:
        _need(metric, known, found.place)
    trials, left_out, space = [], dict[str, int](), dict[str, Mapping[str, Any]]()
    for trial, metrics in zip(found.trials, measured, strict=True):
        space.update({name: described(distribution) for name, distribution in trial.distributions.items()})
        if not trial.state.is_finished():
            left_out["not ended"] = left_out.get("not ended", 0) + 1
            continue
        failed, pruned = trial.state is TrialState.FAIL, trial.state is TrialState.PRUNED
        value = metrics.get(metric)
        if index is not None:
            value = number(trial.values[index]) if trial.values else None
            if pruned and index == 0 and trial.intermediate_values:
                value = number(trial.intermediate_values[max(trial.intermediate_values)])
        if value is None and not failed:
            left_out[f"without {metric}"] = left_out.get(f"without {metric}", 0) + 1
            continue
        trials.append(EarlierTrial(params=params_of(trial), value=None if failed else value, pruned=pruned))
    return Earlier(
        place=found.place,
        metric=metric,
        direction=None if index is None else found.directions[index],
        trials=tuple(trials),
        space=space,
        left_out=left_out,
    )


def params_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """A trial's parameters, with the constants of one that is ours."""
    ours = trial.user_attrs.get("survey")
    inside = ours.get("params") if isinstance(ours, Mapping) else None
    return inside if isinstance(inside, Mapping) else trial.params


def metrics_of(trial: FrozenTrial) -> dict[str, float]:
    """Numbers that a trial's program has noted among its attributes, or that are ours."""
    inside = trial.user_attrs.get("metrics")
    noted = {**trial.user_attrs, **(inside if isinstance(inside, Mapping) else {})}
    found = {
        name: number(value)
        for name, value in noted.items()
        if isinstance(value, int | float) and name not in {"ask_seconds", "retry_of"}
    }
    return {name: value for name, value in found.items() if value is not None}


def described(distribution: BaseDistribution) -> dict[str, Any]:
    """A distribution in the words of study.yaml."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return {"type": "categorical", "choices": list(distribution.choices)}
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    return {"type": kind, "low": getattr(distribution, "low", None), "high": getattr(distribution, "high", None)}


# --- a table


def _of_table(path: Path, metric: str, study: Study) -> Earlier:
    rows = read_rows(path)
    if not rows:
        raise UsageError(f"{path}: the table is empty", hint="it needs a row for each earlier trial")
    trials, missing = [], 0
    for _, row in rows:
        value = number(cell(row, "metrics", metric, "values"))
        failed = bool(row.get("failed") or row.get("diverged")) or row.get("state") == "failed"
        if value is None and not failed:
            missing += 1
            continue
        inside = row.get("params")
        params = dict(inside) if isinstance(inside, Mapping) else {}
        params |= {key.removeprefix("params."): each for key, each in row.items() if key.startswith("params.")}
        params |= {name: found for name in study.space if (found := cell(row, "params", name)) is not None}
        pruned = row.get("state") == "pruned"
        trials.append(EarlierTrial(params=params, value=None if failed else value, pruned=pruned))
    if not any(trial.value is not None for trial in trials):
        raise UsageError(
            f"{path}: no row has a number as {metric!r}",
            hint=f"the first row has {names(rows)}; say which one is meant: warm_start: {{table: ..., metric: NAME}}",
        )
    return Earlier(
        place=str(path),
        metric=metric,
        direction=None,
        trials=tuple(trials),
        left_out={f"without a number as {metric}": missing} if missing else {},
    )


def _need(metric: str, known: Sequence[str] | Mapping[str, Any], place: str) -> None:
    from orchestrator.config.loading import did_you_mean

    if metric in known:
        return
    if not known:
        raise UsageError(f"{place} has no trial with a value yet", hint="run it first, or leave warm_start out")
    raise UsageError(
        f"{place} has no metric {metric!r}; it has {', '.join(known)}",
        hint=did_you_mean(metric, list(known)) or "say which one is meant: warm_start: {..., metric: NAME}",
    )
