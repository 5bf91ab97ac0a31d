"""Compute nodes in memory: what the agent does there, with a `Program` in place of the user's command.

Which attempts a script starts is read from the script; over each of them is a `SimulatedAgent`.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
import shlex
import signal
from collections.abc import Mapping
from typing import Any

from orchestrator.simulate.batchjob import BatchJob, Fate, Key
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Dialect
from orchestrator.simulate.files import Files
from orchestrator.simulate.programs import Execution, Program, Run
from orchestrator.simulate.simulated_agent import SimulatedAgent

__all__ = ["RunningJob", "SimulatedNodes"]

_PLAIN = re.compile(r"^(?:(sleep) (\d+(?:\.\d+)?)|(exit) (\d+)|(kill) -(\d+) \$\$)\s*$", re.MULTILINE)


class SimulatedNodes:
    """The `Host` of a simulation.

    Parameters
    ----------
    lag : float
        Seconds until other machines see what is written here.

    Attributes
    ----------
    cluster : Cluster
        To be set before the first job starts.
    executions : list of Execution
        Every start of a program, kept apart from all that the driver can touch.
    """

    cluster: Cluster

    def __init__(self, files: Files, program: Program, dialect: Dialect, *, lag: float = 0.0) -> None:
        self.files = files
        self.program = program
        self.lag = lag
        self.executions: list[Execution] = []
        self._dialect = dialect
        self._jobs: dict[Key, RunningJob] = {}
        self._reached: dict[str, int] = {}  # steps, by trial's folder
        self._packed: dict[str, SimulatedAgent] = {}  # attempts beside others, by folder

    def start(self, job: BatchJob) -> None:
        """Begin the job's script."""
        variables = self._dialect.environment(job)
        running = RunningJob(self, job)
        self._jobs[job.key] = running
        folders = _attempt_folders(job)
        if folders is None:
            running.plain()
        else:
            running.begin(folders, _job_id(variables), _restarts(variables))

    def signal(self, job: BatchJob, number: int) -> None:
        """Signal everything that the job runs."""
        running = self._jobs.get(job.key)
        if running is not None:
            running.signal(number)

    def lose(self, job: BatchJob) -> None:
        """Lose the job with its node."""
        running = self._jobs.pop(job.key, None)
        if running is not None:
            running.kill("lost")

    def over(self, job: BatchJob) -> None:
        """Forget a job that has ended."""
        self._jobs.pop(job.key, None)

    def told_to_cancel(self, folder: str) -> None:
        """The driver has put the file ``cancel`` into an attempt's folder; its agent finds it at its next look."""
        attempt = self._packed.get(folder)
        if attempt is not None:
            attempt.look_for_cancel()

    def pack(self, folder: str, attempt: SimulatedAgent) -> None:
        """Note an attempt that has others beside it."""
        self._packed[folder] = attempt

    def unpack(self, folder: str) -> None:
        """Forget an attempt that is over."""
        self._packed.pop(folder, None)

    def has_reached(self, folder: str, step: int) -> None:
        """Note the step that the trial of an attempt's folder has come to."""
        self._reached[posixpath.dirname(folder)] = step

    def what_is_left(self, folder: str, run: Run) -> Run:
        """The part of a run that follows what earlier attempts of its trial have done."""
        done = sum(step <= self._reached.get(posixpath.dirname(folder), -1) for step, _ in run.progress)
        left = 1.0 - done / (len(run.progress) + 1)
        return dataclasses.replace(run, progress=run.progress[done:], duration=run.duration * left)

    def write(self, path: str, data: Mapping[str, Any] | bytes) -> None:
        """Write a file of a job."""
        content = data if isinstance(data, bytes) else (json.dumps(data) + "\n").encode()
        now = self.cluster.now
        self.files.write(path, content, visible=now + self.lag if self.lag else None, now=now)

    def record(self, path: str) -> dict[str, Any] | None:
        """Read a JSON object of a job."""
        content = self.files.read(path)
        return None if content is None else dict(json.loads(content))


