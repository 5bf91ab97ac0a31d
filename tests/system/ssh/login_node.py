"""A login node for tests: an sshd whose sessions see a scheduler's commands, and that can cut each kind of request."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssh_server import Sshd

__all__ = ["Cut", "LoginNode"]

Cut = tuple[str, int, str]
"""What is cut (a verb, or ``submit``), which one of its kind, and when: before, during, after, half."""

# Stands in for the login node's shell. The whole request is on stdin: its verb tells what it is.
_SHELL = """#!{python} -IS
import json, os, signal, subprocess, sys
here = {here!r}
request = sys.stdin.buffer.read()
head = request.partition(b"\\n")
line = head[2][int(head[0] or 0):].partition(b"\\n")[2].partition(b"\\n")[0]
order = json.loads(line or b"{{}}")
kind = "submit" if order.get("files") and "argv" in order else order.get("verb", "torn")
number = 1
while True:
    try:
        os.mkdir(os.path.join(here, "%s-%d" % (kind, number)))
        break
    except FileExistsError:
        number += 1
with open(os.path.join(here, "cuts.json")) as stream:
    when = {{(k, n): w for k, n, w in json.load(stream)}}.get((kind, number))

def cut():
    os.kill(os.getppid(), signal.SIGKILL)

if when == "before":
    cut()
    sys.exit(1)
child = subprocess.Popen(["/bin/sh", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
if when == "during":
    cut()
out, err = child.communicate(request)
if when == "after":
    cut()
if when == "half":
    out = out[:len(out) // 2]
try:
    os.write(2, err)
    while out:
        out = out[os.write(1, out):]
except OSError:
    pass
if when == "half":
    cut()
sys.exit(child.returncode)
"""


class LoginNode:
    """An sshd of its own with an environment for its sessions.

    Parameters
    ----------
    authorized : str
        The public key that is let in.
    environment : mapping
        What sessions see.
    """

    def __init__(self, folder: Path, authorized: str, environment: Mapping[str, str]) -> None:
        variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
        self.sshd = Sshd(folder, authorized, extra=[f"SetEnv {variables}", "MaxSessions 20"] if variables else [])
        self._cuts = folder / "requests"
        self._cuts.mkdir()
        self.shell = folder / "shell"
        self.shell.write_text(_SHELL.format(python=sys.executable, here=str(self._cuts)))
        self.shell.chmod(0o755)
        self.cut_at()

    def cut_at(self, *cuts: Cut) -> None:
        """Cut the connection at these requests from now on."""
        (self._cuts / "cuts.json").write_text(json.dumps(cuts))

    def requests(self, kind: str) -> int:
        """How many requests of a kind came through the shell that cuts."""
        return sum(name.rpartition("-")[0] == kind for name in os.listdir(self._cuts))

    def have_come(self, cuts: Sequence[Cut]) -> bool:
        """Whether all these requests have been made."""
        return all(self.requests(kind) >= number for kind, number, _ in cuts)

    @property
    def execs(self) -> int:
        """How many commands the server was asked to run, by its own log."""
        return (self.sshd.folder / "log").read_text().count("Starting session: command")

    @property
    def logins(self) -> int:
        """How many connections were let in, by the server's own log."""
        return (self.sshd.folder / "log").read_text().count("Accepted publickey")
