"""The probe: one tiny job that goes the way of every trial, and tells of the node that it ran on."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.units import format_duration
from orchestrator.doctor.findings import Finding, error, of_error, ok, warn
from orchestrator.doctor.folders import judge_clock
from orchestrator.doctor.site import SiteCheck, send
from orchestrator.errors import SurveyError
from orchestrator.jobs.placement import place
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.jobs.script import scheduler_options
from orchestrator.jobs.session import Event, Session
from orchestrator.jobs.staging import attempt_directory, stage_library
from orchestrator.model import Answer, Job, JobStatus, Outcome, Resources, Verdict
from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.transports.base import Command, Completion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config.site import Site

__all__ = ["Probe", "wanted_gpus"]

_WALLTIME = 300
_WATCH = 50.0  # seconds that one request waits for the node's file
_LEAVE = 15.0  # seconds for a job that has ended to leave the queue


def wanted_gpus(check: SiteCheck) -> int:
    """How many GPUs a probe asks for by itself: one where the queue that it would go to has GPUs to give."""
    if not check.site.queues:
        return min(1, check.gpus)
    for gpus in (0, 1):
        with contextlib.suppress(SurveyError):
            spot = place(check.site, Resources(cpus=1, gpus=gpus, walltime=_WALLTIME), check.batch)
            if gpus or spot.gpus:
                return 1
    return 0


@dataclass(slots=True)
class Probe:
    """One probe job on the site of ``check``, whose findings and answers it adds to.

    Parameters
    ----------
    gpus : int
        That the job asks for.
    patience : float
        Seconds after which a job that has not come to an end is cancelled.
    """

    check: SiteCheck
    gpus: int
    patience: float
    _job: asyncio.Future[str] = field(init=False)
    _trouble: str = ""

    async def run(self) -> None:
        """Submit it, wait for it, and say what it told; leaves neither a job nor a file."""
        self._job = asyncio.get_running_loop().create_future()
        check = self.check
        with _driver_root(check.site, check.root) as root:
            try:
                await self._session(root)
            except SurveyError as failure:
                check.findings.append(of_error("probe", failure, "Mend that, and probe again."))

    async def _session(self, root: Path) -> None:
        check = self.check
        assert check.transport is not None
        source = (Path(__file__).parent / "far_side.py").read_text(encoding="ascii")
        job = Job(
            key="probe",
            command=(check.site.interpreter, "-I", "-S", "-c", f"{source}\nnode()\n"),
            resources=Resources(cpus=1, gpus=self.gpus, walltime=_WALLTIME),
            metrics=("answered",),
        )
        async with Session(
            root,
            name="survey-doctor",
            site=check.site,
            batch=check.batch,
            retry=RetryPolicy(limits={}),
            limit=1,
            clock=check.clock,
            transport=check.transport,
            on_event=self._heard,
        ) as session:
            scheduler = await _scheduler(check, session)
            (run,) = session.submit(job)
            mark = f"{attempt_directory(session.work_root, job.key, 1)}/node-was-here"
            sight = asyncio.create_task(self._watch(mark))
            listed = asyncio.create_task(self._listed(scheduler))
            try:
                done, _ = await asyncio.wait({run}, timeout=self.patience)
                if not done:
                    await self._give_up(session)
                    return
                outcome = run.result()
                # A job that failed may never have come to write the file.
                awaited = {sight, listed} if outcome.succeeded else {listed}
                if self._job.done():
                    await asyncio.wait(awaited, timeout=_LEAVE)
                seen = sight.result() if sight.done() else None
                check.findings += _judged(outcome, seen, check, self.gpus)
                if self._job.done():
                    await self._ended(scheduler, self._job.result())
            finally:
                # Also where a person has lost patience: neither the job nor its folder is left behind.
                if not run.done() and self._job.done():
                    with contextlib.suppress(SurveyError):
                        await asyncio.shield(check.transport.run(scheduler.cancel([self._job.result()])))
                for task in (sight, listed):
                    task.cancel()
                await asyncio.gather(sight, listed, return_exceptions=True)
                with contextlib.suppress(SurveyError):
                    await asyncio.shield(check.transport.remove([session.work_root]))

    def _heard(self, event: Event) -> None:
        if event["event"] == "submitted" and not self._job.done():
            self._job.set_result(str(event["job_id"]))
        elif event["event"] in {"waiting", "trouble", "held"}:
            self._trouble = str(event.get("message") or "")

    async def _watch(self, path: str) -> float | None:
        """When the site's login node first saw the node's file, by its own clock."""
        check = self.check
        assert check.transport is not None
        await self._job
        while True:
            request = {"verb": "watch", "path": path, "seconds": _WATCH}
            with contextlib.suppress(SurveyError):
                reply = await send(check.transport, check.python, request, seconds=_WATCH)
                if reply["seen"] is not None:
                    return float(reply["seen"])
            await asyncio.sleep(1.0)

    async def _listed(self, scheduler: Scheduler) -> None:
        """See that the list with a real job in it can be read."""
        job_id = await self._job
        status = await self._query(scheduler, job_id, "query of the probe")
        if status.answer is Answer.UNKNOWN:
            self.check.findings.append(
                error(
                    "queue",
                    f"what the list says of the probe job {job_id} cannot be read: {status.evidence}",
                    f"`survey doctor --site {self.check.site.name} --probe --record DIR` saves it, for a report.",
                )
            )
        elif status.answer is Answer.ALIVE:
            self.check.findings.append(ok("queue", f"lists the probe job {job_id} as {status.word or status.state}"))
        else:
            self.check.findings.append(ok("queue", f"lists the probe job {job_id} no more: it had ended already"))

    async def _query(self, scheduler: Scheduler, job_id: str, name: str) -> JobStatus:
        done = await self._ask(scheduler.query([job_id]), name)
        return scheduler.parse_query(done, [job_id])[job_id]

    async def _ask(self, command: Command, name: str) -> Completion:
        assert self.check.transport is not None
        begun = self.check.clock.now()
        done = await self.check.transport.run(command)
        self.check.answers[name] = {
            "argv": list(done.argv),
            "returncode": done.returncode,
            "stdout": done.stdout,
            "stderr": done.stderr,
            "seconds": self.check.clock.now() - begun,
        }
        return done

    async def _ended(self, scheduler: Scheduler, job_id: str) -> None:
        """Wait until the job has left the queue, and see what is known of its end."""
        check = self.check
        until = check.clock.now() + _LEAVE
        while (await self._query(scheduler, job_id, "query after the probe")).answer is Answer.ALIVE:
            if check.clock.now() > until:
                return
            await check.clock.sleep(0.5)
        command = scheduler.history([job_id], until - _LEAVE - self.patience) if check.site.history else None
        if command is None:
            return
        past = scheduler.parse_history(await self._ask(command, "history of the probe"), [job_id])[job_id]
        if past.answer is Answer.UNKNOWN:
            hint = "Jobs that the agent could not report of count as lost. Mend it, or set `history: false`."
            check.findings.append(warn("history", f"of the probe job cannot be read: {past.evidence}", hint))
        else:
            words = past.end.verdict if past.end is not None and past.end.verdict else "nothing yet"
            check.findings.append(ok("history", f"says of the probe job: {words}"))

    async def _give_up(self, session: Session) -> None:
        waited = format_duration(self.patience)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.abort("probe"), _LEAVE)
        why = "; ".join(session.stuck.values()) or self._trouble
        self.check.findings.append(
            warn(
                "probe",
                f"the job did not come to its end within {waited} and was cancelled{f' ({why})' if why else ''}",
                "Give it longer (`--probe-wait 2h`), or a quicker queue (`--queue NAME`).",
            )
        )


async def _scheduler(check: SiteCheck, session: Session) -> Scheduler:
    """The site's adaptor; the local queue's needs what the session has staged."""
    assert check.transport is not None
    extra = {}
    if check.site.scheduler == "local":
        library = await stage_library(check.transport, session.work_root)
        spool = f"{session.work_root}/.localq"
        extra = {"python": check.site.interpreter, "localq": library.localq, "spool": spool}
    return make_scheduler(check.site.scheduler, scheduler_options(check.site, check.batch, extra=extra))


def _judged(outcome: Outcome, seen: float | None, check: SiteCheck, gpus: int) -> list[Finding]:
    """Say what the job told of its node."""
    if outcome.verdict is not Verdict.SUCCEEDED:
        hint = "A trial would end like this. See `python:`, `modules:`, `setup:` and `work_root:` of the site file."
        return [error("probe", f"the job ended {outcome.verdict}: {outcome.reason or 'nobody says why'}", hint)]
    facts: Mapping[str, Any] = outcome.info
    wait = "" if outcome.queue_wait is None else f", {format_duration(round(outcome.queue_wait))} after its submit"
    kind = facts["mount"]["kind"] or "an unknown file system"
    lines = [
        ok("probe", f"a job ran on {facts['host']}{wait}; the work root is there, on {kind}"),
        ok("node", f"Python {facts['python']} runs the agent; {facts['cpus']} CPUs, {facts['machine']}"),
    ]
    if facts["machine"] != check.site.cpu_arch:
        text = f"is {facts['machine']}, and the site file says {check.site.cpu_arch}"
        lines.append(warn("node", text, "Correct `cpu_arch:` in a site file of your own."))
    lines += _gpu_lines(facts["gpus"], gpus)
    # The file server's clock is what both have in common.
    lines += judge_clock(
        "node clock",
        check.file_clock - float(facts["file_clock"]),
        "the compute node's clock",
        "the login node's",
        unsure=0.1,
    )
    if seen is None:
        text = "the login node had not seen a file of the node's when the job was over"
        hint = "Set `grace:` in a site file of your own to well over that delay, or choose another file system."
        return [*lines, warn("visibility", text, hint)]
    late = max(0.0, seen + check.file_clock - float(facts["written"]))
    text = f"the login node sees a file of the node's after {late:.1f} s"
    if late > check.site.grace / 2:
        hint = f"Set `grace:` in a site file of your own to {format_duration(4 * late)}: jobs may count as lost before."
        return [*lines, warn("visibility", text, hint)]
    return [*lines, ok("visibility", text)]


def _gpu_lines(facts: Mapping[str, Any], asked: int) -> list[Finding]:
    listed, visible = facts["listed"], facts["visible"]
    if not asked:
        return [ok("node GPUs", "none was asked for; `--gpus 1` does")]
    handed = f"CUDA_VISIBLE_DEVICES={visible}" if visible else "CUDA_VISIBLE_DEVICES is not set"
    if listed:
        return [ok("node GPUs", f"{handed}; {len(listed)} seen, {listed[0]}")]
    if facts["devices"] or visible:
        text = f"{handed}, {facts['devices']} devices in /dev, and nvidia-smi lists none"
        hint = "If a trial cannot use them: see `modules:` and `setup:` of the site file, and the node's driver."
        return [warn("node GPUs", text, hint)]
    hint = "See `gpu_syntax:` and the queue in the site file, and `--queue`."
    return [error("node GPUs", f"{asked} asked for, and the job sees none", hint)]


@contextlib.contextmanager
def _driver_root(site: Site, root: Path) -> Iterator[Path]:
    """Make a folder for the probe's record: where the jobs see it, if the work root is the driver's own."""
    if site.work_root is not None:
        with tempfile.TemporaryDirectory(prefix="survey-doctor-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".survey-doctor-", dir=root, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()
