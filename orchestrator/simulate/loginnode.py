"""The login node: command lines go in, replies come out, and faults come between."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from orchestrator.simulate.batchjob import Phase, Refusal
from orchestrator.simulate.cluster import Cluster
from orchestrator.simulate.dialects.base import Call, Dialect, Reply
from orchestrator.simulate.faults import INSTEAD, FaultPlan

__all__ = ["LoginNode"]

_BANNER = "*** Planned maintenance: Friday 09:00. Points left: 1234. ***\n\n"
_WARNING = "perl: warning: Setting locale failed.\n"
_NOISE = "\x00\x1b[31m#@!~ Segmentation fault (core dumped)\n"


class LoginNode:
    """Runs the command lines of one dialect over one cluster.

    Parameters
    ----------
    open_file : callable
        Content of a file as text, None where there is none.

    Attributes
    ----------
    calls : Counter
        How often each program was called.
    """

    def __init__(
        self,
        cluster: Cluster,
        dialect: Dialect,
        faults: FaultPlan | None = None,
        *,
        open_file: Callable[[str], str | None],
    ) -> None:
        self.cluster = cluster
        self.dialect = dialect
        self.faults = faults or FaultPlan()
        self.calls: Counter[str] = Counter()
        self._open = open_file

    def knows(self, argv: Sequence[str]) -> bool:
        """Whether the command line is one of the scheduler's."""
        words = _after_env(argv)[0]
        return bool(words) and words[0].rpartition("/")[2] in self.dialect.programs

    def run(
        self,
        argv: Sequence[str],
        *,
        now: float,
        stdin: str = "",
        folder: str = "/",
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Reply:
        """Carry out a command line, ``env NAME=VALUE`` in front of it included."""
        words, variables = _after_env(argv)
        variables = {**(environment or {}), **variables}
        self.cluster.advance(now)
        call = Call(
            program=words[0],
            words=tuple(words[1:]),
            stdin=stdin,
            folder=folder,
            environment=variables,
            user=user or self.cluster.rules.user,
            zone=0.0 if variables.get("TZ", "").startswith("UTC") else self.cluster.rules.zone,
            open=self._open,
        )
        self.calls[call.name] += 1
        fault = self.faults.pick(call.name, self.dialect.roles(call), now - self.cluster.began)
        reply = self._with_fault(call, fault) if fault else self._run(call)
        self.cluster.advance(now)
        return reply

    def _run(self, call: Call) -> Reply:
        try:
            return self.dialect.run(call, self.cluster)
        except Refusal as refusal:
            return Reply(returncode=2, stderr=f"{call.name}: invalid option -- {refusal.subject}\n")

    def _with_fault(self, call: Call, fault: str) -> Reply:
        if fault in INSTEAD:
            if fault == "hang":
                return Reply(returncode=None)
            if fault == "fails":
                return Reply(returncode=1, stderr=f"{call.name}: internal error 42\n")
            return self.dialect.trouble(fault, call)
        call.fault = fault
        if fault == "missing-job":
            call.hidden = frozenset(self._one_running())
        elif fault == "half-list":
            call.hidden = frozenset(sorted({job.number for job in self.cluster.live()})[1::2])
        reply = self._run(call)
        match fault:
            case "reply-lost":
                return Reply(returncode=None)
            case "lost-code":
                return dataclasses.replace(reply, returncode=None)
            case "timed-out":
                return self.dialect.trouble(fault, call)
            case "banner":
                stdout = f"{_BANNER}{reply.stdout}\nHave a nice day.\n"
                return dataclasses.replace(reply, stdout=stdout, stderr=f"{_WARNING}{reply.stderr}")
            case "silent":
                return Reply()
            case "garbage":
                return Reply(stdout=_NOISE)
            case "cut":
                return dataclasses.replace(reply, stdout=reply.stdout[: len(reply.stdout) // 2])
            case "odd-word":
                return dataclasses.replace(reply, stdout=self.dialect.strange(reply.stdout))
        return reply

    def _one_running(self) -> list[int]:
        return [job.number for job in self.cluster.live() if job.phase is Phase.RUNNING][:1]


def _after_env(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line behind ``env``, and the variables that it sets."""
    words = list(argv)
    if not words or words[0].rpartition("/")[2] != "env":
        return words, {}
    variables = {}
    words.pop(0)
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    return words, variables
