"""The study's folder: what is frozen in it, what is kept, what is refused, what is read of it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site, load_site
from orchestrator.config.study import Study
from orchestrator.errors import Paused, ResumeMismatch, UsageError
from orchestrator.jobs.fleet import Fleet
from orchestrator.model import Attempt
from orchestrator.search.chronicle import Chronicle
from orchestrator.search.freeze import freeze
from orchestrator.search.keep import Keeper
from orchestrator.search.layout import StudyFolder
from orchestrator.store.ledger import Ledger
from orchestrator.studies.forecast import examine, forecast
from orchestrator.studies.reader import read_study, studies_below, trial_directory


def study(**changes: Any) -> Study:
    data = {
        "name": "toy",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "int", "low": 1, "high": 3}},
        "sampler": "random",
        "trials": 4,
        "command": ["true"],
    }
    return Study.model_validate({**data, **changes})


def site(folder: Path, name: str = "mine", more: str = "") -> Site:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nscheduler: local\n{more}", encoding="utf-8")
    return load_site(path)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "runs" / "toy")
    made.root.mkdir(parents=True)
    return made


def frozen(what: Study, where: Site, folder: StudyFolder, origin: Path) -> list[str]:
    """Freeze; the changes that were told."""
    told: list[str] = []
    freeze(what, [where], folder, origin=origin, now=1e9, on_change=told.extend)
    return told


def test_what_is_frozen_reads_back_the_same(folder: StudyFolder, tmp_path: Path) -> None:
    assert not folder.begun
    assert frozen(study(), site(tmp_path), folder, tmp_path) == []
    assert StudyFolder(folder.root).begun
    assert Study.load(folder.study) == study()
    assert load_site(folder.site).model_dump() == site(tmp_path).model_dump()
    facts = json.loads(folder.provenance.read_text(encoding="utf-8"))
    assert facts["workdir"] == str(tmp_path)


def test_what_may_change_is_told_and_frozen_anew(folder: StudyFolder, tmp_path: Path) -> None:
    frozen(study(), site(tmp_path), folder, tmp_path)
    assert frozen(study(trials=6), site(tmp_path), folder, tmp_path) == ["trials: 4 -> 6"]
    assert Study.load(folder.study).trials == 6
    assert len(json.loads(folder.provenance.read_text(encoding="utf-8"))["runs"]) == 1


def test_what_may_not_change_is_refused_and_nothing_is_written(folder: StudyFolder, tmp_path: Path) -> None:
    frozen(study(), site(tmp_path), folder, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.root.iterdir()}
    with pytest.raises(ResumeMismatch, match=r"space\.x\.high: 3 -> 4"):
        frozen(study(space={"x": {"type": "int", "low": 1, "high": 4}}), site(tmp_path), folder, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.root.iterdir()} == before


@pytest.mark.parametrize("other", [("other", ""), ("mine", "work_root: /scratch/{user}\n")])
def test_another_site_is_refused_while_jobs_are_in_flight(
    folder: StudyFolder, tmp_path: Path, other: tuple[str, str]
) -> None:
    frozen(study(), site(tmp_path), folder, tmp_path)
    elsewhere = site(tmp_path, *other)
    frozen(study(), elsewhere, folder, tmp_path)
    frozen(study(), site(tmp_path), folder, tmp_path)
    Ledger(folder.root).plan("00002", tag="t00002-x", fence="1-a", params={}, now=1e9)
    with pytest.raises(ResumeMismatch, match=r"in flight on site 'mine'.*: 00002"):
        frozen(study(), elsewhere, folder, tmp_path)
    with pytest.raises(ResumeMismatch, match="in flight"):
        examine(study(), elsewhere, folder)
    frozen(study(), site(tmp_path), folder, tmp_path)


@pytest.mark.parametrize("word", ["y" * 300, "{{}}", "|"])
def test_words_of_a_command_need_not_be_file_names(folder: StudyFolder, tmp_path: Path, word: str) -> None:
    assert frozen(study(command=f"true {word}"), site(tmp_path), folder, tmp_path) == []


@pytest.mark.parametrize("word", [".", "/", ".."])
def test_a_folder_around_the_record_is_no_data_of_the_study(folder: StudyFolder, tmp_path: Path, word: str) -> None:
    what = study(command=["ls", word])
    frozen(what, site(tmp_path), folder, tmp_path)
    assert json.loads(folder.provenance.read_text(encoding="utf-8"))["files"] == {}
    (tmp_path / "new").touch()
    assert frozen(what, site(tmp_path), folder, tmp_path) == []


def test_a_changed_data_file_is_told(folder: StudyFolder, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("1\n", encoding="utf-8")
    frozen(study(data=["data.csv"]), site(tmp_path), folder, tmp_path)
    data.write_text("2\n", encoding="utf-8")
    (line,) = frozen(study(data=["data.csv"]), site(tmp_path), folder, tmp_path)
    assert str(data) in line


def test_examining_writes_nothing_and_counts_the_grid(folder: StudyFolder, tmp_path: Path) -> None:
    placement, trials = examine(study(sampler="grid"), site(tmp_path), folder)
    assert trials == 3
    assert placement.queue is None
    assert list(folder.root.iterdir()) == []
    with pytest.raises(UsageError, match="no sampler 'gird'"):
        examine(study(sampler="gird"), site(tmp_path), folder)


def test_a_forecast_has_script_and_cost_and_writes_nothing(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "name: cluster\nscheduler: slurm\n"
        "queues:\n  - {name: gpu, unit: node, gpus_per_unit: 4, cores_per_unit: 32, memory_per_unit: 64GB}\n",
        encoding="utf-8",
    )
    wish = study(resources={"gpus": 4, "walltime": "30m"}, command=["./train.sh"])
    found = forecast(wish, load_site(cluster), root=tmp_path / "runs", origin=tmp_path)
    assert "#SBATCH" in found.script
    assert "queue gpu" in found.headline
    assert (found.cost.trials, found.cost.gpu_hours, found.cost.node_hours) == (4, 8.0, 2.0)
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_is_full_under_the_events_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = Chronicle(StudyFolder(tmp_path), study(), site="here", clock=SystemClock(), listener=lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(Paused, match=r"cannot write .*events\.jsonl: No space left"):
            told.event("started")
    told.event("started")
    assert json.loads(StudyFolder(tmp_path).events.read_text())["event"] == "started"


class Removing:
    """A session that remembers what it was asked to remove."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def remove(self, *paths: str) -> None:
        self.removed += paths


