"""Compute nodes in memory: what the agent does there, with a `Program` in place of the user's command.

The claim, its times and its report follow `orchestrator.agent`; a test holds the two together.
"""

from __future__ import annotations

import json
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

__all__ = ["SimulatedNodes"]

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
        self._jobs: dict[Key, _Job] = {}

    def start(self, job: BatchJob) -> None:
        """Begin the job's script."""
        variables = self._dialect.environment(job)
        running = _Job(self, job)
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

    def write(self, path: str, data: Mapping[str, Any] | bytes) -> None:
        """Write a file of a job."""
        content = data if isinstance(data, bytes) else (json.dumps(data) + "\n").encode()
        now = self.cluster.now
        self.files.write(path, content, visible=now + self.lag if self.lag else None, now=now)

    def record(self, path: str) -> dict[str, Any] | None:
        """Read a JSON object of a job."""
        content = self.files.read(path)
        return None if content is None else dict(json.loads(content))


class _Job:
    """A running script: one plain one, or the agent with its attempts."""

    def __init__(self, nodes: SimulatedNodes, job: BatchJob) -> None:
        self.nodes = nodes
        self.job = job
        self._attempts: list[_Attempt] = []
        self._codes: list[int] = []
        self._over = False

    def begin(self, folders: list[str], job_id: str, restarts: int | None) -> None:
        for folder in folders:
            attempt = _Attempt(self, folder, job_id, restarts)
            if attempt.claimed:
                self._attempts.append(attempt)
        waiting = list(self._attempts)
        if not waiting:
            self.end(0)
        for attempt in waiting:
            attempt.begin()

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

    def ended(self, attempt: _Attempt, code: int) -> None:
        """Note an attempt's end; the job's end with the last one's."""
        self._attempts.remove(attempt)
        self._codes.append(code)
        if not self._attempts:
            self.end(next((code for code in self._codes if code), 0))

    def end(self, code: int = 0, number: int = 0, fate: Fate = Fate.EXITED) -> None:
        self._over = True
        self.nodes.over(self.job)
        self.nodes.cluster.ended(self.job, exit_code=code, signal=number, fate=fate)

    def signal(self, number: int) -> None:
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
        self.kill("killed")
        self.end(number=signal.SIGKILL, fate=Fate.OUT_OF_MEMORY)


