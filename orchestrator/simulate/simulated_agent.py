"""The agent over one attempt, in memory.

Its claim, its times and its report follow `orchestrator.agent`; a test holds the two together.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.agent import CANCEL_PERIOD, CANCELLED
from orchestrator.simulate.programs import Execution, Run

if TYPE_CHECKING:
    from orchestrator.simulate.computenodes import RunningJob

__all__ = ["SimulatedAgent"]


class SimulatedAgent:
    """The agent over one attempt."""

    def __init__(self, job: RunningJob, folder: str, job_id: str, restarts: int | None) -> None:
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
        nodes.write(f"{path}-{restart}", self._claim)
        nodes.write(path, self._claim)
        nodes.files.remove(f"{self._folder}/exit.json")
        if (nodes.files.read(f"{self._folder}/stop") or b"").startswith(b"walltime"):
            nodes.files.remove(f"{self._folder}/stop")
        line = json.dumps({"claim": self._claim, "before": held, "exit": ended}) + "\n"
        nodes.files.append(f"{self._folder}/restarts.jsonl", line.encode())
        return True

    def begin(self, *, beside_others: bool) -> None:
        """Start the program, and set the clocks that can end it."""
        self._started = self._now
        if beside_others:
            self._nodes.pack(self._folder, self)
            if self._is_cancelled():
                self._cause, self._message = "signalled", CANCELLED
                self._report_end(None, None, {})
                self._job.ended(self, 0)
                return
        params = self._nodes.record(f"{self._folder}/params.json") or {}
        order = self._order
        self._run: Run = self._nodes.program(order, params, int(order.get("attempt") or 1))
        self._execution = Execution(
            tag=str(order["tag"]), job_id=str(self._claim["job_id"]), key=self._job.job.key, started=self._now
        )
        self._nodes.executions.append(self._execution)
        if self._run.resumes:
            self._run = self._nodes.what_is_left(self._folder, self._run)
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

    def look_for_cancel(self) -> None:
        """Look at the agent's next turn whether the driver wants this attempt alone to end."""
        since = self._now - self._started
        self._later(CANCEL_PERIOD - since % CANCEL_PERIOD, self._cancelled)

    def _cancelled(self) -> None:
        if self._is_cancelled() and not self._cause:
            self._cause, self._message = "signalled", CANCELLED
            self._terminate(signal.SIGTERM, float(self._order.get("kill_grace") or 0.0))

    def _is_cancelled(self) -> bool:
        return self._nodes.files.read(f"{self._folder}/cancel") is not None

    def gone(self, how: Any) -> None:
        """Vanish without a report."""
        self._done = True
        self._nodes.unpack(self._folder)
        self._execution.ended, self._execution.how = self._now, how

    def _report(self, index: int) -> None:
        run = self._run
        gap = run.duration / (len(run.progress) + 1)

        def report() -> None:
            step, value = run.progress[index]
            self._nodes.has_reached(self._folder, step)
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
            stopped = self._execution.how == "stopped"
            data = {"tag": self._order["tag"], "metrics": dict(run.metrics), "info": dict(run.info), "stopped": stopped}
            self._nodes.write(f"{self._folder}/result.json", data)

    def _finish(self, exit_code: int, number: int, *, with_result: bool = False) -> None:
        if self._done:
            return
        run = self._run
        if with_result and run.result_at is None:
            self._write_result()
        read = (dict(run.metrics or {}) if with_result else {}) if self._order.get("read") else None
        self._report_end(None if number else exit_code, number or None, read, checkpoint=run.checkpoint)
        self._execution.ended = self._now
        self._execution.how = self._execution.how or ("finished" if not self._cause else "killed")
        self._job.ended(self, 128 + number if number else exit_code)

    def _report_end(
        self, exit_code: int | None, number: int | None, read: Mapping[str, float] | None, *, checkpoint: bool = False
    ) -> None:
        """Write exit.json; ``read`` is what rules found in the output, None without such rules."""
        self._done = True
        self._nodes.unpack(self._folder)
        report = {
            "version": 1,
            "tag": self._order["tag"],
            "exit_code": exit_code,
            "signal": number,
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
            "checkpoint": self._now if checkpoint else None,
        }
        if read is not None:
            report["metrics"] = dict(read)
        self._nodes.write(f"{self._folder}/exit.json", report)
