"""comparison.yaml: one study run by several samplers, at several parallelisms, several times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config.fields import Frozen, PlainName, Whole
from orchestrator.config.loading import load_model
from orchestrator.config.mistakes import mistake_at
from orchestrator.config.sampling import BareName

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Arm", "Comparison", "ComparisonSampler"]

_LONGEST_NAME = 64


class ComparisonSampler(Frozen):
    """One of the samplers that are compared."""

    name: PlainName = Field(description="The sampler.")
    label: PlainName | None = Field(default=None, description="What figures call it; its name if not given.")
    options: dict[str, Any] = Field(default={}, description="What only this sampler understands.")
    trials: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="Trials of each of its studies, if not the comparison's."
    )

    @property
    def series(self) -> str:
        """What figures call it."""
        return self.label or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One study of a comparison.

    Attributes
    ----------
    label : str
        Its study's name, unique in the comparison: ``bo-p4-r1``.
    series : str
        What figures call the sampler.
    repeat : int
        From 1. The same repeat has the same seed in all arms, so that arms can be compared in pairs.
    """

    label: str
    series: str
    sampler: ComparisonSampler
    parallel: int
    repeat: int
    seed: int
    trials: int


def _different(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a number is there twice")
    return values


class Comparison(Frozen):
    """A comparison, as comparison.yaml describes it."""

    schema_version: Literal[1] = Field(default=1, description="Version of this file's format.")
    name: PlainName = Field(description="The comparison's name; its folder below the root has it too.")
    description: str = Field(default="", description="For people.")
    study: Annotated[str, Field(min_length=1)] = Field(
        description="The study.yaml that all arms share, relative to this file."
    )
    samplers: Annotated[tuple[Annotated[ComparisonSampler, BareName()], ...], Field(min_length=1)] = Field(
        description="Samplers by name, or as name, options and label."
    )
    parallel: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Field(min_length=1), AfterValidator(_different)] = (
        Field(default=(1, 2, 4, 8), description="Numbers of trials in flight; random search has but the largest.")
    )
    repeats: Annotated[Whole, Field(ge=1)] = Field(default=3, description="Studies per sampler and parallelism.")
    trials: Annotated[Whole, Field(ge=1)] = Field(default=50, description="Trials of each study.")
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = Field(default=0, description="Seed of the first repeat.")
    concurrent: Annotated[Whole, Field(ge=1)] = Field(default=1, description="Studies that run at a time.")

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        seen: set[str] = set()
        for index, sampler in enumerate(self.samplers):
            if sampler.series in seen:
                raise mistake_at(("samplers", index), f'"{sampler.series}" is there twice: give one of them a label')
            seen.add(sampler.series)
            longest = _label(sampler.series, max(self.parallel), self.repeats)
            if len(longest) > _LONGEST_NAME:
                raise mistake_at(
                    ("samplers", index, "label"), f"too long: {longest} is above {_LONGEST_NAME} characters"
                )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read comparison.yaml.

        Raises
        ------
        ConfigError
            With one line per mistake: file, line, key.
        """
        return load_model(path, cls, kind="comparison")

    def arms(self) -> tuple[Arm, ...]:
        """All studies of the comparison, repeat by repeat, so that an interrupted one has whole repeats.

        Random search pays no heed to the trials in flight: it has one arm, at the largest parallelism.
        """
        return tuple(
            Arm(
                label=_label(sampler.series, parallel, repeat),
                series=sampler.series,
                sampler=sampler,
                parallel=parallel,
                repeat=repeat,
                seed=self.seed + repeat - 1,
                trials=sampler.trials or self.trials,
            )
            for repeat in range(1, self.repeats + 1)
            for sampler in self.samplers
            for parallel in ((max(self.parallel),) if sampler.name == "random" else self.parallel)
        )


def _label(series: str, parallel: int, repeat: int) -> str:
    return f"{series}-p{parallel}-r{repeat}"
