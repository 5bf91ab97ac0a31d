"""What a scheduler says of a study reaches its user: refusals, waits without end, a stop of the machine."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from little_cluster import cluster, submitted, write_site
from little_study import end, run, start, until, write_study

from orchestrator.config.site import load_site
from orchestrator.simulate.batchjob import Partition

DONE = """echo "$SURVEY_TRIAL" >> "$OUTSIDE"; echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT" """


def study(folder: Path, **changes: Any) -> Path:
    """Write a study that notes outside of its own folders which trials were executed."""
    outside = {"OUTSIDE": str(folder / "outside")}
    return write_study(
        folder, **{"command": DONE, "environment": outside, "resources": {"gpus": 1, "walltime": "10m"}, **changes}
    )


def executed(folder: Path) -> list[str]:
    path = folder / "outside"
    return sorted(path.read_text(encoding="utf-8").split()) if path.exists() else []


SHORT = {"partitions": (Partition(name="main", max_walltime=300.0),)}

REFUSED = [
    ("slurm", {"groups": ("gx",)}, {"batch": {"group": "gy"}}, {"batch": {"group": "gx"}}, "Invalid account"),
    (
        "slurm",
        {**SHORT, "refuse_over_limit": True},
        {},
        {"resources": {"gpus": 1, "walltime": "5m"}},
        "Requested time limit is invalid",
    ),
    ("pbs", {}, {"batch": {"queue": "nope"}}, {"batch": {}}, "Unknown queue"),
    ("pjm", {"groups": ("gx",)}, {"batch": {"group": "gy"}}, {"batch": {"group": "gx"}}, "Group not authorized"),
]


@pytest.mark.parametrize(("kind", "rules", "wrong", "mended", "words"), REFUSED)
def test_a_refusal_is_one_paused_state_in_the_schedulers_words_and_is_mended_without_loss(
    tmp_path: Path, kind: str, rules: dict[str, Any], wrong: dict[str, Any], mended: dict[str, Any], words: str
) -> None:
    study(tmp_path, **wrong)
    write_site(tmp_path, kind)
    go = ("run", "study.yaml", "--site", "site.yaml")
    with cluster(tmp_path, kind, **rules) as (installed, path):
        ran = run(tmp_path, *go, PATH=path)
        assert ran.code == 4, ran.err
        assert "Traceback" not in ran.err
        assert ran.err.count("Error: ") == 1
        assert words in ran.err
        assert submitted(installed) == 1
        told = run(tmp_path, "status").out
        assert told.startswith(f"toy on simulated-{kind}: paused: ")
        assert words in told
        assert "2 not submitted yet; 2 planned" in told
        study(tmp_path, **mended)
        ran = run(tmp_path, *go, PATH=path)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("toy: done, 2 complete")
        assert submitted(installed) == 3
    assert executed(tmp_path) == ["0", "1"]


def watched(folder: Path, path: str, happened: Callable[[], bool], what: str) -> str:
    """Run the study until something has happened, end its driver, and give what it said."""
    driver = start(folder, "run", "study.yaml", "--site", "site.yaml", PATH=path)
    try:
        until(lambda: happened() or driver.poll() is not None, what)
    finally:
        driver.send_signal(signal.SIGTERM)
        ended = end(driver)
    assert ended.code == 143, ended.err
    assert "Traceback" not in ended.err
    return ended.err


STUCK = [
    ("pbs", {}, {"resources": {"gpus": 8, "walltime": "10m"}}, "Can Never Run"),
    ("slurm", {**SHORT, "refuse_over_limit": False}, {}, "PartitionTimeLimit"),
]


@pytest.mark.parametrize(("kind", "rules", "changes", "words"), STUCK)
def test_jobs_that_wait_without_end_are_told_in_the_schedulers_words(
    tmp_path: Path, kind: str, rules: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    study(tmp_path, **changes)
    write_site(tmp_path, kind)
    seen: list[str] = []

    def shown() -> bool:
        snapshot = tmp_path / "runs/toy/snapshot.json"
        if not snapshot.exists() or snapshot.read_text(encoding="utf-8").count(words) < 2:
            return False
        seen[:] = [run(tmp_path, "status").out]
        return seen[0].count("waits for something that may never come") == 2

    with cluster(tmp_path, kind, **rules) as (_, path):
        said = watched(tmp_path, path, shown, "status does not show that the jobs are stuck")
    for text in (seen[0], said):
        assert text.count(words) == 2
    assert "trial 0 waits for something that may never come: " in seen[0]
    assert "trial 0: waits for something that may never come: " in said


def test_submits_are_held_before_a_stop_that_the_sites_banner_announces(tmp_path: Path) -> None:
    study(tmp_path, parallel=1, trials=3, command=f"sleep 1.5; {DONE}", resources={"gpus": 1, "walltime": "2h"})
    write_site(tmp_path, "pjm-wrapped", status_banner=load_site("wisteria-aquarius").status_banner)
    events = tmp_path / "runs/toy/events.jsonl"
    seen: list[str] = []

    def shown() -> bool:
        if not events.exists() or '"event": "held"' not in events.read_text(encoding="utf-8"):
            return False
        seen[:] = [run(tmp_path, "status").out]
        return "1 not submitted yet" in seen[0] and "the site stops at" in seen[0]

    with cluster(tmp_path, "pjm-wrapped", stop=time.time() + 3600.0) as (installed, path):
        said = watched(tmp_path, path, shown, "status does not show that the site stops")
        asked = submitted(installed)
    assert seen[0].startswith("toy on simulated-pjm-wrapped: running: the site stops at 20")
    assert said.count("held: the site stops at 20") == 1
    held = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines() if '"held"' in line]
    assert len(held) == 1
    # One may have gone out before the scheduler had printed its first banner.
    assert asked == len(executed(tmp_path)) == 0


def test_two_studies_of_a_user_keep_to_the_sites_most_jobs_in_the_queue(tmp_path: Path) -> None:
    write_site(tmp_path, limits={"queued": 2, "submits_per_minute": 6000.0, "queries_per_minute": 6000.0})
    line = f'echo begin >> "$OUTSIDE"; sleep 1; echo end >> "$OUTSIDE"; {DONE.partition(";")[2]}'
    for name in ("one", "two"):
        study(tmp_path, file=f"{name}.yaml", name=name, command=line, resources={"walltime": "10m"})
    with cluster(tmp_path) as (installed, path):
        drivers = [start(tmp_path, "run", f"{name}.yaml", "--site", "site.yaml", PATH=path) for name in ("one", "two")]
        ended = [end(driver) for driver in drivers]
        assert submitted(installed) == 4
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]
    assert any("jobs of yours are in the queue, the site takes 2" in each.err for each in ended)
    running = most = 0
    for word in (tmp_path / "outside").read_text(encoding="utf-8").split():
        running += 1 if word == "begin" else -1
        most = max(most, running)
    assert most == 2
