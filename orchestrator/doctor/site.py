"""The look at a site: from its file to its file system, in three requests at most, and without a job."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.site import BatchOptions
from orchestrator.doctor.asking import Asked, judge, plan
from orchestrator.doctor.findings import Finding, Level, error, of_error, ok, warn
from orchestrator.doctor.folders import judge_clock, judge_folder
from orchestrator.doctor.queues import judge_queues
from orchestrator.errors import SurveyError
from orchestrator.jobs.placement import Placement, place
from orchestrator.jobs.script import ScriptRequest, render
from orchestrator.model import Resources
from orchestrator.schedulers.base import Scheduler
from orchestrator.transports.base import Command
from orchestrator.transports.registry import make_transport
from orchestrator.transports.remote import RemoteTransport

if TYPE_CHECKING:
    from orchestrator.clock import Clock
    from orchestrator.config.site import Site
    from orchestrator.transports.base import Transport

__all__ = ["SiteCheck", "send"]

_FOLDER = 30.0  # seconds that a file system may take
_SLACK = 20.0
_PATIENCE = 120.0
_PYTHON = "import sys; print('.'.join(map(str, sys.version_info[:3])))"


async def send(transport: Transport, python: str, request: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    """Have the site's side carry out a request of `orchestrator.doctor.far_side`.

    Raises
    ------
    SurveyError
        If no answer came that can be read.
    """
    source = (Path(__file__).parent / "far_side.py").read_text(encoding="ascii")
    program = f"{source}\nmain({json.dumps(request)!r})\n"
    command = Command(argv=(python, "-I", "-S", "-"), stdin=program, timeout=seconds + _SLACK)
    try:
        # A transport waits for a connection that was lost as long as it takes; who looks does not.
        done = await asyncio.wait_for(transport.run(command), seconds + _PATIENCE)
    except TimeoutError as failure:
        raise SurveyError("no answer came: the connection was lost", hint="Look again when it is back.") from failure
    from orchestrator.doctor.far_side import MARK

    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            reply: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return reply
    said = " ".join(done.stderr.split())[-200:] or "not a word"
    raise SurveyError(
        f"{python} there gave no answer (exit code {done.returncode}: {said})",
        hint="Try it by hand; set `transport: {python: /path/to/python3}` to Python 3.6 or newer.",
    )


@dataclass(slots=True)
class SiteCheck:
    """One look at one site.

    Parameters
    ----------
    site : Site
        As its file has it.
    root : Path
        The driver's root, which is the work root where the site file names none.
    batch : BatchOptions
        Queue and group.
    transport : Transport, optional
        In place of the site's own.
    record : bool
        Whether to ask also what only a record is for.

    Attributes
    ----------
    findings : list of Finding
        So far.
    answers : dict
        Raw answers by question, as the far side gives them.
    names : dict
        ``user`` and ``home`` on a remote site.
    usable : bool
        Whether a probe job has a chance.
    file_clock : float
        Seconds by which the file server's clock is ahead of the login node's.
    gpus : int
        GPUs of this machine, where it is the site.
    scheduler : Scheduler or None
        The adaptor, once it could be made.
    """

    site: Site
    root: Path
    batch: BatchOptions
    clock: Clock
    transport: Transport | None = None
    record: bool = False
    findings: list[Finding] = field(default_factory=list)
    answers: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    usable: bool = False
    file_clock: float = 0.0
    gpus: int = 0
    scheduler: Scheduler | None = None

    @property
    def python(self) -> str:
        """What runs the far side's program."""
        remote = isinstance(self.transport, RemoteTransport)
        return self.site.transport.python if remote else sys.executable

    async def run(self) -> None:
        """Look at everything that can be looked at without a job."""
        self._rehearse()
        try:
            await self._reach()
        except SurveyError as failure:
            self.findings.append(of_error("connection", failure))

    def _rehearse(self) -> None:
        """See that a script can be made at all: template, group, queue."""
        try:
            spot = self._render("/survey")
        except SurveyError as failure:
            self.findings.append(of_error("script", failure, "Mend the site file or the template."))
        else:
            where = f"queue {spot.queue}" if spot.queue else "the scheduler's own default queue"
            self.findings.append(ok("script", f"template {self.site.template_name} makes one; {where}"))

    def _render(self, folder: str) -> Placement:
        """Choose a queue and render a script for a trial below ``folder``."""
        spot = place(self.site, Resources(cpus=1, walltime=300), self.batch)
        request = ScriptRequest(
            tag="t00000-doctor",
            directories=(f"{folder}/doctor",),
            agent=f"{folder}/agent.py",
            python=self.site.interpreter,
            study="doctor",
            output_dir=f"{folder}/doctor",
        )
        render(self.site, spot, self.batch, request)
        return spot

    async def _reach(self) -> None:
        if self.transport is None:
            self.transport = make_transport(self.site, self.clock)
        user = home = None
        if isinstance(self.transport, RemoteTransport):
            greeting = await self.transport.open()
            user, home = greeting.user, greeting.home
            self.names = {"user": user, "home": home}
        folder = self._folder(user, home)
        try:
            questions = plan(self.site, self.batch, now=self.clock.now(), record=self.record)
        except SurveyError as failure:
            self.findings.append(of_error("scheduler", failure, "Mend the site file."))
            return
        self.scheduler = questions.scheduler
        deadline = max([_FOLDER, *(command.timeout for command in questions.questions.values())]) + 5.0
        request: dict[str, Any] = {
            "verb": "examine",
            "folder": folder,
            "programs": [*questions.programs, *questions.helpful],
            "gpus": self.site.scheduler == "local",
            "questions": [
                {"name": name, "argv": list(command.argv), "timeout": command.timeout}
                for name, command in questions.questions.items()
            ]
            + [{"name": "python", "argv": [self.site.interpreter, "-I", "-S", "-c", _PYTHON], "timeout": 30.0}],
            "seconds": deadline,
        }
        # Before the questions are asked: they may take a minute, the clocks are to be compared now.
        begun = self.clock.now()
        seen = await send(self.transport, self.python, {**request, "questions": [], "folder": None}, seconds=_FOLDER)
        took = self.clock.now() - begun
        self._connection(seen, took)
        self.findings += judge_clock(
            "clock", seen["now"] - (begun + took / 2), "the site's clock", "this machine's", unsure=took / 2
        )
        seen = await send(self.transport, self.python, request, seconds=deadline)
        self.answers = dict(seen["answers"])
        asked = Asked(
            plan=questions,
            site=self.site,
            remote=isinstance(self.transport, RemoteTransport),
            programs=seen["programs"],
            answers=self.answers,
        )
        self.findings += [*judge(asked), *judge_queues(asked), *self._python(seen["answers"].get("python"))]
        if self.site.scheduler == "local":
            self.findings += _gpus(seen["gpus"])
            self.gpus = len((seen["gpus"] or {}).get("listed", ()))
        if folder is not None:
            self._work_root(seen["folder"], folder)

    def _folder(self, user: str | None, home: str | None) -> str | None:
        if self.site.work_root is None:
            return str(self.root.resolve())
        try:
            group = self.site.group_of(self.batch)
            whole = self.site.resolved_work_root(self.root, "x", group=group, user=user, home=home)
        except SurveyError as failure:
            self.findings.append(of_error("work root", failure))
            return None
        return whole.rpartition("/")[0]

    def _connection(self, seen: Mapping[str, Any], took: float) -> None:
        assert self.transport is not None
        if isinstance(self.transport, RemoteTransport):
            where = f"{self.names['user']} on {seen['host']} by {self.transport.name}, answers in {took:.1f} s"
            self.findings.append(ok("connection", f"{where}; Python {seen['python']} there"))
        else:
            self.findings.append(ok("connection", f"none is needed: this machine, {seen['host']}"))
        if seen["machine"] != self.site.cpu_arch:
            text = f"the login node is {seen['machine']}, and the site file says {self.site.cpu_arch} of the nodes"
            hint = "Programs that are built on the login node do not run on the nodes; or mend `cpu_arch:`."
            self.findings.append(warn("machine", text, hint))

    def _python(self, answer: Mapping[str, Any] | None) -> list[Finding]:
        name = self.site.interpreter
        here = self.site.scheduler == "local"
        version = "" if answer is None or answer["returncode"] != 0 else answer["stdout"].strip()
        numbers = tuple(int(word) for word in version.split(".") if word.isdigit())
        where = "on the login node" if not here else "here"
        if numbers >= (3, 6):
            return [ok("python", f"{name} {where} is Python {version}" + ("" if here else "; `--probe` asks a node"))]
        text = f"{name} {where} is Python {version}, older than 3.6" if numbers else f"there is no {name} {where}"
        hint = "Set `python:` in a site file of your own to Python 3.6 or newer"
        if here:
            return [error("python", text, f"{hint}; every job starts with it.")]
        return [warn("python", text, f"{hint}; or, if only the compute nodes have it, see with `--probe`.")]

    def _work_root(self, facts: Mapping[str, Any] | None, folder: str) -> None:
        remote = isinstance(self.transport, RemoteTransport)
        lines = judge_folder(
            facts,
            site=self.site.name,
            batch=self.site.scheduler != "local",
            database=not remote and self.site.work_root is None,
        )
        self.findings += lines
        self.usable = facts is not None and not facts["error"]
        if facts is not None:
            self.file_clock = float(facts.get("file_clock") or 0.0)
            for name, answer in (facts.get("quotas") or {}).items():
                self.answers[name] = answer
        try:
            self._render(folder)
        except SurveyError as failure:
            # What is wrong with any folder has been said; this is about the path of this one.
            if not any(line.subject == "script" and line.level is Level.ERROR for line in self.findings):
                self.findings.append(of_error("work root", failure, "Choose another folder."))


def _gpus(facts: Mapping[str, Any] | None) -> list[Finding]:
    if facts is None:
        return [warn("GPUs", "nvidia-smi gave no answer", "Is the driver well? Try nvidia-smi by hand.")]
    if facts["listed"]:
        return [ok("GPUs", f"{len(facts['listed'])}: {facts['listed'][0]}")]
    if facts["devices"]:
        hint = "Is NVIDIA's driver well? Try nvidia-smi by hand."
        return [warn("GPUs", f"{facts['devices']} devices, and nvidia-smi lists none", hint)]
    return [ok("GPUs", "none")]
