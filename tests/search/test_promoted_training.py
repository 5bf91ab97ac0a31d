"""A real training under the local scheduler: paused, taken up again, and the same as one that was never disturbed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.site import load_site
from orchestrator.config.study import Study
from orchestrator.model import Verdict
from orchestrator.search.driver import StudyDriver
from orchestrator.search.layout import trial_key
from orchestrator.store.ledger import Ledger

EXAMPLE = Path(__file__).parents[2] / "examples" / "pruning"
EPOCHS = 8

# A first attempt waits at the first rung until it is paused: else a quick machine would have trained it by then.
GATED = f"""
import sys, time
sys.path.insert(0, {str(EXAMPLE)!r})
import train
from orchestrator import trial

report = trial.report

def report_and_wait(step, value):
    report(step, value)
    while trial.attempt() == 1 and not trial.should_stop():
        time.sleep(0.05)

trial.report = report_and_wait
train.main()
"""


def study() -> Study:
    example = Study.load(EXAMPLE / "study.yaml")
    data = example.to_data()
    data["space"]["epochs"]["value"], data["space"]["rows"]["value"] = EPOCHS, 100
    data["pruner"] = {"name": "asha", "min_step": 1, "max_step": EPOCHS, "reduction_factor": 2}
    data |= {"trials": 2, "parallel": 1, "command": [sys.executable, "gated.py"]}
    data["sampler"] = {"name": "random", "seed": 1}
    return Study.model_validate(data)


def undisturbed(folder: Path, params: Mapping[str, Any], seed: int) -> float:
    """The loss of the same training, run by hand in one go."""
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))
    names = {name: str(folder / f"{name.lower()}.json") for name in ("PARAMS", "RESULT", "PROGRESS", "STOP")}
    variables = {f"SURVEY_{name}": path for name, path in names.items()}
    environment = {**os.environ, **variables, "SURVEY_CHECKPOINT": str(folder / "state"), "SURVEY_SEED": str(seed)}
    subprocess.run([sys.executable, str(EXAMPLE / "train.py")], check=True, env=environment, cwd=folder)
    return float(json.loads((folder / "result.json").read_text())["metrics"]["loss"])


def test_a_training_that_was_paused_and_promoted_equals_one_that_was_not(tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(GATED)

    site = load_site("local")
    quick = site.model_copy(update={"poll": site.poll.model_copy(update={"look": 0.2})})
    driver = StudyDriver(study(), quick, tmp_path / "runs", origin=tmp_path)
    record = asyncio.run(driver.run())
    assert record.state == "done"
    ledger = Ledger(tmp_path / "runs" / "pruning")
    verdicts = [[each.outcome.verdict for each in ledger.attempts(trial_key(n)) if each.outcome] for n in range(2)]
    assert verdicts == [[Verdict.PAUSED, Verdict.SUCCEEDED], [Verdict.PAUSED]], "the first trial is the better one"
    trial = record.trials[0]
    assert set(trial.steps) >= {1, 2, 4, EPOCHS}
    order = json.loads(Path(trial.directory, "job.json").read_text())
    assert trial.values == (undisturbed(tmp_path / "by-hand", trial.params, order["seed"]),)
    assert record.trials[1].state == "pruned"
