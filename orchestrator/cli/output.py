"""Where a verb's words go: data to stdout, messages to stderr, colour only where it is welcome."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import typer

from orchestrator.errors import ConfigError, SurveyError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "JSON_VERSION",
    "State",
    "console",
    "emit_json",
    "error",
    "message",
    "print_table",
    "set_state",
    "state",
    "wants_color",
]

JSON_VERSION = 1
_NARROWEST = 20  # characters below which folded words are harder to read than cut lines


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the options before the verb say.

    Attributes
    ----------
    verbosity : int
        -1 with ``-q``, 0, or the number of ``-v``.
    color : bool or None
        What the command line says of colour; None: the environment and the terminal decide.
    """

    verbosity: int = 0
    color: bool | None = None
    debug: bool = False


_current = [State()]


def state() -> State:
    """Return the options before the verb."""
    return _current[0]


def set_state(new: State) -> None:
    """Set them: the app does that once, before the verb runs."""
    _current[0] = new


def wants_color(stream: TextIO) -> bool:
    """Whether ``stream`` gets colour: by the option, then FORCE_COLOR, then NO_COLOR, then as a terminal."""
    if (chosen := state().color) is not None:
        return chosen
    if os.environ.get("FORCE_COLOR", "") not in {"", "0"}:
        return True
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def console() -> Console:
    """Rich's console on stderr; it moves nothing but on a terminal, colour or not."""
    from rich.console import Console

    class Messages(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end the program here, and stdout with it: whoever prints decides.
            raise  # noqa: PLE0704  called while the error is handled

    color = wants_color(sys.stderr)
    return Messages(
        stderr=True,
        no_color=not color,
        color_system="auto" if sys.stderr.isatty() or not color else "standard",
        force_terminal=sys.stderr.isatty(),
        quiet=state().verbosity < 0,
        highlight=False,
    )


def message(text: str, *, verbosity: int = 0) -> None:
    """Print a line for people on stderr; ``verbosity`` 1 is shown with ``-v`` only, 0 unless ``-q``."""
    if state().verbosity >= verbosity:
        typer.echo(text, err=True)


def error(failure: SurveyError) -> None:
    """Print an error and what to do about it, on stderr, also with ``-q``."""
    text = failure.message
    # A mistake in a file starts with its place, which editors and terminals turn into a link.
    if not isinstance(failure, ConfigError):
        text = f"{_styled('Error:', sys.stderr, fg=typer.colors.RED, bold=True)} {text}"
    typer.echo(text, err=True, color=True)
    if failure.hint:
        typer.echo(f"  {failure.hint}", err=True)


def _styled(text: str, stream: TextIO, **style: Any) -> str:
    return typer.style(text, **style) if wants_color(stream) else text


def _strict(value: Any) -> Any:
    """Make plain JSON of ``value``: numbers that JSON has no word for become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strict(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def emit_json(data: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout, with ``schema_version`` first."""
    document = {"schema_version": JSON_VERSION, **_strict(data)}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, fold: bool = False) -> None:
    """Write aligned columns to stdout; they are never cut, wherever stdout goes.

    Parameters
    ----------
    fold : bool
        Whether the last column, of words for people, goes on in a further line where a terminal is too narrow.
    """
    from rich.cells import cell_len

    widths = [max(cell_len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    typer.echo(_styled(line(header), sys.stdout, bold=True), color=True)
    left = sum(width + 2 for width in widths[:-1])
    room = shutil.get_terminal_size().columns - left if fold and sys.stdout.isatty() else 0
    for row in rows:
        words = textwrap.wrap(row[-1], room) if room >= _NARROWEST else [row[-1]]
        for number, part in enumerate(words or [""]):
            typer.echo(line((*(row[:-1] if not number else [""] * (len(row) - 1)), part)))
