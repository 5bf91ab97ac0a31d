"""kill -9 at any write: what was acknowledged is there, a trial is whole or not there, and work goes on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from optuna.samplers import RandomSampler

from orchestrator.errors import SurveyError
from orchestrator.store.database import open_for_reading
from orchestrator.store.studydb import StudyDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from optuna.trial import Trial

DRIVER = """
import os, signal, sys
from pathlib import Path
from optuna.samplers import RandomSampler
from orchestrator.store.studydb import StudyDatabase

root, url, phase, point, left = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3], sys.argv[4], int(sys.argv[5])
real_fsync = os.fsync
now = "opening"

def suggest(trial):
    return {name: trial.suggest_float(name, 0, 1) for name in "abc"}

def die_at(name):
    # The process dies at the n-th call of its database's own writes.
    global left
    if (now, name) == (phase, point):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def fsync(descriptor):
    die_at("fsync")
    real_fsync(descriptor)

if url is None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    event.listen(Engine, "before_cursor_execute", lambda *_: die_at("statement"))
    event.listen(Engine, "commit", lambda *_: die_at("commit"))
else:
    os.fsync = fsync

study = StudyDatabase.open(root, name="s", directions=["minimize"], url=url, definition={})
now = "running"
for _ in range(4):
    number, params = study.ask(RandomSampler(seed=study.next_number), suggest)
    print("asked", number, flush=True)
    study.note(number, "job", {"job_id": str(number)})
    print("noted", number, flush=True)
    if number % 2 == 0:
        study.tell(number, "complete", [0.5], {"outcome": {"reason": "r"}})
        print("told", number, flush=True)
print("end", flush=True)
"""


def suggest(trial: Trial) -> dict[str, float]:
    return {name: trial.suggest_float(name, 0, 1) for name in "abc"}


def run(root: Path, *arguments: str) -> Iterator[list[str]]:
    process = subprocess.run(
        [sys.executable, "-c", DRIVER, str(root), *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode in {0, -signal.SIGKILL}, process.stderr
    for line in process.stdout.splitlines():
        yield line.split()


@pytest.mark.parametrize(
    ("url", "phase", "point", "calls"),
    [
        *(("", "opening", "statement", calls) for calls in (60,)),
        *(("", "running", "statement", calls) for calls in (2, 3, 11, 16, 18)),
        *(("", "running", "commit", calls) for calls in (1, 4)),
        *(("journal:j.log", "opening", "fsync", calls) for calls in (2,)),
        *(("journal:j.log", "running", "fsync", calls) for calls in (1, 4)),
    ],
)
def test_after_a_kill_what_was_acknowledged_is_there_and_the_study_goes_on(
    tmp_path: Path, url: str, phase: str, point: str, calls: int
) -> None:
    said = list(run(tmp_path, url, phase, point, str(calls)))
    assert said[-1:] != [["end"]], "the process was to die before its end"
    acknowledged = {word: [int(words[1]) for words in said if words[0] == word] for word in ("asked", "noted", "told")}

    settings: dict[str, Any] = {"name": "s", "directions": ["minimize"], "url": url or None, "definition": {}}
    with contextlib.suppress(SurveyError), open_for_reading(url or None, tmp_path) as reader:
        # What the killed driver left, a rollback that is due included, can be read as it is.
        assert len(reader.get_all_studies()) in {0, 1}
    for _ in range(2):
        with StudyDatabase.open(tmp_path, **settings) as study:
            trials = study.trials()
            assert len(trials) - len(acknowledged["asked"]) in {0, 1}
            assert [trial.number for trial in trials] == list(range(len(trials)))
            assert all(set(trial.params) == set("abc") and "survey" in trial.user_attrs for trial in trials)
            assert all(trials[number].user_attrs["job"] == {"job_id": str(number)} for number in acknowledged["noted"])
            assert all(trials[number].values == [0.5] for number in acknowledged["told"])
            assert all(trial.user_attrs["outcome"] for trial in trials if trial.state.is_finished())
    with StudyDatabase.open(tmp_path, **settings) as study:
        left = study.unfinished()
        before = len(study.trials())
        assert study.ask(RandomSampler(seed=1), suggest)[0] == before
        for number, _ in left:
            study.tell(number, "complete", [0.25])
        assert study.counts["running"] == 1
