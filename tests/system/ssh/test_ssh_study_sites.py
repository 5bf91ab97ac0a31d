"""One study over two sites, each behind a login node of its own: what is theirs comes from the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from login_node import LoginNode
from login_place import Place
from ssh_study import SECOND_WAY_SLOW, FarStudy, MakeStudy, until
from survey_command import Ran

from orchestrator.jobs.life import MOVED
from orchestrator.jobs.retry import NEVER_RAN
from orchestrator.search.layout import StudyFolder, trial_key
from orchestrator.store.ledger import Ledger

pytestmark = pytest.mark.system

_PROGRAM = """
import os, time
from orchestrator import trial
from pathlib import Path
print("this is trial", os.environ["SURVEY_TRIAL"], "on", os.environ["WHERE"])
time.sleep(1)
Path(os.environ["SURVEY_ARTIFACTS"], "model").write_text(os.environ["WHERE"])
trial.finish(loss=trial.params()["x"])
"""


@pytest.fixture
def both(
    make_study: MakeStudy, place: Place, kind: str, emulated_environment: dict[str, str]
) -> tuple[FarStudy, dict[str, LoginNode]]:
    """A study of four trials with two slots on each of the sites north and south."""
    own = {"transport": {"control_path": str(place.socket.with_name("t"))}} if kind == "openssh" else {}
    south, southern = make_study(emulated_environment, trials=1, site={"name": "south"}, **own)
    north, northern = make_study(emulated_environment, trials=4, parallel=4, site={"name": "north"}, keep={"best": 4})
    (north.root / "program.py").write_text(_PROGRAM)
    sites = [
        {"name": str(study.site), "share": 2, "environment": {"WHERE": name}}
        for name, study in (("north", north), ("south", south))
    ]
    north.change(sites=sites)
    return north, {"north": northern, "south": southern}


@SECOND_WAY_SLOW
def test_a_study_over_two_login_nodes_uses_both_and_what_a_trial_left_comes_from_its_own(
    both: tuple[FarStudy, dict[str, LoginNode]], survey: Callable[..., Ran]
) -> None:
    study, nodes = both
    ran = survey(study, "run", str(study.study), "--yes")
    assert ran.code == 0, ran.err
    assert [node.logins for node in nodes.values()] == [1, 1]
    ledger = Ledger(study.root / "runs" / "toy")
    where = {number: ledger.attempts(trial_key(number))[-1].site for number in range(4)}
    assert sorted(where.values()) == ["north", "north", "south", "south"]
    for number, name in {name: (number, name) for number, name in where.items()}.values():  # one of each site
        before = {each: node.execs for each, node in nodes.items()}
        logs = survey(study, "logs", str(number))
        assert (logs.code, logs.out) == (0, f"this is trial {number} on {name}\n"), logs.err
        assert {each: node.execs - before[each] for each, node in nodes.items()} == {
            each: 2 if each == name else 0 for each in nodes
        }
    exported = survey(study, "best", "--count", "4", "--export", "best")
    assert exported.code == 0, exported.err
    models = {int(path.name.rpartition("-")[2]): path / "artifacts" / "model" for path in (study.root / "best").iterdir()}  # fmt: skip
    assert {number: path.read_text() for number, path in models.items()} == where


@SECOND_WAY_SLOW
async def test_while_one_site_is_away_the_other_goes_on_and_nothing_is_lost(
    both: tuple[FarStudy, dict[str, LoginNode]],
) -> None:
    study, nodes = both
    study.change(trials=8)
    record = StudyFolder(study.root / "runs" / "toy")

    def ended(name: str) -> int:
        return sum(trial["site"] == name and trial["outcome"] is not None for trial in study.attempts())

    driver = asyncio.create_task(study.drive_everywhere())
    try:
        await until(
            lambda: driver.done() or {"north", "south"} == {trial["site"] for trial in study.attempts()}, "jobs"
        )
        nodes["south"].sshd.stop()
        before = ended("north")
        await until(lambda: driver.done() or ended("north") >= before + 3, "three more trials on the other site")
        assert not driver.done(), record.events.read_text()
        nodes["south"].sshd.start()
        assert (await driver).state == "done"
    finally:
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)
    told = study.trials()
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 8
    # What could not be handed over to the site that was away never began, and is the only thing done anew.
    begun = [attempt for attempt in study.attempts() if not {NEVER_RAN, MOVED}.intersection(attempt["notes"])]
    assert sorted(attempt["key"] for attempt in begun) == [trial_key(number) for number in range(8)]
