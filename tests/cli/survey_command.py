"""Run the ``survey`` command in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from orchestrator.cli.app import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Survey: TypeAlias = Callable[..., Ran]


def command(capsys: pytest.CaptureFixture[str]) -> Survey:
    """Make a function that runs ``survey`` with the words it is given."""

    def run(*words: str) -> Ran:
        code = main(list(words))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
