"""What a study searches with: its sampler, its grid, and whether its conditions leave anything to search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.search import space as space_tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.samplers import BaseSampler

    from orchestrator.config.study import Study
    from orchestrator.model import Json

__all__ = ["left_out", "refuse_impossible", "study_grid", "study_sampler"]


def study_grid(study: Study) -> list[dict[str, Json]] | None:
    """Points of the grid that meet the study's conditions; None where its sampler is another.

    Raises
    ------
    UsageError
        If there is no end to them, or none.
    """
    return space_tools.grid(study.space, study.where or ()) if study.sampler.name == "grid" else None


def left_out(study: Study) -> int:
    """How many points of the grid do not meet the study's conditions."""
    if study.sampler.name != "grid" or not study.where:
        return 0
    return len(space_tools.grid(study.space)) - len(space_tools.grid(study.space, study.where))


def study_sampler(study: Study, grid: Sequence[Mapping[str, Any]] | None = None, **further: Any) -> BaseSampler:
    """Make a sampler for one ask: what it draws depends on seed, trial number and history alone.

    Parameters
    ----------
    grid : sequence of mapping, optional
        What `study_grid` says.
    **further
        As `orchestrator.samplers.make_sampler`.

    Raises
    ------
    UsageError
        If there is no such sampler or option, an extra is missing, or it cannot search for what the study names.
    """
    from orchestrator.samplers import make_sampler

    chosen = study.sampler
    distributions = space_tools.distributions(study.space)
    admits = space_tools.admitter(study.space, study.where) if study.where else None

    def make(seed: int) -> BaseSampler:
        return make_sampler(
            chosen.name,
            seed=seed,
            startup_trials=chosen.startup_trials,
            options=chosen.options,
            space=distributions,
            grid=grid,
            objectives=len(study.targets),
            admits=admits,
            **further,
        )

    sampler = make(chosen.seed)
    if admits is None or grid is not None:
        return sampler
    from orchestrator.samplers.registry import FITTED
    from orchestrator.samplers.within import Within

    return Within(
        make,
        seed=chosen.seed,
        space=distributions,
        walk=lambda asked: space_tools.suggest(study.space, asked),
        admits=admits,
        draws=2 if chosen.name in FITTED else 8,
    )


def refuse_impossible(study: Study) -> None:
    """Refuse conditions that no point of the space meets, as far as can be seen.

    Raises
    ------
    UsageError
        Naming the condition that is never met, if it is one alone.
    """
    if not study.where or study.sampler.name == "grid":
        return
    import numpy as np

    from orchestrator.samplers.within import MOST_DRAWN, random_points

    together = space_tools.admitter(study.space, study.where)
    alone = {text: space_tools.admitter(study.space, [text]) for text in study.where}
    never = dict.fromkeys(study.where)
    for point in random_points(space_tools.distributions(study.space), np.random.default_rng(study.sampler.seed)):
        if together(point):
            return
        for text in [text for text in never if alone[text](point)]:
            del never[text]
    named = (
        "the condition " + " and the condition ".join(map(repr, never)) if never else f"all of {', '.join(study.where)}"
    )
    raise UsageError(
        f"none of {MOST_DRAWN:,} random points of the space meets {named}",
        hint="see `where` in study.yaml: the parameters' ranges leave nothing, or too little, to search",
    )
