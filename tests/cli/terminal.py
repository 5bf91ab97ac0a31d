"""The ``survey`` command at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

from little_study import SURVEY, environment

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
QUESTION = "Start? [y/N] "


def on_a_terminal(folder: Path, *words: str, answer: str = "", **more: str) -> tuple[int, str, str]:
    """Run ``survey`` with a terminal for its messages; its exit code, its stdout, all that the terminal got.

    ``answer`` is typed when it asks whether to start.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(
        [*SURVEY, *words],
        cwd=folder,
        env=environment(**{"TERM": "xterm-256color", **more}),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no threads here; so that Ctrl-C is a signal
    ) as process:
        os.close(theirs)
        seen = b""
        # EIO is how Linux says that nobody has the terminal's other end any more.
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
            if answer and seen.endswith(QUESTION.encode()):
                os.write(ours, answer.encode())
        os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read()
    return process.returncode, out, seen.decode()
