"""Compute nodes as real processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil

from orchestrator.simulate.batchjob import BatchJob, Fate, Key
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Dialect

__all__ = ["ProcessNodes"]

_MARK = "EMULATED_BATCH_JOB"


class ProcessNodes:
    """The `Host` that runs scripts.

    Parameters
    ----------
    spool : Path
        Where copies of the scripts go, as schedulers keep them.

    Attributes
    ----------
    cluster : Cluster
        To be set before the first job starts.
    """

    cluster: Cluster

    def __init__(self, spool: Path, dialect: Dialect) -> None:
        self._spool = spool
        self._dialect = dialect
        self._running: dict[Key, tuple[BatchJob, subprocess.Popen[bytes]]] = {}
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._running)

    def start(self, job: BatchJob) -> None:
        """Run the job's script in a session of its own, with what the scheduler sets."""
        wish = job.wish
        script = self._spool / f"{job.number}.{'' if job.index is None else job.index}"
        script.write_text(wish.text)
        script.chmod(0o700)
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG", "TMPDIR") if name in os.environ}
        environment = {**keep, **wish.environment, **self._dialect.environment(job), _MARK: self._mark(job)}
        folder = wish.folder if wish.start_in_folder else environment.get("HOME", "/")
        output = self._dialect.output_path(job)
        try:
            with open(output or os.devnull, "ab") as stream:
                process = subprocess.Popen(
                    [str(script)],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                )
        except OSError:
            self.cluster.ended(job, exit_code=1, fate=Fate.NOT_LAUNCHED)
            return
        self._running[job.key] = (job, process)

    def signal(self, job: BatchJob, number: int) -> None:
        """Signal the script's process group; SIGKILL reaches all that it has left behind, too."""
        if job.key not in self._running:
            return
        _, process = self._running[job.key]
        if number == signal.SIGKILL:
            self._kill_all(job)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def lose(self, job: BatchJob) -> None:
        """End everything of the job at once."""
        if job.key in self._running:
            _, process = self._running.pop(job.key)
            self._kill_all(job)
            process.kill()
            process.wait()

    def reap(self) -> None:
        """Tell the cluster of scripts that are over."""
        for job, process in list(self._running.values()):
            code = process.poll()
            if code is not None:
                del self._running[job.key]
                self._kill_all(job)  # a scheduler leaves nothing behind on its nodes
                self.cluster.ended(job, exit_code=max(code, 0), signal=max(-code, 0))

    def clear(self) -> None:
        """End all jobs, for good."""
        for job, _ in list(self._running.values()):
            self.lose(job)

    def _mark(self, job: BatchJob) -> str:
        return f"{self._spool}:{job.number}.{job.index}.{job.starts}"

    def _kill_all(self, job: BatchJob) -> None:
        mark = self._mark(job)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == mark:
                    process.kill()
