"""How a request and its reply travel through a shell that may print anything before, between and after.

The command line is the same for every request and holds nothing of it: a login shell, be it csh, fish
or bash, sees one quoted word without a character that any of them touches. All else goes through
stdin::

    <length>                   of the source of far_end.py, which follows
    <source>
    <length> <sha256>          of the request, which follows
    <request>                  a line of JSON, then bytes

and the reply comes back framed by a marker that is random and new for each request; whatever stands
around it is ignored.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NO_PYTHON", "TOO_OLD", "Reply", "Request", "agent_source", "command_line", "parse_reply"]

NO_PYTHON = "survey: no python"
TOO_OLD = 69  # EX_UNAVAILABLE of sysexits.h
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, ready to be sent."""

    marker: str
    stdin: bytes

    @classmethod
    def make(cls, verb: str, order: Mapping[str, Any], body: bytes = b"") -> Request:
        """Pack ``order`` and ``body`` for the function ``verb`` of `orchestrator.transports.far_end`."""
        marker = f"survey-{secrets.token_hex(16)}"
        content = json.dumps({**order, "verb": verb, "marker": marker}).encode() + b"\n" + body
        program = _source("far_end.py")
        digest = hashlib.sha256(content).hexdigest()
        stdin = b"%d\n%s%d %s\n%s" % (len(program), program, len(content), digest.encode(), content)
        return cls(marker=marker, stdin=stdin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the site's side answered."""

    data: Mapping[str, Any]
    body: bytes = b""


def command_line(shell: str, python: str) -> str:
    """Command line that serves one request on the site's side.

    ``shell`` (``/bin/sh``, ``/bin/bash -l``) and ``python`` are plain words: the site file's rules see to it.
    """
    serve = f"import sys; sys.version_info >= (3, 6) or sys.exit({TOO_OLD}); f = sys.stdin.buffer; exec(f.read(int(f.readline())))"
    found = f"command -v {python} >/dev/null 2>&1 || {{ echo {NO_PYTHON} >&2; exit 127; }}"
    return f"exec {shell} -c '{found}; exec {python} -I -S -c \"{serve}\"'"


def parse_reply(output: bytes, marker: str) -> Reply | None:
    """Find the reply in what a shell printed; None if it is not there whole."""
    mark = marker.encode()
    _, found, rest = output.partition(b"\n" + mark + b" ")
    head, newline, rest = rest.partition(b"\n")
    try:
        length, digest = head.split()
        content = rest[: int(length)]
    except ValueError:
        return None
    if not (found and newline) or hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    line, _, body = content.partition(b"\n")
    data = json.loads(line)
    return Reply(data=data, body=body)


@functools.cache
def _source(name: str) -> bytes:
    return (_HERE / name).read_bytes()


@functools.cache
def agent_source() -> bytes:
    """The agent, for requests that need it."""
    return (_HERE.parent / "agent.py").read_bytes()