async def kept(
    best: int,
    values: Iterable[tuple[float, ...] | float | None],
    *directions: str,
    before: dict[tuple[str, ...], tuple[float, ...] | None] | None = None,
) -> list[str]:
    """What is removed as trials with these values come in; None breaks a constraint."""
    session = Removing()
    keeper = Keeper(best, directions)
    await keeper.resume(before or {}, cast("Fleet", session))
    for index, value in enumerate(values):
        told = (value,) if isinstance(value, float) else value
        await keeper.add([f"/w/{index}/attempt-2"], told, cast("Fleet", session))
    return session.removed


def of(*trials: str) -> list[str]:
    return [f"/w/{trial}/{what}" for trial in trials for what in ("attempt-2/artifacts", "checkpoint")]


async def test_only_the_best_keep_their_artefacts_and_checkpoints() -> None:
    assert await kept(2, [3.0, 1.0, 2.0, 4.0], "minimize") == of("0", "3")
    assert await kept(1, [3.0, 1.0, 4.0], "maximize") == of("1", "0")
    assert await kept(1, [3.0, 3.0], "maximize") == of("1")
    assert await kept(0, [3.0], "maximize") == of("0")


async def test_of_several_objectives_the_whole_front_keeps_them() -> None:
    values = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.0, 0.5), (5.0, 4.0)]
    assert await kept(1, values, "maximize", "maximize") == of("0", "1", "3", "2")
    assert await kept(1, values, "maximize", "minimize") == of("0", "1")
    assert await kept(0, values[:2], "maximize", "minimize") == of("0", "1")


async def test_a_trial_that_breaks_a_constraint_keeps_nothing() -> None:
    assert await kept(2, [None, 1.0, None], "minimize", before={("/w/a/attempt-2",): None}) == of("a", "0", "2")


async def test_the_best_of_earlier_runs_count() -> None:
    earlier = {"/w/a/attempt-2": 1.0, "/w/b/attempt-2": 5.0, "": 9.0}
    before: dict[tuple[str, ...], tuple[float, ...] | None] = {(name,): (value,) for name, value in earlier.items()}
    assert await kept(1, [2.0, 0.5], "minimize", before=before) == of("b", "0", "a")


def test_a_folder_without_a_record_holds_no_study(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(study().to_yaml(), encoding="utf-8")
    with pytest.raises(UsageError, match="holds no study"):
        read_study(tmp_path)


def test_the_latest_study_comes_first_those_of_comparisons_too(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "both/arm", "old")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "events.jsonl").touch()
        os.utime(tmp_path / name / "events.jsonl", (1e9 - age, 1e9 - age))
    assert [str(path.relative_to(tmp_path)) for path in studies_below(tmp_path)] == ["new", "both/arm", "old"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "{root}/trials/00003/attempt-2"),
        ("work_root: /scratch/x\n", "/scratch/x/toy-abc123/trials/00003/attempt-2"),
    ],
)
def test_an_attempt_in_flight_is_found_in_the_sites_work_root(
    folder: StudyFolder, tmp_path: Path, more: str, expected: str
) -> None:
    frozen(study(), site(tmp_path, more=more), folder, tmp_path)
    (folder.root / "id").write_text('{"id": "abc123"}', encoding="utf-8")
    attempt = Attempt(key="00003", number=2, tag="t", fence="f", planned=0.0)
    assert trial_directory(folder.root, attempt) == Path(expected.format(root=folder.root))
