"""A study is cleaned on a site that is out of sight, through its transport."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from loopback import Loopback, loopback_transport

from orchestrator.model import Outcome, Verdict
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import StudyRecord, TrialRecord
from orchestrator.store.snapshot import publish
from orchestrator.studies import cleaning
from orchestrator.transports.remote import Greeting, RemoteTransport

SITE = {
    "schema_version": 1,
    "name": "far",
    "extends": "local",
    "transport": {"kind": "openssh", "host": "far"},
}
STUDY = {
    "schema_version": 1,
    "name": "toy",
    "objective": {"metric": "loss", "direction": "minimize"},
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "trials": 2,
    "keep": {"best": 1},
    "command": "true",
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two complete trials, the first of which is the best; their files are in ``there``."""
    root = tmp_path / "runs" / "toy"
    root.mkdir(parents=True)
    (root / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (root / "site.yaml").write_text(yaml.safe_dump({**SITE, "work_root": f"{tmp_path}/there/{{user}}"}))
    (root / "id").write_text('{"id": "abc123"}')
    trials = []
    for number in range(2):
        attempt = Ledger(root).plan(f"{number:05d}", f"t{number}", "1-x", {"x": 0.5}, 1.0, site="far")
        outcome = Outcome(key=attempt.key, verdict=Verdict.SUCCEEDED, metrics={"loss": float(number)})
        Ledger(root).save(dataclasses.replace(attempt, outcome=outcome))
        trials.append(TrialRecord(number=number, state="complete", values=(float(number),)))
        folder = tmp_path / "there" / "ann" / "toy-abc123" / "trials" / attempt.key / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"x" * 700)
    record = StudyRecord(
        name="toy",
        objectives=("loss",),
        directions=("minimize",),
        space={},
        sampler={},
        planned=2,
        parallel=1,
        site="far",
        state="done",
        trials=tuple(trials),
    )
    publish(root, record)
    return root


def test_what_is_not_of_the_best_is_found_and_removed_there(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.asynccontextmanager
    async def loop(_site: object) -> AsyncIterator[tuple[RemoteTransport, Greeting]]:
        yield loopback_transport(Loopback()), Greeting(host="far", user="ann", home="/home/ann", python="3.9", now=0.0)

    monkeypatch.setattr(cleaning, "far_site", loop)
    there = tmp_path / "there" / "ann" / "toy-abc123" / "trials"
    found = cleaning.find_spare(study)
    assert [(each.path, each.kind, each.site, each.size) for each in found] == [
        (str(there / "00001" / "checkpoint"), "checkpoints", "far", 700)
    ]
    assert (there / "00001" / "checkpoint").is_dir()
    assert cleaning.clean(study) == found
    assert not (there / "00001" / "checkpoint").exists()
    assert (there / "00000" / "checkpoint" / "state").exists()
    assert cleaning.find_spare(study) == ()
