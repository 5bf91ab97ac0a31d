"""Trials as Optuna has them, and the records that readers see of them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from orchestrator.store.record import RunRecord, TrialRecord

if TYPE_CHECKING:
    from orchestrator.model import Json

__all__ = [
    "CONSTRAINTS",
    "FIXED",
    "PHASE",
    "RETRY_OF",
    "SEAL",
    "SPREAD",
    "STATES",
    "USED",
    "VARIANCE",
    "WORDS",
    "Ending",
    "aware",
    "is_paused",
    "last_value",
    "new_trial",
    "own",
    "parted",
    "retries",
    "run_name",
    "trial_record",
    "utc",
]

SEAL = "survey"  # the user attribute that a trial gets in the write that creates it
PHASE = "survey_phase"  # the user attribute of a running trial that was paused: since when, why, and whether it goes on
RETRY_OF = "retry_of"  # the user attribute that names the failed trial in whose place of the budget this one is
SPREAD = "spread"  # the user attribute with the standard deviation of each metric over a trial's runs
USED = "used"  # the user attribute with the hours of the site's machines that an ended trial has used
VARIANCE = "variance"  # the user attribute with the variance of each of a trial's values, which are means over its runs
CONSTRAINTS = (
    "constraints"  # of an ending: by how much it is beyond each bound; kept where Optuna's samplers look for it
)
FIXED = "fixed_params"  # the system attribute in which Optuna keeps the parameters of an enqueued trial

WORDS = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_JOB = ("job_id", "submitted")
_RUN = "run-"
_RUN_FIELDS = tuple(field.name for field in dataclasses.fields(RunRecord) if field.name != "run")
STATES = {word: state for state, word in WORDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a trial ended, as it is told to `orchestrator.store.studydb.StudyDatabase.tell`."""

    state: str
    values: Sequence[float] | None = None
    attributes: Mapping[str, Json]

    @property
    def broken(self) -> list[str]:
        """The bounds that the trial is beyond."""
        amounts: Any = self.attributes.get(CONSTRAINTS, {})
        return [words for words, amount in amounts.items() if amount > 0.0]


def checked_ending(number: int, state: str, values: Sequence[float] | None, objectives: int) -> list[float] | None:
    """Check that trial ``number`` can end so; its values.

    Raises
    ------
    ValueError
        If a value is not finite, or their number or the state is wrong.
    """
    if state not in {"complete", "failed", "pruned"}:
        raise ValueError(f"a trial ends complete, failed or pruned, not {state!r}")
    told = None if values is None else [float(value) for value in values]
    if told is not None:
        if not all(math.isfinite(value) for value in told):
            raise ValueError(f"trial {number}: objective values must be finite numbers, not {told}")
        if len(told) != objectives:
            raise ValueError(f"trial {number}: {len(told)} values for another number of objectives")
    if (state == "complete" and told is None) or (state == "failed" and told is not None):
        raise ValueError(f"trial {number}: {state} goes {'with' if told is None else 'without'} values")
    return told


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Map a trial and its user attributes to a `TrialRecord`.

    The attributes are ``survey`` (what the ask wrote), ``ask_seconds``, ``job`` (the job in flight),
    ``outcome`` (how it ended), ``metrics`` and ``info``, and ``survey_phase`` of one that was paused; of a trial with several
    runs ``run-1``... (each one's job in flight, or how it ended) and ``spread``, too. Where the outcome does not know
    something, the job in flight or Optuna's own times do.
    """
    attributes = trial.user_attrs
    survey: dict[str, Any] = attributes.get(SEAL, {})
    runs = tuple(_runs(attributes))
    latest = max(runs, key=lambda run: (run.submitted or 0.0, run.run), default=None)
    job: dict[str, Any] = attributes.get("job") or (
        {} if latest is None else {name: getattr(latest, name) for name in _JOB}
    )
    outcome: dict[str, Any] = attributes.get("outcome", {})

    def known(name: str, default: Any = None) -> Any:
        for source in (outcome, job):
            if source.get(name) is not None:
                return source[name]
        return default

    finished = trial.state.is_finished()
    waiting = trial.state == TrialState.WAITING
    paused = is_paused(trial)
    return TrialRecord(
        number=trial.number,
        state="paused" if paused else WORDS[trial.state],
        params=survey.get("params") or (trial.system_attrs.get(FIXED, {}) if waiting else trial.params),
        values=None if trial.values is None else tuple(trial.values),
        metrics=attributes.get("metrics", {}),
        constraints=trial.constraints,
        steps=dict(sorted(trial.intermediate_values.items())),
        verdict=outcome.get("verdict"),
        reason=str(outcome.get("reason") or (attributes[PHASE].get("reason") if paused else "") or ""),
        attempts=int(known("attempts", 0)),
        job_id=str(known("job_id", "")),
        host=str(known("host", "")),
        gpus=tuple(str(gpu) for gpu in known("gpus", ())),
        max_rss=known("max_rss"),
        gpu_memory=known("gpu_memory"),
        created=survey.get("created", _seconds(trial.datetime_start)),
        submitted=known("submitted"),
        started=known("started"),
        ended=known("ended", _seconds(trial.datetime_complete)) if finished else None,
        ask_seconds=attributes.get("ask_seconds"),
        promoted=attributes[PHASE].get("since") if attributes.get(PHASE, {}).get("name") == "promoted" else None,
        retry_of=attributes.get(RETRY_OF),
        directory=str(known("directory", "")),
        info=attributes.get("info", {}),
        used=attributes.get(USED, {}),
        spread=attributes.get(SPREAD, {}),
        runs=runs,
    )


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial, running as far as Optuna knows, is set aside and has no job."""
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(PHASE, {}).get("name") == "paused"


def last_value(trial: FrozenTrial) -> float | None:
    """The latest of a trial's intermediate values; None if there is none, or none that is a number."""
    value = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else math.nan
    return value if math.isfinite(value) else None


def run_name(run: int) -> str:
    """The user attribute that holds what is known of one of a trial's runs."""
    return f"{_RUN}{run}"


def _runs(attributes: Mapping[str, Any]) -> Iterator[RunRecord]:
    names = sorted(int(name[len(_RUN) :]) for name in attributes if name.startswith(_RUN))
    for run in names:
        facts = attributes[run_name(run)]
        yield RunRecord(run=run, **{name: facts[name] for name in _RUN_FIELDS if facts.get(name) is not None})


def retries(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Trials that were asked for again, and the trial that each has given its place to."""
    found = {trial.user_attrs.get(RETRY_OF): trial.number for trial in trials}
    return {number: by for number, by in found.items() if number is not None}


def parted(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes of an ending as Optuna keeps them: those of the user, and the system's, which are the constraints."""
    user = {name: value for name, value in attributes.items() if name != CONSTRAINTS}
    return user, {f"{CONSTRAINTS}:{name}": amount for name, amount in attributes.get(CONSTRAINTS, {}).items()}


def new_trial(number: int, now: float) -> FrozenTrial:
    """Make a running trial without parameters yet, whose id is its number."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=utc(now),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def own(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial with its mappings: Optuna's `Trial` writes into the one that it is given."""
    mine = copy.copy(trial)
    for name in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
        setattr(mine, name, dict(getattr(trial, name)))
    return mine


def aware(when: datetime | None) -> datetime | None:
    """Make times alike: Optuna's RDB storage gives naive local ones, its journal aware ones."""
    return None if when is None else when.astimezone(UTC)


def utc(seconds: float) -> datetime:
    """Turn seconds since the epoch into an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def _seconds(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()