class RunningJob:
    """A running script: one plain one, or the agent with its attempts."""

    def __init__(self, nodes: SimulatedNodes, job: BatchJob) -> None:
        self.nodes = nodes
        self.job = job
        self._attempts: list[SimulatedAgent] = []
        self._codes: list[int] = []
        self._over = False

    def begin(self, folders: list[str], job_id: str, restarts: int | None) -> None:
        """Start an agent for each attempt that the script names; those that are another's do not run."""
        for folder in folders:
            attempt = SimulatedAgent(self, folder, job_id, restarts)
            if attempt.claimed:
                self._attempts.append(attempt)
        waiting = list(self._attempts)
        if not waiting:
            self.end(0)
        for attempt in waiting:
            attempt.begin(beside_others=len(folders) > 1)

    def plain(self) -> None:
        """Carry out ``sleep``, ``exit`` and ``kill`` of a script without an agent."""
        seconds, code, number = 0.0, 0, 0
        for match in _PLAIN.finditer(self.job.wish.text):
            seconds += float(match[2] or 0.0)
            code, number = int(match[4] or code), int(match[6] or number)
        self.later(seconds, lambda: self.end(code, number))

    def later(self, seconds: float, act: Any) -> None:
        """Do something later, unless the job is over by then."""
        self.nodes.cluster.at(self.nodes.cluster.now + seconds, lambda: None if self._over else act())

    def ended(self, attempt: SimulatedAgent, code: int) -> None:
        """Note an attempt's end; the job's end with the last one's."""
        self._attempts.remove(attempt)
        self._codes.append(code)
        if not self._attempts:
            self.end(next((code for code in self._codes if code), 0))

    def end(self, code: int = 0, number: int = 0, fate: Fate = Fate.EXITED) -> None:
        """Tell the cluster that the script is over."""
        self._over = True
        self.nodes.over(self.job)
        self.nodes.cluster.ended(self.job, exit_code=code, signal=number, fate=fate)

    def signal(self, number: int) -> None:
        """Hand a signal of the scheduler's to all agents."""
        if number == signal.SIGKILL:
            self.kill("killed")
            self.end(number=number)
        elif self._attempts:
            for attempt in list(self._attempts):
                attempt.signal(number)
        else:
            self.end(number=number)

    def kill(self, how: Any) -> None:
        """End all at once, without a report."""
        self._over = True
        for attempt in self._attempts:
            attempt.gone(how)
        self._attempts = []

    def out_of_memory(self) -> None:
        """End as the kernel ends a job whose memory is used up."""
        self.kill("killed")
        self.end(number=signal.SIGKILL, fate=Fate.OUT_OF_MEMORY)


def _attempt_folders(job: BatchJob) -> list[str] | None:
    """Attempt folders that the script hands to the agent; None where it is a script without an agent."""
    text = job.wish.text.replace("\\\n", " ")
    line = next((line for line in text.splitlines() if line.startswith("exec ") and " run " in line), None)
    if line is None:
        return None
    words = shlex.split(line)
    folders = words[words.index("run") + 1 :]
    if folders != ["$@"]:
        return folders
    position = (job.wish.array or ()).index(job.index or 0)
    match = re.search(rf"^ +{position}\) set -- (.*) ;;$", text, re.MULTILINE)
    return shlex.split(match[1]) if match else []


def _job_id(variables: Mapping[str, str]) -> str:
    """The id that the agent finds in its environment."""
    if "PJM_JOBID" in variables:
        bulk = variables.get("PJM_BULKNUM")
        return variables["PJM_JOBID"] + (f"[{bulk}]" if bulk else "")
    if "JOB_ID" in variables:
        task = variables.get("SGE_TASK_ID", "undefined")
        return variables["JOB_ID"] + ("" if task == "undefined" else f".{task}")
    if "SLURM_ARRAY_JOB_ID" in variables:
        return f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
    return variables.get("SLURM_JOB_ID") or variables.get("PBS_JOBID", "")


def _restarts(variables: Mapping[str, str]) -> int | None:
    """Slurm's count of restarts; None where the scheduler counts none."""
    return int(variables.get("SLURM_RESTART_COUNT") or 0) if "SLURM_JOB_ID" in variables else None