class _Attempt:
    """The agent over one attempt."""

    def __init__(self, job: _Job, folder: str, job_id: str, restarts: int | None) -> None:
        self._job = job
        self._nodes = job.nodes
        self._folder = folder
        self._order = self._nodes.record(f"{folder}/job.json") or {}
        self._done = False
        self._cause = self._message = ""
        self._claim: dict[str, Any] = {
            "tag": self._order.get("tag"),
            "by": "agent",
            "job_id": job_id,
            "restarts": restarts or 0,
            "host": job.job.nodes[0],
            "boot": "simulated",
            "pid": job.job.raw,
            "time": self._now,
        }
        self.claimed = bool(self._order) and self._take(counts=restarts is not None)

    @property
    def _now(self) -> float:
        return self._nodes.cluster.now

    def _take(self, *, counts: bool) -> bool:
        nodes, path = self._nodes, f"{self._folder}/claim"
        held = nodes.record(path)
        if held is None:
            nodes.write(path, self._claim)
            return True
        before = int(held.get("restarts") or 0)
        if held.get("by") != "agent" or held.get("job_id") != self._claim["job_id"]:
            return False
        # Where the scheduler counts no restarts, the claimant's death tells: this one's node is gone.
        restart = int(self._claim["restarts"]) if counts else before + 1
        ended = nodes.record(f"{self._folder}/exit.json")
        if restart <= before or (ended is not None and ended.get("cause") != "signalled"):
            return False
        self._claim["restarts"] = restart
        nodes.write(path, self._claim)
        nodes.files.remove(f"{self._folder}/exit.json")
        if (nodes.files.read(f"{self._folder}/stop") or b"").startswith(b"walltime"):
            nodes.files.remove(f"{self._folder}/stop")
        return True

    def begin(self) -> None:
        """Start the program, and set the clocks that can end it."""
        params = self._nodes.record(f"{self._folder}/params.json") or {}
        order = self._order
        self._run: Run = self._nodes.program(order, params, int(order.get("attempt") or 1))
        self._started = self._now
        self._execution = Execution(tag=str(order["tag"]), job_id=str(self._claim["job_id"]), started=self._now)
        self._nodes.executions.append(self._execution)
        run, later = self._run, self._later
        later(run.duration, lambda: self._finish(run.exit_code, run.signal, with_result=True))
        if run.result_at is not None:
            later(run.result_at, self._write_result)
        if run.progress:
            self._report(0)
        if run.agent_dies is not None:
            later(run.agent_dies, lambda: self._job.signal(signal.SIGKILL))
        if run.out_of_memory is not None:
            later(run.out_of_memory, self._job.out_of_memory)
        self._keep_time()

    def _later(self, seconds: float, act: Any) -> None:
        self._job.later(seconds, lambda: None if self._done else act())

    def _keep_time(self) -> None:
        """Set the agent's own deadlines (`orchestrator.agent`, ``_keep_time``)."""
        walltime = float(self._order.get("walltime") or 0.0)
        if not walltime:
            return
        grace = float(self._order.get("kill_grace") or 0.0)
        reserve = min(2.0 * grace, walltime / 4.0)
        margin = max(min(float(self._order.get("margin") or 0.0), walltime / 2.0), reserve)
        if self._run.duration > walltime - margin:
            self._later(walltime - margin, self._ask_to_stop)
        if self._run.duration > walltime - reserve:
            self._later(walltime - reserve, lambda: self._out_of_time(walltime, min(grace, reserve / 2.0)))

    def _ask_to_stop(self) -> None:
        self._nodes.files.create(f"{self._folder}/stop", b"walltime\n")

    def _out_of_time(self, walltime: float, grace: float) -> None:
        self._cause = self._cause or "timeout"
        self._message = self._message or f"the walltime of {walltime:g} s"
        self._terminate(signal.SIGTERM, grace)

    def _terminate(self, number: int, grace: float) -> None:
        if self._run.heeds_signals:
            self._finish(0, number)
        else:
            self._later(grace, lambda: self._finish(0, signal.SIGKILL))

    def signal(self, number: int) -> None:
        """Take a signal of the scheduler."""
        if number == signal.SIGXCPU:
            self._ask_to_stop()
        elif number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
            self._cause = self._cause or "signalled"
            self._message = self._message or f"the job got {signal.Signals(number).name}"
            self._terminate(number, float(self._order.get("kill_grace") or 0.0))

    def gone(self, how: Any) -> None:
        """Vanish without a report."""
        self._done = True
        self._execution.ended, self._execution.how = self._now, how

    def _report(self, index: int) -> None:
        run = self._run
        gap = run.duration / (len(run.progress) + 1)

        def report() -> None:
            step, value = run.progress[index]
            line = json.dumps({"step": step, "value": value, "time": self._now}) + "\n"
            path = f"{self._folder}/progress.jsonl"
            self._nodes.write(path, (self._nodes.files.read(path) or b"") + line.encode())
            if run.heeds_stop and self._nodes.files.read(f"{self._folder}/stop") is not None:
                self._execution.how = "stopped"
                self._finish(0, 0, with_result=True)
            elif index + 1 < len(run.progress):
                self._report(index + 1)

        self._later(gap, report)

    def _write_result(self) -> None:
        run = self._run
        if run.result is not None:
            self._nodes.write(f"{self._folder}/result.json", run.result.encode())
        elif run.metrics is not None and not self._order.get("read"):
            data = {"tag": self._order["tag"], "metrics": dict(run.metrics), "info": dict(run.info)}
            self._nodes.write(f"{self._folder}/result.json", data)

    def _finish(self, exit_code: int, number: int, *, with_result: bool = False) -> None:
        if self._done:
            return
        self._done = True
        run = self._run
        if with_result and run.result_at is None:
            self._write_result()
        report = {
            "version": 1,
            "tag": self._order["tag"],
            "exit_code": None if number else exit_code,
            "signal": number or None,
            "host": self._claim["host"],
            "started": self._started,
            "ended": self._now,
            "max_rss": 100.0,
            "gpus": [],
            "gpu_memory": None,
            "cause": self._cause,
            "message": self._message,
            "job_id": self._claim["job_id"],
            "restarts": self._claim["restarts"],
        }
        if self._order.get("read"):
            report["metrics"] = dict(run.metrics or {}) if with_result else {}
        self._nodes.write(f"{self._folder}/exit.json", report)
        self._execution.ended = self._now
        self._execution.how = self._execution.how or ("finished" if not self._cause else "killed")
        self._job.ended(self, 128 + number if number else exit_code)


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
    return variables.get("SLURM_JOB_ID") or variables.get("PBS_JOBID", "")


def _restarts(variables: Mapping[str, str]) -> int | None:
    """Slurm's count of restarts; None where the scheduler counts none."""
    return int(variables.get("SLURM_RESTART_COUNT") or 0) if "SLURM_JOB_ID" in variables else None
