"""A site that does what a test's script says: files that appear, answers that a scheduler gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.model import Answer, JobEnd, JobState, JobStatus
from orchestrator.schedulers.base import Found, Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.transports.base import Command, Completion


class ScriptedTransport:
    """Files in memory; every command answers with its own argument vector."""

    name = "scripted"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self.commands: list[tuple[str, ...]] = []
        self.looks = 0
        self.one_exec = False
        self.travelled = 0  # queries that came with a look
        self.says: dict[str, str] = {}  # what a command prints, by its first word
        self.takes: dict[str, float] = {}  # how long it takes
        self.removed: list[str] = []
        self.fault: Callable[[], Exception | None] = lambda: None

    async def run(self, command: Command) -> Completion:
        self.commands.append(command.argv)
        await asyncio.sleep(self.takes.get(command.argv[0], 0.0))
        return Completion(argv=command.argv, returncode=0, stdout=self.says.get(command.argv[0], ""))

    async def put(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> None:
        self.files.update(files)

    async def get(self, path: str, *, limit: int | None = None) -> bytes | None:
        return self.files.get(path)

    async def look(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self.looks += 1
        if (fault := self.fault()) is not None:
            raise fault
        attempts = {}
        for directory, wish in request["attempts"].items():
            seen = {"exists": True, "offset": wish["progress"], "claim": self.claims.get(directory)}
            seen.update(self.seen.get(directory, {}))
            if seen.get("exit") is None and not wish.get("result"):
                seen.pop("result", None)
            attempts[directory] = seen
        query = None
        if request["query"] is not None:
            self.travelled += 1
            self.commands.append(tuple(request["query"]["argv"]))
            query = {"returncode": 0, "stdout": self.says.get("query", ""), "stderr": ""}
        return {"now": 0.0, "host": "here", "attempts": attempts, "query": query}

    async def revoke(self, directory: str, tag: str) -> bool:
        claim = self.claims.setdefault(directory, {"tag": tag, "by": "driver"})
        return bool(claim["by"] == "driver")

    async def remove(self, paths: Sequence[str]) -> None:
        self.removed.extend(paths)

    async def close(self) -> None:
        pass

    def end(self, directory: str, tag: str, metrics: Mapping[str, float] | None, **report: Any) -> None:
        """The attempt's program ends now."""
        self.claims[directory] = {"tag": tag, "by": "agent", "job_id": "?"}
        self.seen[directory] = {
            "exit": {"tag": tag, "exit_code": 0, "host": "n1", "started": 1.0, "ended": 2.0, **report},
            "result": None if metrics is None else json.dumps({"tag": tag, "metrics": dict(metrics)}),
        }


class ScriptedScheduler(Scheduler):
    """Answers from tables that the test fills."""

    name = "scripted"
    template = "local.sh.j2"

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, JobStatus] = {}
        self.past: dict[str, JobStatus] = {}
        self.by_tag: dict[str, tuple[str, ...]] = {}
        self.submits: list[SubmitRequest] = []
        self.replies: list[Submitted | Refused | Unclear] = []
        self.keeps_history = True
        self.trusted = True
        self.on_submit: Callable[[SubmitRequest], None] = lambda _request: None

    def set(self, job_id: str, answer: Answer, *, end: JobEnd | None = None, word: str = "", **more: Any) -> None:
        state = {Answer.ALIVE: JobState.RUNNING, Answer.ENDED: JobState.ENDED}.get(answer, JobState.UNKNOWN)
        word = word or str(answer)
        self.answers[job_id] = JobStatus(job_id=job_id, answer=answer, state=state, word=word, end=end, **more)

    def submit(self, request: SubmitRequest) -> Command:
        self.submits.append(request)
        return self.command("submit", request.tag)

    def parse_submit(self, completion: Completion) -> Submitted | Refused | Unclear:
        self.on_submit(self.submits[-1])
        return self.replies.pop(0) if self.replies else Submitted(job_id=str(len(self.submits)))

    def query(self, job_ids: Sequence[str]) -> Command:
        return self.command("query", *job_ids)

    def parse_query(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        alive = {job_id: JobStatus(job_id=job_id, answer=Answer.ALIVE, state=JobState.RUNNING) for job_id in job_ids}
        return {job_id: self.answers.get(job_id, alive[job_id]) for job_id in job_ids}

    def history(self, job_ids: Sequence[str], since: float) -> Command | None:
        return self.command("history", *job_ids) if self.keeps_history else None

    def parse_history(self, completion: Completion, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        absent = {job_id: JobStatus(job_id=job_id, answer=Answer.ABSENT) for job_id in job_ids}
        return {job_id: self.past.get(job_id, absent[job_id]) for job_id in job_ids}

    def find(self, tags: Sequence[str], since: float) -> tuple[Command, ...]:
        return (self.command("find", *tags),)

    def parse_find(self, completions: Sequence[Completion], tags: Sequence[str]) -> Found:
        jobs = {
            tag: tuple(JobStatus(job_id=job_id, answer=Answer.ALIVE) for job_id in self.by_tag.get(tag, ()))
            for tag in tags
        }
        evidence = "" if self.trusted else "exit code 1: slurm_load_jobs error"
        return Found(jobs=jobs if self.trusted else {}, trusted=self.trusted, evidence=evidence)

    def element(self, job_id: str, index: int) -> str:
        return f"{job_id}_{index}"

    def whole(self, job_id: str) -> str:
        return job_id.partition("_")[0]

    def cancel(self, job_ids: Sequence[str]) -> Command:
        return self.command("cancel", *job_ids)

    def cancelled(self, completion: Completion) -> bool:
        return True
