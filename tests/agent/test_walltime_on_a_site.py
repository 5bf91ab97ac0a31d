"""A trial that is longer than its walltime, as a real program on the local site: warned, saved, continued."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from orchestrator.config.site import load_site
from orchestrator.jobs.session import Session
from orchestrator.model import Job, Outcome, Resources, Verdict

# Counts to 3 in each attempt, then waits for the warning; 6 is the end.
PROGRAM = """
import json, os, signal, time
from orchestrator import trial
warned = []
signal.signal(signal.SIGUSR1, lambda *_: warned.append(True))
found = trial.latest_checkpoint()
step = json.load(open(os.path.join(found[1], "state.json")))["step"] if found else 0
goal = min(step + 3, 6)
while step < goal:
    step += 1
    trial.report(step, step)
    with trial.new_checkpoint(step) as folder:
        with open(os.path.join(folder, "state.json"), "w") as stream:
            json.dump({"step": step}, stream)
if step < 6:
    while not (trial.should_stop() and warned):
        time.sleep(0.02)
    assert trial.stop_reason() == "walltime"
    trial.requeue()
trial.finish(step=step, attempt=trial.attempt())
"""


async def run(root: Path, program: str) -> Outcome:
    (root / "program.py").write_text(program)
    job = Job(
        key="00000",
        command=(sys.executable, "program.py"),
        workdir=str(root),
        metrics=("step",),
        resources=Resources(walltime=4),
        warn_ahead=1.5,
        warn_signal="SIGUSR1",
    )
    site = load_site("local").model_copy(update={"kill_grace": 0.5})
    async with Session(root / "s", name="s", site=site) as session:
        return await asyncio.wait_for(session.run(job), 120.0)


async def test_a_program_that_stops_at_the_warning_goes_on_from_its_checkpoint_in_another_attempt(
    tmp_path: Path,
) -> None:
    outcome = await run(tmp_path, PROGRAM)
    assert (outcome.verdict, outcome.attempts) == (Verdict.SUCCEEDED, 2)
    assert outcome.metrics == {"step": 6.0, "attempt": 2.0}
    folder = tmp_path / "s/trials/00000"
    steps = [
        [json.loads(line)["step"] for line in (folder / f"attempt-{number}/progress.jsonl").read_text().splitlines()]
        for number in (1, 2)
    ]
    assert steps == [[1, 2, 3], [4, 5, 6]]
    first = json.loads((folder / "attempt-1/exit.json").read_text())
    assert (first["exit_code"], first["cause"]) == (85, "")
    assert first["checkpoint"] is not None
    assert (folder / "attempt-1/stop").read_text() == "walltime\n"
