"""One study over two emulated clusters at once, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.study import Study
from orchestrator.errors import ResumeMismatch, UsageError
from orchestrator.search.driver import StudyDriver
from orchestrator.search.layout import StudyFolder
from orchestrator.search.places import Place, places_of
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.simulate.flavours import FLAVOURS
from orchestrator.simulate.programs import Run
from orchestrator.simulate.transport import SimulatedTransport
from orchestrator.store.ledger import Ledger
from orchestrator.studies.reader import read_study, trial_directory

TRIALS = 16
KINDS = ("slurm", "pbs")


def study(**changes: Any) -> Study:
    return Study(
        **{
            "name": "wide",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 3},
            "trials": TRIALS,
            "parallel": 4,
            "command": ["train"],
            "resources": {"gpus": 1, "walltime": 7200},
            "environment": {"WHERE": "anywhere", "BOTH": "1"},
            "sites": [
                {"name": "slurm", "share": 3, "environment": {"WHERE": "slurm"}},
                {"name": "pbs", "share": 2, "workdir": "/there"},
            ],
            **changes,
        }
    )


class Sites:
    def __init__(self, root: Path, **waits: float) -> None:
        self.root = root
        self.clock = VirtualClock()
        self.orders: list[Mapping[str, Any]] = []
        self.there = {kind: self._cluster(kind, waits.get(kind, 0.0)) for kind in KINDS}

    def _cluster(self, kind: str, wait: float) -> SimulatedTransport:
        rules = FLAVOURS[kind].make_rules(queue_wait=lambda _job: wait)
        return SimulatedTransport(self.clock, self._train, kind=kind, rules=rules)

    def _train(self, order: Mapping[str, Any], params: Mapping[str, Any], _attempt: int) -> Run:
        self.orders.append(order)
        return Run(duration=300.0 + 900.0 * float(params["x"]), metrics={"m": float(params["x"])})

    def driver(self, what: Study, kinds: tuple[str, ...] = KINDS) -> StudyDriver:
        places = [
            Place(
                study=what.at(choice),
                site=FLAVOURS[choice.name].site(name=choice.name),
                share=choice.share,
                transport=self.there[choice.name],
            )
            for choice in what.sites
            if choice.name in kinds
        ]
        return StudyDriver(what, places, self.root, origin=self.root, clock=self.clock)

    async def cut_short(self, what: Study, seconds: float) -> None:
        task = asyncio.create_task(self.driver(what).run())
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    @property
    def runs_per_tag(self) -> Counter[str]:
        return Counter(each.tag for transport in self.there.values() for each in transport.executions)


def scene(body: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await body()

    run_virtual(play())


def test_both_sites_work_on_one_study_and_each_trial_is_run_once(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path)
        record = await sites.driver(study()).run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert record.site == "slurm, pbs"
        assert all(sites.there[kind].executions for kind in KINDS)
        assert set(sites.runs_per_tag.values()) == {1}
        assert len(sites.runs_per_tag) == TRIALS

    scene(body)


def test_the_runs_of_a_trial_may_go_to_different_sites_and_are_found_there_again(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path)
        repeated = study(trials=4, repeats=3)
        for seconds in (30.0, 500.0):
            await sites.cut_short(repeated, seconds)
        record = await sites.driver(repeated).run()
        assert [trial.state for trial in record.trials] == ["complete"] * 4
        assert set(Counter((order["number"], order["run"]) for order in sites.orders).values()) == {1}
        assert len(sites.orders) == 12
        assert any(len({run.site for run in trial.runs}) == 2 for trial in record.trials)

    scene(body)


def test_each_site_gives_its_own_environment_and_working_directory(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path)
        await sites.driver(study()).run()
        seen = {
            (order["environment"]["WHERE"], order["environment"]["BOTH"], order["workdir"]) for order in sites.orders
        }
        assert seen == {("slurm", "1", str(tmp_path)), ("anywhere", "1", "/there")}

    scene(body)


@pytest.mark.parametrize("moment", [1.0, 200.0, 900.0])
def test_a_driver_that_ends_is_followed_by_one_that_knows_where_each_trial_is(tmp_path: Path, moment: float) -> None:
    async def body() -> None:
        sites = Sites(tmp_path, slurm=600.0)
        for _ in range(3):
            await sites.cut_short(study(), moment)
        record = await sites.driver(study()).run()
        assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
        assert set(sites.runs_per_tag.values()) == {1}
        assert len(sites.runs_per_tag) == TRIALS

    scene(body)


def test_a_site_with_jobs_in_flight_cannot_be_left_out(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path)
        await sites.cut_short(study(), 100.0)
        with pytest.raises(ResumeMismatch, match="in flight on site 'pbs'"):
            await sites.driver(study(), kinds=("slurm",)).run()
        await sites.driver(study()).run()
        assert (await sites.driver(study(), kinds=("slurm",)).run()).state == "done"

    scene(body)


def test_the_folder_tells_readers_which_site_has_an_attempt(tmp_path: Path) -> None:
    async def body() -> None:
        sites = Sites(tmp_path)
        await sites.driver(study()).run()
        folder = StudyFolder(tmp_path / "wide")
        assert [path.name for path in folder.sites] == ["pbs.yaml", "slurm.yaml"]
        ledger = Ledger(folder.root)
        names = {attempt.site for number in range(TRIALS) for attempt in ledger.attempts(f"{number:05d}")}
        assert names == set(KINDS)
        (attempt,) = ledger.attempts("00000")
        assert trial_directory(folder.root, attempt) == folder.root / "trials/00000/attempt-1"
        assert read_study(folder.root).site == "slurm, pbs"
        events = [json.loads(line) for line in folder.events.read_text().splitlines()]
        assert {event["site"] for event in events if event["event"] == "submitted"} == set(KINDS)

    scene(body)


def test_sites_are_loaded_as_the_study_names_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: ours\nextends: slurm\n")
    what = study(sites=["mine.yaml", {"name": "pbs", "share": 2, "batch": {"group": "lab"}}])
    ours, pbs = places_of(what, tmp_path)
    assert (ours.site.name, ours.share, ours.study.batch.group) == ("ours", None, None)
    assert (pbs.site.name, pbs.share, pbs.study.batch.group) == ("pbs", 2, "lab")
    (alone,) = places_of(what, tmp_path, "pbs")
    assert (alone.site.name, alone.share, alone.study.batch.group) == ("pbs", None, "lab")
    assert [place.site.name for place in places_of(study(sites=[]), tmp_path)] == ["local"]


def test_two_sites_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: pbs\nextends: pbs\n")
    with pytest.raises(UsageError, match="two of the study's sites are called 'pbs'"):
        places_of(study(sites=["mine.yaml", "pbs"]), tmp_path)
