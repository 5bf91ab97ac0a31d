"""The command line's driver in a process that kills itself at a crash point.

``python chaos_driver.py STEP WHEN OCCURRENCE run study.yaml``: what follows the point is for ``survey``.
"""

from __future__ import annotations

import os
import signal
import sys

import pytest
from chaos_crash import Gate, Point, closing, instrument

from orchestrator.cli.app import main
from orchestrator.transports.local import LocalTransport

if __name__ == "__main__":
    _, step, when, occurrence, *arguments = sys.argv
    instrument(pytest.MonkeyPatch(), LocalTransport)
    sys.argv = ["survey", *arguments]
    gate = Gate(Point(step, when, int(occurrence)), end=lambda: os.kill(os.getpid(), signal.SIGKILL))
    with closing(gate):
        main()
