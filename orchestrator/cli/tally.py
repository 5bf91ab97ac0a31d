"""What the events of a driver add up to: how far it is, what is in flight, the best, the end in sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.standing import Standing

__all__ = ["Row", "Tally", "name_of", "span"]

_RUN = " run "


@dataclass(slots=True)
class Row:
    """A trial in flight; ``stuck`` are the scheduler's words for why its job may never start."""

    since: float
    state: str = "submitting"
    job: str = ""
    last: str = ""
    stuck: str = ""


class Tally:
    """Counts events.

    Parameters
    ----------
    objective : str
        The metric that is shown.
    maximize : bool
        Whether more of it is better.
    expected : mapping of str to int, optional
        Trials of each arm of a comparison, so that the end in sight is the whole comparison's.
    best : tuple of str and float, optional
        The best trial of earlier runs.
    standing : Standing, optional
        In place of the three: what is known of several objectives.

    Attributes
    ----------
    stop : float or None
        The stop of the site that holds jobs back.
    """

    def __init__(
        self,
        objective: str,
        *,
        maximize: bool,
        expected: Mapping[str, int] | None = None,
        best: tuple[str, float] | None = None,
        standing: Standing | None = None,
    ) -> None:
        before = {} if best is None else {best[0]: best[1:]}
        self.standing = standing or Standing([(objective, "maximize" if maximize else "minimize")], before)
        self.running: dict[str, Row] = {}
        self.done = 0
        self.failed = 0
        self.paused: set[str] = set()
        self.stop: float | None = None
        self._names: dict[str, str] = {}
        self._said: dict[tuple[str, str], str] = {}
        self._expected = dict(expected or {})
        self._reasons: dict[str, str] = {}
        self._planned: dict[str, float] = {}
        self._spent = 0.0
        self._counted = 0
        self._widest = 0

    @property
    def total(self) -> int:
        """Trials in all."""
        return sum(self._expected.values())

    def take(self, event: Mapping[str, Any], arm: str = "") -> bool:
        """Count one event; whether it is a trial that is the best so far."""
        name = self.name(event, arm)
        row = self.running.get(name)
        match event["event"]:
            case "started":
                self._expected[arm] = int(event["trials"])
                self.done += int(event["done"])
                self.paused |= {name_of({"number": number}, arm) for number in event.get("paused", ())}
            case "set-aside":
                self.running.pop(name, None)
                self.paused.add(name)
            case "planned" | "found":
                self.paused.discard(name)
                self.running[name] = Row(since=event["time"])
                self._names[f"{arm}:{event['tag']}"] = name
                self._widest = max(self._widest, len({_trial(each) for each in self.running}))
                if event["event"] == "planned":
                    self._planned.setdefault(_trial(name), event["time"])
            case "submitted" if row is not None:
                row.state, row.job = "queued", event["job_id"]
            case "held":
                self.stop = event["until"]
                if row is not None:
                    row.state = "held"
            case "state" if row is not None:
                row.state = event["word"] or event["state"]
                row.last = event["message"] or row.last
                row.stuck = f"{row.state} {event['message']}".rstrip() if event.get("stuck") else ""
            case "progress" if row is not None:
                row.state, row.last, row.stuck = "running", f"step {event['step']}: {event['value']:.4g}", ""
            case "ended":
                # Runs that are ended because another one has no result are no reason.
                if event.get("message") and not (event["verdict"] == "cancelled" and _trial(name) in self._reasons):
                    self._reasons[_trial(name)] = str(event["message"])
                if name != _trial(name):
                    self.running.pop(name, None)
            case "told":
                return self._told(event, name)
        return False

    def _told(self, event: Mapping[str, Any], name: str) -> bool:
        for row in [row for row in self.running if _trial(row) == name]:
            del self.running[row]
        self.paused.discard(name)
        self.done += 1
        self.failed += event["state"] == "failed"
        planned = self._planned.pop(name, None)
        if planned is not None:
            self._spent += max(0.0, event["time"] - planned)
            self._counted += 1
        values = event.get("values") or ()
        return bool(values) and self.standing.take(name, values, event.get("broken", ()))

    def name(self, event: Mapping[str, Any], arm: str) -> str:
        """Name of the trial that an event is about: by its number, its key or the tag of its attempt."""
        return name_of(event, arm) or self._names.get(f"{arm}:{event.get('tag', '')}", "")

    def is_news(self, event: Mapping[str, Any], arm: str) -> bool:
        """Whether its message was not the latest of its kind: many trials wait for the same thing."""
        kind, message = (arm, event["event"]), str(event.get("message") or "")
        if self._said.get(kind) == message:
            return False
        self._said[kind] = message
        return True

    @property
    def stuck(self) -> dict[str, str]:
        """Trials whose jobs wait for something that may never come, and the scheduler's words for it."""
        return {name: row.stuck for name, row in list(self.running.items()) if row.stuck}

    def why(self, name: str, event: Mapping[str, Any]) -> str:
        """Verdict and reason of a trial without a value; the reason is said once."""
        reason = self._reasons.pop(name, "")
        if event["verdict"] == "paused":
            return "pruned: it was set aside, and did not go on"
        return f"{event['verdict']}: {reason}" if reason else str(event["verdict"])

    @property
    def eta(self) -> float | None:
        """Seconds to the end: the trials to come, by the mean time from plan to result, N at a time."""
        left = self.total - self.done
        if not self._counted or left < 1:
            return None
        return self._spent / self._counted * max(1.0, left / max(1, self._widest))

    def in_flight(self) -> str:
        """Say what is in flight: ``3 in flight (2 queued, 1 running)``."""
        rows = list(self.running.values())
        states = [f"{count} {state}" for state, count in Counter(row.state for row in rows).items()]
        if stuck := self.stuck:
            states.append(f"{len(stuck)} stuck")
        return f"{len(rows)} in flight ({', '.join(states)})"

    def summary(self) -> str:
        """Say how far it is."""
        others = {"failed": self.failed, "paused": len(self.paused)}
        counts = "".join(f", {count} {word}" for word, count in others.items() if count)
        found = self.standing.summary()
        return f"{self.done}/{self.total} trials{counts}{', ' + found if found else ''}"


def name_of(event: Mapping[str, Any], arm: str) -> str:
    """The trial that an event is about, as people call it: its number, after its arm if there are several.

    One of several runs is ``7 run 2``. Empty where the event names neither number nor key.
    """
    number = event.get("number")
    if number is None:
        key = str(event.get("key", ""))
        if not key:
            return ""
        head, _, run = key.partition("/run-")
        number = int(head) if head.isdigit() else key
        number = f"{number}{_RUN}{run}" if run else number
    return f"{arm}:{number}" if arm else str(number)


def _trial(name: str) -> str:
    """The trial that a row is of, be it a run of it."""
    return name.partition(_RUN)[0]


def span(seconds: float) -> str:
    """A duration for people."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
