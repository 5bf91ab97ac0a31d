"""study.yaml: what is searched for, where, by what, with how many trials, and what one trial runs."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from orchestrator.config.constraints import Constraint
from orchestrator.config.evaluation import Evaluation
from orchestrator.config.fields import Frozen, Number, OneLine, PlainName, Text, Variables, Whole
from orchestrator.config.loading import did_you_mean, dump_data, load_model
from orchestrator.config.mistakes import mistake_at
from orchestrator.config.notify import Notify
from orchestrator.config.parameters import Space
from orchestrator.config.pruning import PrunerOrName
from orchestrator.config.sampling import Sampler, SamplerOrName
from orchestrator.config.site import BatchOptions
from orchestrator.config.sites import SiteOrName, check_shares
from orchestrator.config.stopping import Stopping
from orchestrator.config.units import Duration, MemorySize, Walltime
from orchestrator.config.urls import DatabaseURL, filled
from orchestrator.config.warm_start import WarmStartOrPlace
from orchestrator.config.where import ConditionText, unknown_name
from orchestrator.model import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.config.sites import SiteChoice

__all__ = [
    "Failures",
    "Keep",
    "Objective",
    "Read",
    "Retry",
    "Study",
    "StudyResources",
    "WalltimeWarning",
    "compare",
    "json_schema",
]

MetricName: TypeAlias = Annotated[OneLine, Field(max_length=128)]


class Objective(Frozen):
    """A number that each trial reports and the search makes large or small."""

    metric: MetricName = Field(description="Its name in the trial's result.json.")
    direction: Literal["maximize", "minimize"] = Field(description="Whether more of it is better, or less.")


class StudyResources(Frozen):
    """What one trial needs; the site decides which queue has it."""

    gpus: Annotated[Whole, Field(ge=0)] = Field(default=0, description="GPUs, per node where nodes is above 1.")
    cpus: Annotated[Whole, Field(ge=1)] = Field(default=1, description="CPU cores, per node where nodes is above 1.")
    memory: Annotated[MemorySize, Field(ge=1)] | None = Field(
        default=None, description='Memory, per node where nodes is above 1: MiB, or "16GB". Default: the queue\'s own.'
    )
    walltime: Walltime | None = Field(
        default=None, description='Longest run of a trial: seconds, "90m", "02:00:00". Default: the queue\'s own.'
    )
    nodes: Annotated[Whole, Field(ge=1)] = Field(default=1, description="Nodes of one trial.")


class Read(Frozen):
    """How a metric is read from a program that does not write result.json: one of stdout, json, csv."""

    model_config = ConfigDict(populate_by_name=True)

    metric: MetricName = Field(description="The metric that is read.")
    stdout: str | None = Field(
        default=None, description="Regular expression; its first group is the number, its last match counts."
    )
    json_: OneLine | None = Field(
        default=None, alias="json", description="file:dotted.path of a JSON file in the trial's folder."
    )
    csv: OneLine | None = Field(default=None, description="file:column of a CSV file with a header; the last row.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.stdout, self.json_, self.csv)) != 1:
            raise mistake_at((), "needs exactly one of stdout, json, csv")
        if self.stdout is not None:
            try:
                groups = re.compile(self.stdout).groups
            except re.error as error:
                raise mistake_at(("stdout",), f"not a regular expression: {error}") from None
            if groups < 1:
                raise mistake_at(("stdout",), "the regular expression needs a group ( ) around the number")
        for name, source in (("json", self.json_), ("csv", self.csv)):
            if source is not None and not all(source.rpartition(":")[::2]):
                what = "dotted.path" if name == "json" else "column"
                raise mistake_at((name,), f'expected file:{what}, found "{source}"')
        return self


def _further(default: int, words: str) -> Any:
    return Field(default=default, ge=0, description=f"Further attempts after one that {words}.")


class Retry(Frozen):
    """How many further attempts a trial gets, by the verdict on the one that ended; parameters stay the same."""

    model_config = ConfigDict(
        populate_by_name=True, alias_generator=lambda name: name.replace("_", "-"), extra="forbid", frozen=True
    )

    node_failure: Whole = _further(3, "lost its node")
    preempted: Whole = _further(5, "gave way to another job")
    lost: Whole = _further(2, "vanished without a result")
    failed: Whole = _further(0, "failed by itself")
    out_of_memory: Whole = _further(2, "ran out of memory, each with more of it, where the site has more")
    timeout: Whole = _further(5, "met its walltime and left a newer checkpoint")
    cancelled: Whole = _further(0, "somebody cancelled")
    rejected: Whole = _further(0, "the scheduler refused")
    requeue_requested: Whole = _further(20, "asked to be queued again (exit code 85)")
    memory_factor: Annotated[Number, Field(gt=1, le=16)] = Field(
        default=2.0, description="How much more memory an attempt gets after one that ran out of it."
    )

    def limits(self) -> dict[Verdict, int]:
        """Further attempts by verdict."""
        names = {verdict: verdict.replace("-", "_") for verdict in Verdict}
        return {verdict: getattr(self, name) for verdict, name in names.items() if name in type(self).model_fields}


class WalltimeWarning(Frozen):
    """How a program hears of its walltime before it is over, on every scheduler: the file ``stop``, and a signal."""

    ahead: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description='How long before: seconds, "5m". Longer than an epoch. Default: the site\'s margin.'
    )
    signal: Literal["SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM"] | None = Field(
        default=None, description="Signal that the program gets too; one without a handler for it ends. Default: none."
    )


class Keep(Frozen):
    """What is kept of the trials' files."""

    best: Annotated[Whole, Field(ge=0)] = Field(default=3, description="Best trials that keep artifacts/, checkpoint/.")


