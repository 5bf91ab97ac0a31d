"""What a site's scheduler is asked, and what its answers say: nothing here submits a job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.config.site import BatchOptions
from orchestrator.doctor.findings import Finding, error, ok, warn
from orchestrator.jobs.script import scheduler_options
from orchestrator.model import Answer
from orchestrator.schedulers.base import Scheduler, SubmitRequest
from orchestrator.schedulers.reading import evidence
from orchestrator.schedulers.registry import make_scheduler
from orchestrator.transports.base import Command, Completion

if TYPE_CHECKING:
    from orchestrator.config.site import Site

__all__ = ["ABSENT", "Asked", "Plan", "completion", "judge", "plan", "seconds_of"]

ABSENT = "9999999"  # an id that every scheduler can have and none has: PBS counts up to it and no further
_SLOW = 10.0

# How a scheduler says that it keeps no finished jobs.
_OFF = re.compile(
    r"accounting storage is disabled|not configured to maintain job history|job_history_enable"
    r"|no jobs running since startup|accounting: No such file",
    re.IGNORECASE,
)

# Asked for a record only: what a stranger to the site needs to see of its dialect. Nothing that lists
# other people's jobs in a layout whose names cannot be told from the rest.
_FOR_THE_RECORD: Mapping[str, Sequence[tuple[str, ...]]] = {
    "slurm": (
        ("sinfo",),
        ("scontrol", "show", "partition"),
        ("sacct", "-P", "-X", "-o", "JobID,JobIDRaw,State,ExitCode,Submit,Start,End,Partition"),
    ),
    "pbs": (("qstat", "-Bf"), ("qstat", "-Q"), ("qstat", "-q")),
    "pjm": (
        ("pjstat",),
        ("pjstat", "-v"),
        ("pjstat", "-E"),
        ("pjstat", "-s"),
        ("pjstat", "-H"),
        ("pjstat", "-H", "-v"),
        ("pjstat", "--rsc"),
        ("pjstat", "--help"),
        ("pjsub", "--help"),
    ),
    "gridengine": (("qhost",), ("qconf", "-sql"), ("qconf", "-sc")),
}
_QUEUES: Mapping[str, tuple[str, ...]] = {
    "slurm": ("sinfo", "-h", "-o", "%R|%a|%l"),
    "pbs": ("qstat", "-Qf"),
    "gridengine": ("qconf", "-sql"),
}
_ARRAYS = ("scontrol", "show", "config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be asked.

    Attributes
    ----------
    programs : tuple of str
        Commands that a study needs there, as the site names them.
    helpful : tuple of str
        Commands that tell how finished jobs ended.
    questions : mapping
        Command lines by what they are asked for.
    """

    scheduler: Scheduler
    programs: tuple[str, ...]
    helpful: tuple[str, ...]
    questions: Mapping[str, Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of a `Plan`: where the programs are, and the answers as the far side gives them."""

    plan: Plan
    site: Site
    remote: bool
    programs: Mapping[str, str | None]
    answers: Mapping[str, Mapping[str, Any] | None]

    def __getitem__(self, name: str) -> Completion | None:
        return completion(self.answers.get(name), self.plan.questions.get(name))


def completion(answer: Mapping[str, Any] | None, command: Command | None = None) -> Completion | None:
    """Make a `Completion` of an answer of the far side; None where nothing was asked."""
    if answer is None:
        return None if command is None else Completion(argv=command.argv, returncode=None)
    return Completion(
        argv=tuple(answer["argv"]),
        returncode=answer["returncode"],
        stdout=answer["stdout"],
        stderr=answer["stderr"],
    )


def seconds_of(answer: Mapping[str, Any] | None) -> float:
    """How long an answer took."""
    return 0.0 if answer is None else float(answer["seconds"])


def plan(site: Site, batch: BatchOptions, *, now: float, record: bool) -> Plan:
    """Plan the questions for ``site``; none for the local queue, which is asked by a probe only.

    Raises
    ------
    UsageError
        If the site's scheduler or its options are not known, or it needs a group and none is set.
    """
    options = scheduler_options(site.model_copy(update={"history": True}), batch)
    scheduler = make_scheduler(site.scheduler, options)
    if site.scheduler == "local":
        return Plan(scheduler=scheduler, programs=(), helpful=(), questions={})
    request = SubmitRequest(script="/dev/null", tag="t00000-doctor", directory="/tmp")  # noqa: S108 - never carried out
    submit, query, cancel = scheduler.submit(request), scheduler.query([ABSENT]), scheduler.cancel([ABSENT])
    history = scheduler.history([ABSENT], now - 86400.0)
    find = scheduler.find(["t00000-doctor"], now - 3600.0)
    needed = dict.fromkeys(_program(command) for command in (submit, query, cancel, find[0]))
    helpful = dict.fromkeys([_program(command) for command in find[1:]] + ([_program(history)] if history else []))
    more = {"history": history, "version": scheduler.version(), "limits": scheduler.limits()}
    questions = {"query": query, **{name: command for name, command in more.items() if command is not None}}
    if site.scheduler in _QUEUES:
        questions["queues"] = scheduler.command(*_QUEUES[site.scheduler])
    if site.scheduler == "slurm" and site.array_allowed:
        questions["arrays"] = scheduler.command(*_ARRAYS)
    if record:
        for words in _FOR_THE_RECORD.get(site.scheduler, ()):
            questions[f"raw {' '.join(words)}"] = scheduler.command(*words)
    return Plan(
        scheduler=scheduler,
        programs=tuple(needed),
        helpful=tuple(name for name in helpful if name not in needed),
        questions=questions,
    )


def _program(command: Command) -> str:
    """The scheduler's own command in a command line: what ``env NAME=VALUE`` starts."""
    words = list(command.argv)
    if words[0] == "env":
        words = [word for word in words[1:] if "=" not in word]
    return words[0]


def judge(asked: Asked) -> list[Finding]:
    """Say what the answers mean for a study."""
    if asked.site.scheduler == "local":
        return []
    return [*_programs(asked), *_version(asked), *_query(asked), *_history(asked)]


def _programs(asked: Asked) -> list[Finding]:
    missing = [name for name in asked.plan.programs if asked.programs.get(name) is None]
    found = [name for name in (*asked.plan.programs, *asked.plan.helpful) if asked.programs.get(name) is not None]
    lines = []
    if found:
        folders = dict.fromkeys((asked.programs[name] or "").rpartition("/")[0] for name in found)
        lines.append(ok("commands", f"{', '.join(found)} in {', '.join(folders)}"))
    if missing:
        shell = "`transport: {shell: /bin/bash -l}`, where login files set PATH, or " if asked.remote else ""
        lines.append(
            error(
                "commands",
                f"not found on PATH there: {', '.join(missing)}",
                f"Is this a login node of {asked.site.name}? If so, set {shell}"
                f"`commands: {{{missing[0]}: /path/to/{missing[0].rpartition('/')[2]}}}` in a site file of your own.",
            )
        )
    if absent := [name for name in asked.plan.helpful if asked.programs.get(name) is None]:
        lines.append(
            warn(
                "commands",
                f"not found on PATH there: {', '.join(absent)}, which tells how finished jobs ended",
                "Set its path under `commands:`, or `history: false` where the site has none.",
            )
        )
    return lines


def _version(asked: Asked) -> list[Finding]:
    answer = asked["version"]
    if answer is None or asked.programs.get(_program(asked.plan.questions["version"])) is None:
        return []
    words = next((line.strip() for line in (answer.stdout + answer.stderr).splitlines() if line.strip()), "")
    if answer.returncode is None or not words:
        return [warn("version", f"{asked.site.scheduler}: {evidence(answer)}", "See the line of its commands.")]
    return [ok("version", words[:100])]


def _query(asked: Asked) -> list[Finding]:
    command, answer = asked.plan.questions["query"], asked["query"]
    name = _program(command)
    assert answer is not None
    if asked.programs.get(name) is None:
        return []
    if answer.returncode is None:
        return [
            error(
                "queue",
                f"{name} gave no answer within {command.timeout:g} s",
                "Try it by hand; if the server is merely slow, set `command_timeout:` in a site file of your own.",
            )
        ]
    status = asked.plan.scheduler.parse_query(answer, [ABSENT])[ABSENT]
    if status.answer is Answer.UNKNOWN:
        return [
            error(
                "queue",
                f"what {name} says cannot be read: {status.evidence}",
                f"Is the server up? If it is: `survey doctor --site {asked.site.name} --record DIR` saves what it "
                "prints, for a report; see `adaptor:` in docs/schedulers.md for the dialects that are known.",
            )
        ]
    took = seconds_of(asked.answers.get("query"))
    if took > _SLOW:
        return [
            warn(
                "queue",
                f"{name} took {took:.0f} s to answer",
                "Be kind to that server: set `poll: {query_min: 5min, query_max: 15min}` in a site file of your own.",
            )
        ]
    return [ok("queue", f"{name} answers in {took:.1f} s and can be read")]


def _history(asked: Asked) -> list[Finding]:
    command, wanted = asked.plan.questions.get("history"), asked.site.history
    if command is None:
        return [ok("history", "this dialect has none; how a job ended is what the agent writes")]
    answer = asked["history"]
    name = _program(command)
    assert answer is not None
    if asked.programs.get(name) is None:
        return []
    said = answer.stdout + answer.stderr
    if answer.returncode is not None and _OFF.search(said):
        text = f"off: {' '.join(said.split())[:120]}"
        if wanted:
            return [
                warn(
                    "history",
                    text,
                    "Nothing is wrong: how jobs ended is what the agent writes. `history: false` in a site file of "
                    "your own spares the server the question.",
                )
            ]
        return [ok("history", f"{text}; as the site file has it")]
    status = asked.plan.scheduler.parse_history(answer, [ABSENT])[ABSENT]
    if status.answer is Answer.UNKNOWN:
        text = f"what {name} says cannot be read: {status.evidence}"
        if not wanted:
            return [ok("history", "not asked for, as the site file has it")]
        return [
            warn(
                "history",
                text,
                "Jobs that the agent could not report of count as lost after a while. Mend it, or set "
                f"`history: false`; `survey doctor --site {asked.site.name} --record DIR` saves what it prints.",
            )
        ]
    if not wanted:
        return [
            warn(
                "history",
                f"on, and the site file says `history: false`: {name} can tell how jobs ended",
                "Set `history: true` in a site file of your own.",
            )
        ]
    return [ok("history", f"on: {name} answers in {seconds_of(asked.answers.get('history')):.1f} s and can be read")]
