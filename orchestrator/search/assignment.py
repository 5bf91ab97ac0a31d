"""What the search hands to the jobs: a trial as a job, the fleet that runs them, and what is to be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.jobs.breaker import Breaker
from orchestrator.jobs.fleet import Berth, Fleet
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.jobs.session import Event, Session
from orchestrator.model import Job, Json, ReadRule, Resources
from orchestrator.search.layout import run_key, run_of, trial_number
from orchestrator.store.ledger import Ledger

if TYPE_CHECKING:
    from orchestrator.clock import Clock
    from orchestrator.config.study import Study
    from orchestrator.search.places import Place
    from orchestrator.store.lease import Lease

__all__ = ["cancel_in_flight", "study_fleet", "study_job", "study_resources"]


def study_resources(study: Study) -> Resources:
    """What one trial needs."""
    wish = study.resources
    return Resources(gpus=wish.gpus, cpus=wish.cpus, memory=wish.memory, walltime=wish.walltime, nodes=wish.nodes)


def study_job(study: Study, number: int, params: Mapping[str, Json], run: int = 1) -> Job:
    """A trial, or one of its runs, as the job that runs it; each site fits it to itself (`Place.fit`)."""
    return Job(
        key=run_key(number, run, study.repeats),
        number=number,
        run=run,
        runs=study.repeats,
        command=study.command if isinstance(study.command, str) else tuple(study.command),
        params=params,
        resources=study_resources(study),
        metrics=study.needed_metrics,
        read=tuple(
            ReadRule(metric=rule.metric, stdout=rule.stdout, json=rule.json_, csv=rule.csv) for rule in study.read
        ),
        seed=_seed(study, number, run),
        warn_ahead=study.walltime_warning.ahead,
        warn_signal=study.walltime_warning.signal or "",
    )


def _seed(study: Study, number: int, run: int) -> int:
    """A trial's own seed. Of several runs each has one that all trials share: so their means are compared in pairs."""
    from orchestrator.samplers import trial_seed

    if study.repeats > 1:
        return trial_seed(study.sampler.seed, run, "run") % 2**31
    return trial_seed(study.sampler.seed, number) % 2**31


def study_fleet(
    study: Study,
    places: Sequence[Place],
    root: Path,
    *,
    origin: Path,
    lease: Lease,
    clock: Clock,
    on_event: Callable[[str], Callable[[Event], None]],
) -> Fleet:
    """The sessions of a study on all its sites.

    Parameters
    ----------
    root : Path
        The study's own folder.
    lease : Lease
        Whose token goes into each attempt, and which is looked at before each durable step.
    on_event : callable
        What listens to the session of the site that it is given the name of.
    """
    berths = [
        Berth(
            session=Session(
                root,
                name=study.name,
                site=place.site,
                batch=place.study.batch,
                retry=RetryPolicy(limits=study.retry.limits(), memory_factor=study.retry.memory_factor),
                breaker=Breaker(submits=study.failures.failed_submits, deaths=study.failures.instant_deaths),
                limit=place.share or study.parallel,
                origin=origin,
                fence=lease.fence,
                guard=lease.check,
                clock=clock,
                transport=place.transport,
                on_event=on_event(place.site.name),
            ),
            share=place.share or study.parallel,
            fit=place.fit(origin),
        )
        for place in places
    ]
    return Fleet(berths, limit=study.parallel, clock=clock)


async def cancel_in_flight(study: Study, root: Path, fleet: Fleet) -> list[str]:
    """Cancel all jobs that the ledger in ``root`` has in flight, and wait until they have ended.

    Returns
    -------
    list of str
        Keys of the jobs; their trials are run again by the next driver, unless a result came after all.
    """
    ledger = Ledger(root)
    flying = [
        key
        for key in ledger.keys()  # noqa: SIM118  a ledger is no dict
        if (latest := ledger.latest(key)) is not None and latest.outcome is None
    ]
    await fleet.abort(*(study_job(study, trial_number(key), ledger.params(key), run_of(key)) for key in flying))
    return flying
