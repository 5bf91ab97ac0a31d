"""A work root without room: nothing is staged, it is said, and it goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.jobs import space_left
from orchestrator.jobs.space_left import NEEDED, SpaceLeft
from orchestrator.search import chronicle
from orchestrator.search.driver import StudyDriver
from orchestrator.simulate.clock import VirtualClock, run_virtual
from orchestrator.transports.base import Transport
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.trouble import SiteUnusable

PLENTY = {"free": 10 * NEEDED, "files": 10**6}


class Disk:
    """Stands for what `statvfs` tells; each look makes the next one of ``later`` true."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *later: dict[str, int], change: Callable[[], bool] | None = None
    ) -> None:
        self.facts, self.later, self.change = PLENTY, list(later), change
        self.looks = 0
        monkeypatch.setattr(os, "statvfs", self.look)

    def look(self, _path: str) -> Any:
        self.looks += 1
        if self.later and (self.change is None or self.looks == 1 or self.change()):
            self.facts = self.later.pop(0)
        return SimpleNamespace(
            f_bavail=self.facts["free"] // 512, f_frsize=512, f_files=10**7, f_favail=self.facts["files"]
        )


class Writes:
    """A write that fails as often as ``failures`` say."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.done = 0

    async def __call__(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        self.done += 1
        return "written"


def before(write: Writes, said: list[tuple[str, bool]], transport: Transport | None = None, **named: Any) -> str | None:
    async def body() -> str | None:
        def on_room(words: str, lacking: bool) -> None:
            said.append((words, lacking))

        space = SpaceLeft(transport or LocalTransport(clock), "/work/toy", clock, on_room=on_room)
        return await space.before(write, **named)

    clock = VirtualClock()
    return run_virtual(body())


def test_where_there_is_room_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, PLENTY)
    said: list[tuple[str, bool]] = []
    assert before(Writes(), said) == "written"
    assert said == []


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"free": 12 * 2**20, "files": 10**6}, "no space left on /work/toy: 12 MB free, 100 MB needed"),
        ({"free": 10 * NEEDED, "files": 7}, "no space left on /work/toy: room for 7 files, 1000 needed"),
    ],
    ids=["bytes", "inodes"],
)
def test_a_lack_is_told_with_what_is_needed_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch, lack: dict[str, int], words: str
) -> None:
    disk = Disk(monkeypatch, lack, lack, PLENTY)
    write, said = Writes(), list[tuple[str, bool]]()
    assert before(write, said) == "written"
    assert (write.done, disk.looks) == (1, 3)
    assert said[0][0].startswith(words)
    assert [lacking for _, lacking in said] == [True, True, False]
    assert said[-1][0] == "there is room again on /work/toy: going on"


def test_a_quota_that_only_the_write_meets_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, PLENTY)
    write, said = Writes(SiteUnusable("/work/toy: your quota is used up")), list[tuple[str, bool]]()
    assert before(write, said) == "written"
    assert said[0][0].startswith("/work/toy: your quota is used up")
    assert write.done == 1


def test_nobody_waits_for_room_for_what_is_not_wanted_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, {"free": 0, "files": 0})
    write = Writes()
    assert before(write, [], unwanted=lambda: True) is None
    assert write.done == 0


def test_of_a_site_elsewhere_the_local_disk_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, {"free": 0, "files": 0})
    elsewhere: Any = SimpleNamespace(name="far")
    assert before(Writes(), [], elsewhere) == "written"
    assert disk.looks == 0
    with pytest.raises(SiteUnusable, match="used up"):
        before(Writes(SiteUnusable("your quota is used up")), [], elsewhere)


def study_in(folder: Path) -> Study:
    command = (
        "python3 -c \"import json,os; x=json.load(open(os.environ['SURVEY_PARAMS']))['x'];"
        " json.dump({'metrics': {'loss': x}}, open(os.environ['SURVEY_RESULT'], 'w'))\""
    )
    data = {
        "schema_version": 1,
        "name": "toy",
        "objective": {"metric": "loss", "direction": "minimize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random", "seed": 5},
        "trials": 2,
        "command": command,
    }
    (folder / "study.yaml").write_text(json.dumps(data))
    return Study.load(folder / "study.yaml")


@pytest.mark.parametrize("met", ["looked for", "met by the write"])
def test_a_study_is_shown_as_paused_while_there_is_no_room_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met: str
) -> None:
    def shown_as_paused() -> bool:
        snapshot = tmp_path / "runs" / "toy" / "snapshot.json"
        shown = json.loads(snapshot.read_text()) if snapshot.exists() else {}
        if shown.get("state") == "paused":
            messages.append(shown["message"])
        return bool(messages)

    messages: list[str] = []
    events: list[Any] = []
    monkeypatch.setattr(space_left, "_PAUSE", 0.05)
    monkeypatch.setattr(chronicle, "_SHOW_PAUSE", 0.05)
    if met == "looked for":
        Disk(monkeypatch, {"free": 0, "files": 0}, PLENTY, change=shown_as_paused)
    else:
        Disk(monkeypatch, PLENTY)
        rename = os.rename

        def no_room(source: str, target: str) -> None:
            if target.endswith("job.json") and not shown_as_paused():
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
            rename(source, target)

        monkeypatch.setattr(os, "rename", no_room)
    driver = StudyDriver(
        study_in(tmp_path), load_site("local"), tmp_path / "runs", origin=tmp_path, on_event=events.append
    )
    record = asyncio.run(driver.run())
    assert record.state == "done"
    assert [trial.state for trial in record.trials] == ["complete", "complete"]
    assert ("100 MB needed" if met == "looked for" else "your quota is used up") in messages[0]
    assert "goes on by itself" in messages[0]
    assert [event["room"] for event in events if "room" in event][-1] is False
    assert sum(event["event"] == "submitted" for event in events) == 2