class Failures(Frozen):
    """How many failed trials the study bears."""

    stop_after: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="Pause once this many trials in a row have failed. Default: never."
    )
    failed_submits: Annotated[Whole, Field(ge=0)] = Field(
        default=5, description="Pause once this many submits in a row came to nothing; 0: never."
    )
    instant_deaths: Annotated[Whole, Field(ge=0)] = Field(
        default=10, description="Pause once this many attempts in a row failed within 10 s of their start; 0: never."
    )
    most: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.5, description="Part of the trials that may fail; above it the study ends with exit code 3."
    )


class Study(Frozen):
    """One search, as study.yaml describes it."""

    schema_version: Literal[1] = Field(default=1, description="Version of this file's format.")
    name: PlainName = Field(description="The study's name; its folder below the root has it too.")
    description: str = Field(default="", description="For people.")

    objective: Objective | None = Field(default=None, description="What is searched for.")
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] | None = Field(
        default=None, description="Several objectives at once, in place of objective."
    )
    constraints: tuple[Constraint, ...] | None = Field(
        default=None, description="Bounds of metrics; a trial beyond one is complete, but never the best."
    )
    metrics: tuple[MetricName, ...] = Field(default=(), description="Further metrics that trials report.")

    space: Space = Field(description="The parameters by name.")
    where: tuple[ConditionText, ...] | None = Field(
        default=None, description='Conditions between parameters that every trial meets: "filters_1 <= filters_2".'
    )
    sampler: SamplerOrName = Field(default=Sampler(), description="What chooses the parameters of the next trial.")
    warm_start: WarmStartOrPlace | None = Field(
        default=None, description="Earlier trials to begin with: a study, an Optuna database or a table."
    )
    trials: Annotated[Whole, Field(ge=1)] = Field(
        description="Trials in all, failed ones included; may be raised later."
    )
    parallel: Annotated[Whole, Field(ge=1)] = Field(default=1, description="Jobs in flight at a time.")

    command: Annotated[tuple[Text, ...], Field(min_length=1)] | Annotated[Text, Field(min_length=1)] = Field(
        description="What a trial runs: a list of words, or a line for the shell. Parameters travel in params.json."
    )
    workdir: Annotated[OneLine, AfterValidator(os.path.expanduser)] | None = Field(
        default=None, description="Where it runs; relative to the folder of study.yaml, which is the default."
    )
    data: tuple[OneLine, ...] = Field(
        default=(),
        description="Files and folders whose fingerprints are recorded, beside those that the command names.",
    )
    resources: StudyResources = Field(default=StudyResources(), description="What one trial needs.")
    environment: Variables = Field(default={}, description="Environment variables of the command.")
    batch: BatchOptions = Field(default=BatchOptions(), description="What the jobs want of the site.")
    sites: tuple[SiteOrName, ...] = Field(
        default=(), description="Sites to run on, all at once; `--site` names another one. Default: local."
    )
    read: tuple[Read, ...] = Field(
        default=(), description="How metrics are read from a program that does not write result.json."
    )

    retry: Retry = Field(default=Retry(), description="Further attempts, by how the last one ended.")
    walltime_warning: WalltimeWarning = Field(
        default=WalltimeWarning(), description="How a program hears of its walltime before it is over."
    )
    repeats: Annotated[Whole, Field(ge=1, le=100)] = Field(
        default=1, description="Runs of each trial, by seeds or folds; its values are the means over them."
    )
    evaluate: Evaluation | None = Field(
        default=None, description="How `survey best --evaluate` runs the best trials again, on test cases."
    )
    failures: Failures = Field(default=Failures(), description="How many failed trials the study bears.")
    pruner: PrunerOrName | None = Field(
        default=None,
        description="What ends trials early by what they report: median, hyperband or asha. Default: nothing.",
    )
    stop: Stopping = Field(default=Stopping(), description="When it ends before its budget of trials is spent.")
    notify: Notify | Literal[False] | None = Field(
        default=None,
        description="Who is told when the study pauses or ends; false: nobody. Default: the user's notify.yaml, if any.",
    )
    readers: OneLine | None = Field(
        default=None, description="Unix group that may read the study's record; trials' own files stay private."
    )
    keep: Keep = Field(default=Keep(), description="What is kept of the trials' files.")
    storage: DatabaseURL | None = Field(
        default=None,
        description="URL of the study database; ${NAME} stands for an environment variable. Default: study.db.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.objective is None) == (self.objectives is None):
            raise mistake_at(
                ("objective",) if self.objective else (),
                'needs "objective" or "objectives"' + (", not both" if self.objective else ""),
            )
        ahead, walltime = self.walltime_warning.ahead, self.resources.walltime
        if ahead is not None and walltime is not None and ahead >= walltime:
            raise mistake_at(
                ("walltime_warning", "ahead"), f"{ahead:g} s are not less than the walltime of {walltime} s"
            )
        if self.pruner is not None and len(self.targets) > 1:
            raise mistake_at(("pruner",), "trials of several objectives report no one value by which to end them early")
        if self.pruner is not None and self.repeats > 1:
            raise mistake_at(("pruner",), "a trial of several runs (repeats) reports no one value to judge it by")
        if len(self.targets) > 1 and self.stop.of_value:
            raise mistake_at(("stop", self.stop.of_value), "a study of several objectives has no one best value")
        if len(self.targets) > 1 and self.warm_start is not None:
            raise mistake_at(("warm_start",), "a study of several objectives cannot begin with another's trials")
        if self.warm_start is not None and self.sampler.name == "grid":
            raise mistake_at(("warm_start",), "the sampler grid runs every point anyway: leave it out")
        if self.warm_start is not None and self.warm_start.best is not None and self.sampler.name == "bo":
            raise mistake_at(("warm_start", "best"), "the sampler bo weighs the earlier trials itself: leave it out")
        if len({item.metric for item in self.targets}) < len(self.targets):
            raise mistake_at(("objectives",), "two objectives have the same metric")
        check_shares(self.sites, self.parallel)
        for index, text in enumerate(self.where or ()):
            if words := unknown_name(text, self.space):
                raise mistake_at(("where", index), words)
        known = [*self.needed_metrics, *self.metrics, *((self.evaluate and self.evaluate.metrics) or ())]
        for index, rule in enumerate(self.read):
            if rule.metric not in known:
                near = did_you_mean(rule.metric, known)
                raise mistake_at(
                    ("read", index, "metric"),
                    f'"{rule.metric}" is neither an objective nor one of constraints or metrics'
                    + (f"; {near}" if near else ""),
                )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read study.yaml.

        Raises
        ------
        ConfigError
            With one line per mistake: file, line, key.
        """
        return load_model(path, cls, kind="study")

    @property
    def targets(self) -> tuple[Objective, ...]:
        """The objectives, be there one or several."""
        return self.objectives or ((self.objective,) if self.objective else ())

    @property
    def needed_metrics(self) -> tuple[str, ...]:
        """What a trial must report to be complete: objectives, and metrics that have bounds."""
        names = [*(item.metric for item in self.targets), *(each.metric for each in self.constraints or ())]
        return tuple(dict.fromkeys(names))

    def at(self, choice: SiteChoice) -> Self:
        """The study as it runs on one of its sites: what that site says of batch, environment and workdir goes first."""
        return self.model_copy(
            update={
                "batch": self.batch.model_copy(update=choice.batch_changes),
                "environment": {**self.environment, **choice.environment},
                "workdir": self.workdir if choice.workdir is None else choice.workdir,
            }
        )

    def on(self, site: str) -> Self:
        """The study as it runs on the site of this name, be it one of its own or not."""
        return next((self.at(choice) for choice in self.sites if choice.name == site), self)

    def storage_url(self, environ: Mapping[str, str] | None = None) -> str | None:
        """``storage`` with its ``${NAME}`` filled from the environment; None for the default database.

        The result may hold a password: it is for the database alone, never for a file or a message.

        Raises
        ------
        UsageError
            If a variable is not set.
        """
        if self.storage is None:
            return None
        return filled(self.storage, f"storage of study {self.name}", environ)

    def to_data(self) -> dict[str, Any]:
        """Plain data of the whole study, defaults included, that `load` reads back the same."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        data["space"] = _plain_space(data["space"])
        # A default that was written down would count as a change of the study's batch.
        data["sites"] = [choice.model_dump(mode="json", exclude_unset=True) for choice in self.sites]
        return data

    def to_yaml(self) -> str:
        """Write the study as a file that `load` reads back the same."""
        return dump_data(self.to_data())

    def frozen(self) -> dict[str, Any]:
        """Collect what may not change once the study has begun, as plain data."""
        from orchestrator.config.resuming import frozen

        return frozen(self.to_data())


def _plain_space(space: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Write parameters with the keys that apply, in the order in which people write them."""
    order = ("type", "low", "high", "log", "step", "choices", "value", "when")
    idle = {"log": False, "when": {}}
    return {
        name: {key: parameter[key] for key in order if key in parameter and parameter[key] != idle.get(key, ...)}
        for name, parameter in space.items()
    }


def compare(old: Study, new: Study) -> tuple[list[str], list[str]]:
    """Differences between a study that has begun and its new definition.

    Returns
    -------
    forbidden, allowed : list of str
        One line per difference: ``space.lr.high: 0.1 -> 0.2``.
    """
    from orchestrator.config.resuming import differences

    return differences(old.to_data(), new.to_data())


def json_schema() -> dict[str, Any]:
    """JSON Schema of study.yaml, for editors and other programs."""
    schema = Study.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "study.yaml of survey-orchestrator",
    }
