"""A full disk or quota at each durable write: one clear word, the old file whole, and it goes on with room again."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler

from orchestrator.clock import SystemClock
from orchestrator.errors import Paused, SurveyError
from orchestrator.store.atomic import read_bytes
from orchestrator.store.lease import Lease, read_holder
from orchestrator.store.ledger import Ledger
from orchestrator.store.provenance import write as write_provenance
from orchestrator.store.record import StudyRecord
from orchestrator.store.snapshot import publish, read
from orchestrator.store.studydb import StudyDatabase, read_trials

SETTINGS: dict[str, Any] = {"name": "s", "directions": ["minimize"], "definition": {}}
RECORD = StudyRecord(
    name="s",
    objectives=("loss",),
    directions=("minimize",),
    space={},
    sampler={},
    planned=1,
    parallel=1,
    site="local",
    state="running",
)


def plan(root: Path) -> Callable[[], object]:
    return lambda: Ledger(root).plan("00000", "t00000-abc", "1-x", {"x": 1}, 1.0)


def save(root: Path) -> Callable[[], object]:
    attempt = Ledger(root).plan("00000", "t00000-abc", "1-x", {"x": 1}, 1.0)
    return lambda: Ledger(root).save(dataclasses.replace(attempt, job_id="7"))


def acquire(root: Path) -> Callable[[], object]:
    return lambda: Lease.acquire(root, SystemClock())


def renew(root: Path) -> Callable[[], object]:
    return Lease.acquire(root, SystemClock()).renew


def snapshot(root: Path) -> Callable[[], object]:
    publish(root, RECORD)
    return lambda: publish(root, dataclasses.replace(RECORD, planned=2))


def provenance(root: Path) -> Callable[[], object]:
    return lambda: write_provenance(root, {"time": 1.0})


def saved_copy(root: Path) -> Callable[[], object]:
    database = StudyDatabase.open(root, **SETTINGS)
    return database.backup


def journal(root: Path) -> Callable[[], object]:
    database = StudyDatabase.open(root, url="journal:study.log", **SETTINGS)
    return lambda: ask(database)


def ask(database: StudyDatabase) -> tuple[int, dict[str, Any]]:
    return database.ask(RandomSampler(seed=1), lambda trial: {"x": trial.suggest_float("x", 0, 1)})


def refused(code: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def content(root: Path) -> dict[str, bytes]:
    """The files that count; what is left of a write that failed has a name of its own."""
    kept = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith((".tmp", ".lock", "lock"))]
    return {str(path.relative_to(root)): path.read_bytes() for path in kept}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("step", [plan, save, acquire, renew, snapshot, provenance, saved_copy, journal])
def test_no_room_pauses_harms_nothing_and_the_same_step_works_when_there_is_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[[Path], Callable[[], object]],
    call: str,
    code: int,
) -> None:
    if call == "write" and step in {saved_copy, journal}:
        call = "fsync"  # they write by other means; the sync is what tells
    act = step(tmp_path)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refused(code))
        with pytest.raises(Paused, match=os.strerror(code)) as caught:
            act()
    assert str(tmp_path) in caught.value.message
    assert "free space or quota" in caught.value.hint
    assert caught.value.exit_code == 4
    assert content(tmp_path) == before
    act()
    assert content(tmp_path) != before or step is renew


@pytest.mark.parametrize("url", [None, "journal:study.log"])
def test_a_full_database_pauses_and_the_same_driver_goes_on_with_the_same_number(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StudyDatabase.open(tmp_path, url=url, **SETTINGS) as study:
        first, _ = ask(study)
        with monkeypatch.context() as patch:
            if url is None:
                engine: Any = study._real.engine  # type: ignore[attr-defined]
                connection = engine.raw_connection()
                connection.cursor().execute("PRAGMA max_page_count=1")
                note: Any = "x" * 200_000
                with pytest.raises(Paused, match="full") as caught:
                    study.note(first, "phase", note)
                connection.cursor().execute("PRAGMA max_page_count=1073741823")
                connection.close()
            else:
                patch.setattr(os, "fsync", refused(errno.ENOSPC))
                with pytest.raises(Paused, match="No space") as caught:
                    study.note(first, "phase", "x")
        assert "free space or quota" in caught.value.hint
        assert "phase" not in study.attributes(first)
        study.note(first, "phase", "y")
        assert ask(study)[0] == 1
        study.tell(first, "complete", [0.5])
    assert [trial.state for trial in read_trials(tmp_path, name="s", url=url)] == ["complete", "running"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from optuna.samplers import RandomSampler
from orchestrator.errors import Paused
from orchestrator.store.studydb import StudyDatabase
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
study = StudyDatabase.open(Path(sys.argv[1]), url=sys.argv[2] or None, name="s", directions=["minimize"], definition={})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))
try:
    while True:
        number, _ = study.ask(RandomSampler(seed=study.next_number), lambda trial: {"x": trial.suggest_float("x", 0, 1)})
        study.note(number, "phase", "x" * 9_000)
        study.tell(number, "complete", [0.5])
        print(number, flush=True)
except Paused as paused:
    print("paused", paused)
"""


@pytest.mark.parametrize("url", ["", "journal:study.log"])
def test_a_limit_of_the_file_size_in_mid_transaction_loses_nothing_that_was_acknowledged(
    tmp_path: Path, url: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), url], capture_output=True, text=True, check=True
    )
    *told, _ = [line for line in done.stdout.splitlines() if line.isdecimal() or line.startswith("paused")]
    assert "paused" in done.stdout
    assert "quota" in done.stdout
    with StudyDatabase.open(tmp_path, url=url or None, **SETTINGS) as study:
        states = [trial.state for trial in study.record()]
        assert states[: len(told)] == ["complete"] * len(told)
        assert len(states) - len(told) in {0, 1}
        study.unfinished()
        assert ask(study)[0] == len(states)


# --- reading


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_read_that_fails_for_a_moment_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "x").write_bytes(b"content")
    real, failures = Path.read_bytes, [code, code]

    def flaky(path: Path) -> bytes:
        if failures:
            raise OSError(failures.pop(), "for a moment")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", flaky)
    assert read_bytes(tmp_path / "x") == b"content"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    ledger = Ledger(tmp_path)
    attempt = ledger.plan("00000", "t00000-abc", "1-x", {}, 1.0)
    publish(tmp_path, RECORD)
    lease = Lease.acquire(tmp_path, SystemClock())
    before = content(tmp_path)
    steps: list[Callable[[], object]] = [
        lambda: ledger.latest("00000"),
        lambda: ledger.save(attempt),
        lease.check,
        lease.renew,
        lambda: Lease.acquire(tmp_path, SystemClock()),
        lambda: read_holder(tmp_path, now=0.0),
        lambda: read(tmp_path),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused(code))
        patch.setattr("orchestrator.store.atomic.time.sleep", lambda _: None)
        for step in steps:
            with pytest.raises(SurveyError, match=f"cannot read {tmp_path}.*{os.strerror(code)}"):
                step()
    assert content(tmp_path) == before
    lease.renew()
