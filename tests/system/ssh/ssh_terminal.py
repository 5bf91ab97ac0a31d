"""A terminal of its own for a program, with somebody at it who answers questions."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["at_a_terminal"]


async def at_a_terminal(argv: Sequence[str], answers: Mapping[str, str], *, cwd: Path | None = None) -> tuple[int, str]:
    """Run ``argv`` at a terminal where each question that holds a key of ``answers`` gets that answer.

    Returns
    -------
    code : int
        The exit code.
    shown : str
        All that the terminal showed.
    """
    driver, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", "--wait", *argv), stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd
    )
    os.close(terminal)
    shown = b""

    def read() -> bytes:
        try:
            return os.read(driver, 1000)
        except OSError:  # the terminal's last user has gone
            return b""

    given = dict.fromkeys(answers, 0)
    while piece := await asyncio.to_thread(read):
        shown += piece
        for question, answer in answers.items():
            if shown.count(question.encode()) > given[question]:
                given[question] += 1
                os.write(driver, answer.encode() + b"\n")
    code = await process.wait()
    os.close(driver)
    return code, shown.decode()
