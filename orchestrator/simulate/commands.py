"""What stands behind ``sbatch``, ``qstat`` and the others on PATH: hands its command line to the cluster's keeper.

``python commands.py STATE NAME WORD...``; the wrappers that `orchestrator.simulate.installed` writes
start it as a file of its own, with the standard library alone, so that a command takes milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import Any

__all__ = ["ask", "main"]

_SUBMIT = {"sbatch", "qsub", "pjsub"}


def ask(state: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """Ask the keeper; None if there is none."""
    home = os.open(".", os.O_RDONLY)
    try:
        # A socket's path has about a hundred characters; a relative one always fits.
        os.chdir(state)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.connect("socket")
            link.sendall(json.dumps(request).encode() + b"\n")
            content = b""
            while chunk := link.recv(1 << 16):
                content += chunk
        return dict(json.loads(content))
    except (OSError, ValueError):
        return None
    finally:
        os.fchdir(home)
        os.close(home)


def main(arguments: list[str]) -> int:
    """Run one command of the emulated scheduler."""
    state, name, *words = arguments
    wants_script = name in _SUBMIT and not any(os.path.isfile(word) for word in words) and not sys.stdin.isatty()
    request = {
        "name": name,
        "words": words,
        "stdin": sys.stdin.read() if wants_script else "",
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    reply = ask(state, request)
    if reply is None:
        with open(os.path.join(state, "down.json"), encoding="utf-8") as stream:
            reply = json.load(stream).get(name) or {"returncode": 1, "stderr": f"{name}: no server\n"}
    assert reply is not None
    if reply["returncode"] is None:
        while True:
            signal.pause()
    time.sleep(reply.get("delay") or 0.0)
    sys.stdout.write(reply.get("stdout") or "")
    sys.stderr.write(reply.get("stderr") or "")
    return int(reply["returncode"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
