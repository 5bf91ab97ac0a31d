"""An account of a study in plain sentences: what goes on, why nothing more does, and what comes next.

It is made of what lies in the study's folder: the snapshot, the ledger, the lease, the latest events.
Nothing is asked, locked or changed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.life import ABORTED, FORGOTTEN, INVALIDATED, MOVED
from orchestrator.jobs.retry import RetryPolicy
from orchestrator.model import Verdict
from orchestrator.search.layout import StudyFolder, run_of, trial_key
from orchestrator.search.requests import pending_request
from orchestrator.store.lease import read_holder
from orchestrator.store.ledger import Ledger

if TYPE_CHECKING:
    from orchestrator.model import Attempt
    from orchestrator.store.lease import Holder
    from orchestrator.store.record import StudyRecord, TrialRecord

__all__ = ["Account"]

_TAIL = 1 << 20  # bytes of the latest events that are read
_SHOWN = 8
_AGAIN = {
    ABORTED: "it was stopped on request, which is no end of the trial",
    FORGOTTEN: "it was cancelled and forgotten on request",
    MOVED: "it was taken back before it began, to be run on another site",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known of a study at one moment.

    Attributes
    ----------
    holder, alive :
        The last driver, and whether it may be alive.
    events : sequence of mapping
        The latest ones, in order.
    policy : RetryPolicy
        What the study says of further attempts.
    runs : int
        How many runs a trial has.
    """

    root: Path
    now: float
    record: StudyRecord
    holder: Holder | None
    alive: bool
    events: Sequence[Mapping[str, Any]]
    policy: RetryPolicy
    runs: int = 1

    @classmethod
    def of(cls, root: Path, *, now: float | None = None) -> Account:
        """Read all there is to be known of the study in ``root``.

        Raises
        ------
        SurveyError
            If there is no study, or nothing was written yet that could be read.
        """
        from orchestrator.config.study import Study
        from orchestrator.studies.reader import read_study

        folder = StudyFolder(root)
        moment = time.time() if now is None else now
        holder, alive = read_holder(root, now=moment)
        study = Study.load(folder.study)
        return cls(
            root=root,
            now=moment,
            record=read_study(root),
            holder=holder,
            alive=alive,
            events=tuple(_latest(folder.events)),
            policy=RetryPolicy(limits=study.retry.limits()),
            runs=study.repeats,
        )

    # The study

    def study(self) -> list[str]:
        """The study in sentences: who drives it, its state, what is in flight, why no more is, what comes next."""
        lines = [self._driver(), self._state()]
        flying = self._flying
        lines += [f"Trial {trial.number}: {self._latest_attempt(trial)}" for trial in flying[:_SHOWN]]
        if len(flying) > _SHOWN:
            lines.append(f"And {len(flying) - _SHOWN} more trials are in flight: `survey status` lists them.")
        if paused := [trial for trial in self.record.trials if trial.state == "paused"]:
            named = ", ".join(str(trial.number) for trial in paused[:_SHOWN]) + (
                ", ..." if len(paused) > _SHOWN else ""
            )
            lines.append(
                f"Set aside by the pruner: {named}. A free slot takes up those that come to be among the best."
            )
        again = [trial for trial in self.record.trials if trial.attempts > 1]
        if again:
            named = ", ".join(str(trial.number) for trial in again[-_SHOWN:])
            lines.append(f"Tried more than once: {named}. `survey explain TRIAL` says why.")
        return [line for line in (*lines, self._why_no_more(), self._next(len(flying))) if line]

    def _driver(self) -> str:
        holder = self.holder
        if holder is None:
            return "No driver has run it yet."
        if self.alive:
            sign = f"; last sign of life {self._ago(holder.renewed)}"
            request = pending_request(self.root)
            asked = f" {request.by} asked it to {request.how} {self._ago(request.time)}." if request else ""
            return f"It is driven by {holder}{sign}.{asked}"
        if holder.released is not None:
            return f"No driver runs: the last one ({holder}) ended in order {self._ago(holder.released)}."
        if holder.is_dead:
            return (
                f"No driver runs: the last one ({holder}) was killed, or its machine was restarted;"
                f" its last sign of life was {self._ago(holder.renewed)}. Nothing is lost."
            )
        return f"No driver is believed to run: the last one ({holder}) gave its last sign of life {self._ago(holder.renewed)}."

    def _state(self) -> str:
        record = self.record
        counts = {
            word: sum(trial.state == word for trial in record.trials) for word in ("complete", "pruned", "failed")
        }
        ended = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"
        so_far = f"Of {record.planned} trials {sum(counts.values())} have ended ({ended})."
        match record.state:
            case "done":
                return f"It is done: {so_far[0].lower()}{so_far[1:]}"
            case "paused":
                return f"It is paused: {record.message}. {so_far}"
            case _:
                return f"{record.message[0].upper()}{record.message[1:]}. {so_far}" if record.message else so_far

    @property
    def _flying(self) -> list[TrialRecord]:
        return [trial for trial in self.record.trials if trial.state == "running"]

    def _why_no_more(self) -> str:
        record = self.record
        begun = sum(trial.state != "waiting" for trial in record.trials)
        if record.state != "running" or not self.alive:
            return ""
        if self._draining():
            return "No new trials are begun: the driver was asked to drain."
        if begun >= record.planned:
            return f"No new trials are begun: all {record.planned} have been."
        busy = sum(max(1, sum(run.verdict is None for run in trial.runs)) for trial in self._flying)
        if busy >= record.parallel:
            return f"No new trials are begun: all {record.parallel} slots are taken."
        free = record.parallel - busy
        words = self._last("waiting", "held")
        return f"{free} slot{' is' if free == 1 else 's are'} free" + (
            f": {words}." if words else ", about to be filled."
        )

    def _next(self, flying: int) -> str:
        record = self.record
        resume = f"`survey resume {self.root}`"
        left = record.planned - sum(trial.state != "waiting" for trial in record.trials)
        found = f"finds the {flying} in flight again, and begins {left} more" if flying else f"begins {left} more"
        if record.state == "done":
            return "Nothing more happens; with a larger `trials:` it would go on."
        if not self.alive:
            first = "Next: mend that; then " if record.state == "paused" else "Next: nothing happens by itself; "
            return (
                f"{first}{resume} {found}. Jobs in flight run on meanwhile." if flying else f"{first}{resume} {found}."
            )
        if record.state == "paused":
            return "Next: it goes on by itself as soon as that is over."
        if self._draining():
            return f"Next: the driver ends with the last of the {flying} in flight; {resume} goes on."
        if left > 0:
            return "Next: each trial that ends makes room for a new one, chosen with all results known by then."
        return f"Next: it is done when the {flying} in flight have ended."

    def _draining(self) -> bool:
        for event in reversed(self.events):
            if event["event"] == "draining" or (event["event"] == "stopping" and event.get("how") == "drain"):
                return True
            if event["event"] == "started":
                break
        return False

    def _last(self, *names: str) -> str:
        """Message of the latest of these events, if nothing was submitted since."""
        for event in reversed(self.events):
            if event["event"] in names and event.get("message"):
                return str(event["message"])
            if event["event"] in {"submitted", "started"}:
                break
        return ""

    # One trial

    def trial(self, trial: TrialRecord) -> list[str]:
        """One trial in sentences: each attempt, why there was another, how it stands, what comes next."""
        ledger = Ledger(self.root)
        runs = {key: ledger.attempts(key) for key in ledger.keys(trial_key(trial.number))}
        lines = []
        if trial.retry_of is not None:
            lines.append(f"It is a second try of trial {trial.retry_of}, asked for by `survey retry`.")
        for key, of_run in runs.items():
            lines += self._attempts(f"Run {run_of(key)}, attempt" if "/" in key else "Attempt", of_run)
        if self.runs > 1:
            lines.append(self._runs_to_come(trial, runs.values()))
        attempts = self._telling(runs.values())
        if not attempts and trial.state == "waiting":
            lines.append("It waits to be begun: a driver takes it as soon as a slot is free.")
        elif not attempts:
            lines.append("No attempt was planned yet: its driver ended before, or is just about to.")
        lines.append(self._fate(trial, attempts))
        return [line for line in lines if line]

    def _attempts(self, name: str, attempts: Sequence[Attempt]) -> list[str]:
        lines = []
        for index, attempt in enumerate(attempts):
            if attempt.outcome is None:
                lines.append(f"{name} {attempt.number}: {self._in_flight(attempt)}")
                continue
            lines.append(f"{name} {attempt.number}: {self._ended(attempt)}")
            if index + 1 < len(attempts):
                more = attempts[index + 1].memory
                room = f", with {more} MiB of memory" if more is not None and more != attempt.memory else ""
                lines.append(f"  It was run again{room}: {self._why_again(attempts[: index + 1])}.")
        return lines

    def _runs_to_come(self, trial: TrialRecord, runs: Collection[Sequence[Attempt]]) -> str:
        """What becomes of those of a trial's runs that were not begun."""
        left = self.runs - len(runs)
        if not left or trial.state == "waiting":
            return ""
        them = "1 of its runs has" if left == 1 else f"{left} of its runs have"
        if trial.state == "running" and not any(self._is_lost(attempts) for attempts in runs):
            return f"{them} not begun: each waits for a free slot."
        return f"{them} never begun: another one ended without a result, and the trial with it."

    def _is_lost(self, attempts: Sequence[Attempt]) -> bool:
        """Whether a run has ended without a result for good."""
        outcome = attempts[-1].outcome
        if outcome is None or outcome.succeeded or not _AGAIN.keys().isdisjoint(attempts[-1].notes):
            return False
        return not self.policy.again(attempts, roomier=True)

    def _telling(self, runs: Collection[Sequence[Attempt]]) -> Sequence[Attempt]:
        """The attempts that say how a trial stands: of the run that is lost, or in flight, or of the last one."""
        lost = [attempts for attempts in runs if self._is_lost(attempts) and INVALIDATED not in attempts[-1].notes]
        flying = [attempts for attempts in runs if attempts[-1].outcome is None]
        return next(iter([*lost, *flying, *reversed(list(runs))]), ())

    def _latest_attempt(self, trial: TrialRecord) -> str:
        ledger = Ledger(self.root)
        if self.runs > 1:
            flying = [each for key in ledger.keys(trial_key(trial.number)) if (each := ledger.latest(key)) is not None]
            said = [f"run {run_of(each.key)}: {self._in_flight(each)}" for each in flying if each.outcome is None]
            return " ".join(said) or "none of its runs is in flight."
        latest = ledger.latest(trial_key(trial.number))
        if latest is None:
            return "chosen, but not submitted yet."
        if latest.outcome is None:
            return (f"attempt {latest.number}: " if latest.number > 1 else "") + self._in_flight(latest)
        return f"attempt {latest.number} has {self._ended(latest)} {self._fate(trial, [latest])}"

    def _in_flight(self, attempt: Attempt) -> str:
        if attempt.suspect_since is not None:
            return (
                f"job {attempt.job_id or attempt.tag} is gone from the scheduler without a report since"
                f" {self._clock(attempt.suspect_since)}; its files are waited for, then it counts as lost."
            )
        if attempt.job_id is None:
            said = self._message_of(attempt)
            if self.alive:
                return f"planned at {self._clock(attempt.planned)}, on its way to the scheduler{said and f': {said}'}."
            return (
                f"planned at {self._clock(attempt.planned)}; whether it reached the scheduler is not known:"
                f" the next driver looks for a job called {attempt.job_name or attempt.tag} before it submits again."
            )
        since = attempt.submitted or attempt.planned
        where = f"as job {attempt.job_id}" + (f" on {attempt.site}" if attempt.site else "")
        steps = [each for each in self._of(attempt.key) if each["event"] == "progress"]
        if steps:
            report = f"step {steps[-1]['step']}: {steps[-1]['value']:.6g}"
            return f"it runs {where}, submitted {self._ago(since)}; its latest report is {report}."
        state = next((each for each in reversed(self._of(attempt.key)) if each["event"] == "state"), None)
        if state is None:
            return f"submitted {where} {self._ago(since)}; the scheduler has not said anything about it since."
        words = " ".join(str(state[name]) for name in ("word", "message") if state.get(name))
        if state.get("stuck"):
            return (
                f"submitted {where} {self._ago(since)}, and it may never start: the scheduler says {words}."
                " Mend that there, or `survey stop --cancel` and change the study."
            )
        return f"submitted {where} {self._ago(since)}; {state['state']}: the scheduler says {words or 'no more'}."

    def _ended(self, attempt: Attempt) -> str:
        outcome = attempt.outcome
        assert outcome is not None
        when = f" {self._ago(outcome.ended)}" if outcome.ended else ""
        job = f", job {outcome.job_id or attempt.job_id}" if outcome.job_id or attempt.job_id else ""
        host = f" on {outcome.host}" if outcome.host else ""
        why = f": {outcome.reason}" if outcome.reason else ""
        if "/" in attempt.key and INVALIDATED in attempt.notes:
            why = ": another run of its trial has no result"
        return f"ended{when}{host}{job} as {outcome.verdict}{why}."

    def _why_again(self, attempts: Sequence[Attempt]) -> str:
        if attempts[-1].outcome is not None and attempts[-1].outcome.verdict is Verdict.PAUSED:
            return "among the trials that had come as far it was one of the best by then"
        for note in attempts[-1].notes:
            if note in _AGAIN:
                return _AGAIN[note]
        return self.policy.decide(attempts, roomier=True).why

    def _fate(self, trial: TrialRecord, attempts: Sequence[Attempt]) -> str:
        if trial.state in {"complete", "pruned"}:
            values = ", ".join(
                f"{name} = {value:.6g}" for name, value in zip(self.record.objectives, trial.values or (), strict=False)
            )
            broken = ", ".join(words for words, amount in trial.constraints.items() if amount > 0.0)
            never = f" It breaks {broken}, so it is never the best." if broken else ""
            return f"The trial is {trial.state}{values and f': {values}'}.{never}"
        if trial.state == "paused":
            return (
                "Next: it goes on from its checkpoint as soon as a slot is free and it is among the best of those that"
                " have come as far; if it never is, it is pruned when nothing runs any more."
            )
        latest = attempts[-1] if attempts else None
        if trial.state == "failed":
            why = ""
            if latest is not None and latest.outcome is not None and INVALIDATED not in latest.notes:
                why = f" It is not run again: {self.policy.decide(attempts).why}."
            by = next((each.number for each in self.record.trials if each.retry_of == trial.number), None)
            if by is not None:
                why = f" It was asked for again, and trial {by} has its place."
            return f"The trial has failed, and the search takes it as a failure.{why} `survey logs {trial.number}` has more."
        if latest is None or latest.outcome is None:
            return (
                "" if self.alive else f"Next: `survey resume {self.root}` takes it up again; its job runs on meanwhile."
            )
        who = "the driver" if self.alive else f"`survey resume {self.root}`"
        if latest.outcome.verdict is Verdict.PAUSED:
            return f"Next: {who} sets it aside, or lets it go on."
        again = not _AGAIN.keys().isdisjoint(latest.notes) or self.policy.again(attempts, roomier=True)
        return f"Next: {who} runs it again." if again else f"Next: {who} writes its end down."

    # Words

    def _of(self, key: str) -> list[Mapping[str, Any]]:
        """Events of the latest attempt of a job."""
        mine = [event for event in self.events if event.get("key") == key]
        starts = [index for index, event in enumerate(mine) if event["event"] == "planned"]
        return mine[starts[-1] :] if starts else mine

    def _message_of(self, attempt: Attempt) -> str:
        tags = {attempt.tag, attempt.job_name}
        said = [event for event in self.events if event.get("tag") in tags and event["event"] in {"waiting", "held"}]
        return str(said[-1].get("message", "")) if said else self._last("waiting", "held")

    def _clock(self, when: float) -> str:
        there, here = (datetime.fromtimestamp(each).astimezone() for each in (when, self.now))
        return there.strftime("%H:%M:%S" if there.date() == here.date() else "%Y-%m-%d %H:%M:%S")

    def _ago(self, when: float) -> str:
        seconds = max(0.0, self.now - when)
        if seconds < 90:
            return f"{seconds:.0f} s ago"
        if seconds < 5400:
            return f"{seconds / 60:.0f} min ago"
        return f"{seconds / 3600:.1f} h ago"


def _latest(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events at the end of ``events.jsonl``."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines[1:] if size > _TAIL else lines:
        try:
            event = json.loads(line)
        except ValueError:  # a driver was killed, or is at it
            continue
        if isinstance(event, dict) and "event" in event:
            yield event
