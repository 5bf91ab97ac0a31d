"""What a person sees while a driver runs: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from orchestrator.cli.tally import Tally, span

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Display", "Lines", "Table", "make_display"]

_RECENT = 8
_REFRESH = 4.0
# Seconds of silence before a log file gets a line that says all is well; each silence is twice as long as the last.
_SILENCE = 60.0
_LONGEST_SILENCE = 3600.0


class Display(Protocol):
    """Shows events."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Mapping[str, Any], *, arm: str = "") -> None:
        """Take note of one event."""
        ...


def make_display(
    console: Console, tally: Tally, *, verbosity: int = 0, on_broken: Callable[[], Console] | None = None
) -> Display:
    """A live table where ``console`` is a terminal, else plain lines; nothing moves in a log file."""
    if console.is_terminal and not console.is_dumb_terminal and verbosity >= 0:
        return Table(console, tally)
    return Lines(console, tally, verbosity=verbosity, on_broken=on_broken)


class Lines:
    """One line per event, and one now and then while nothing happens; no colour, no control codes.

    Parameters
    ----------
    silence : float
        Seconds without a line after which there is one that says what is in flight.
    on_broken : callable, optional
        Asked for another console where this one cannot be written any more.
    """

    def __init__(
        self,
        console: Console,
        tally: Tally,
        *,
        verbosity: int = 0,
        silence: float = _SILENCE,
        on_broken: Callable[[], Console] | None = None,
    ) -> None:
        self._console = console
        self._on_broken = on_broken
        self._tally = tally
        self._verbosity = verbosity
        self._first = silence
        self._silence = silence
        self._spoke = threading.Event()
        self._over = False
        self._watch = threading.Thread(target=self._speak_up, name="silence", daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._spoke.set()
        self._watch.join()

    def show(self, event: Mapping[str, Any], *, arm: str = "") -> None:
        """Print the event if it is worth a line."""
        best = self._tally.take(event, arm)
        if text := _line(event, arm, self._tally, best=best, verbose=self._verbosity > 0):
            self._silence = self._first
            self._spoke.set()
            self._print(text)

    def _speak_up(self) -> None:
        while not self._over:
            self._spoke.clear()
            if not self._spoke.wait(self._silence) and self._tally.running:
                self._silence = min(2 * self._silence, max(_LONGEST_SILENCE, self._first))
                self._print(f"{self._tally.in_flight()}; {self._tally.summary()}{_ahead(self._tally)}")

    def _print(self, text: str) -> None:
        if self._verbosity < 0:
            return
        try:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        except OSError:
            if self._on_broken is None:
                raise
            self._console = self._on_broken()
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Table:
    """Slots, latest results, a progress bar and the expected end; redrawn in place."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console = console
        self._tally = tally
        self._recent: list[str] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=_REFRESH, transient=True
        )
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
        if self._tally.total:
            self._console.print(self._tally.summary(), markup=False, highlight=False)

    def show(self, event: Mapping[str, Any], *, arm: str = "") -> None:
        """Take the event into the table."""
        best = self._tally.take(event, arm)
        if text := _line(event, arm, self._tally, best=best, verbose=False):
            self._recent = [*self._recent, text][-_RECENT:]

    def _render(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE, pad_edge=False)
        for heading in ("trial", "job", "state", "for", "latest"):
            table.add_column(heading, no_wrap=heading != "latest")
        now = time.time()
        # The driver's thread changes the tally while rich's thread draws.
        for name, row in list(self._tally.running.items()):
            table.add_row(name, Text(row.job), Text(row.state), span(now - row.since), Text(row.last))
        grid = RichTable.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=max(1, self._tally.total), completed=self._tally.done, width=32),
            Text(self._tally.summary() + _ahead(self._tally)),
        )
        notices = [Text(line, style="yellow") for line in _notices(self._tally, now)]
        return Group(*[Text(line) for line in list(self._recent)], table, *notices, grid)


def _notices(tally: Tally, now: float) -> list[str]:
    """What a person should know for as long as it lasts."""
    lines = [_waits(name, words) for name, words in list(tally.stuck.items())[:_RECENT]]
    if tally.stop is not None and tally.stop > now:
        lines.append(
            f"the site stops in {span(tally.stop - now)}: jobs that would run into that are held until it is over"
        )
    return lines


def _waits(name: str, words: str) -> str:
    return f"trial {name}: waits for something that may never come: {words}"


def _ahead(tally: Tally) -> str:
    return "" if tally.eta is None else f", about {span(tally.eta)} to go"


def _line(event: Mapping[str, Any], arm: str, tally: Tally, *, best: bool, verbose: bool) -> str:
    """The event in words; empty if it is not worth a line."""
    name = tally.name(event, arm)
    message = str(event.get("message") or "")
    match event["event"]:
        case "started":
            again = f", {event['done']} done and {event['resumed']} in flight before"
            return f"{arm or 'study'}: {event['trials']} trials{again if event['done'] + event['resumed'] else ''}"
        case "told":
            values = event.get("values")
            words = tally.standing.words(values, event.get("broken", ()), best=best) if values else ""
            said = words or tally.why(name, event)
            return f"trial {name}: {said}  [{tally.done}/{tally.total}{_ahead(tally)}]"
        case "retry":
            more = f", with {event['memory']} MiB of memory" if event.get("memory") else ""
            return f"trial {name}: again after {event['verdict']}{more}: {message}"
        case "state" if event.get("stuck"):
            return _waits(name, f"{event['word']} {message}".rstrip())
        case "waiting" | "held" if not tally.is_news(event, arm):
            return ""
        case "waiting" | "held" | "trouble" | "changed" | "warm-start" | "stopping" | "enough":
            return f"{event['event']}: {message}"
        case "set-aside":
            return f"trial {name}: {message}"
        case "promoted":
            return f"trial {name}: goes on"
        case "suspect":
            return f"trial {name}: gone from the scheduler without a report; waiting for its files"
        case "draining":
            return "no new trials; those in flight finish (interrupt again to leave them running and end)"
        case "submitted" if verbose:
            return f"trial {name}: submitted as {event['job_id']}"
        case "asked" if verbose or event.get("slow"):
            params = ", ".join(f"{key}={_short(value)}" for key, value in event["params"].items())
            return f"trial {name}: {params}  ({event['seconds']:.2f} s to ask)"
        case "progress" if verbose and math.isfinite(event["value"]):
            return f"trial {name}: step {event['step']}: {event['value']:.6g}"
    return ""


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
