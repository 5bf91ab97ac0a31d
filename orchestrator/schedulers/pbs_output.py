"""What PBS prints of its jobs: ``qstat -f`` in its plain form and as JSON, to one set of attributes.

The plain form is what the adaptor asks for: every PBS prints it alike, while the JSON of deployed versions
is often none (numbers with leading zeros, bad escapes of the users' own environment variables).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["canonical", "jobs"]


def canonical(job_id: str) -> str:
    """Drop the server of an id: ``1234`` of ``1234.pbs01``, ``16[2]`` of ``16[2].pbs01``."""
    return job_id.partition(".")[0]


def jobs(text: str) -> dict[str, dict[str, str]] | None:
    """Attributes of each job by canonical id, or None where ``text`` is JSON that cannot be read.

    Names of resources are joined to their attribute by a dot (``Resource_List.walltime``). An attribute that is
    given twice with different values is left out: a user's environment variable may hold a line that looks like one.
    In JSON that goes for a whole job too.
    """
    if "{" in text and re.search(r"^Job Id: ", text, re.MULTILINE) is None:
        return _from_json(text)
    return _from_plain(text)


def _from_plain(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] = {}
    twice: set[str] = set()
    name = ""
    for line in text.splitlines():
        if line.startswith("Job Id: "):
            attributes, name, twice = {}, "", set()
            found[canonical(line.removeprefix("Job Id: ").strip())] = attributes
        elif line.startswith("\t"):
            # A long value goes on, cut anywhere.
            if name in attributes:
                attributes[name] += line[1:]
        elif match := re.match(r" {4}([A-Za-z]\S*) = ?(.*)$", line):
            name = match[1]
            if name in twice or attributes.get(name, match[2]) != match[2]:
                attributes.pop(name, None)
                twice.add(name)
                name = ""
            else:
                attributes[name] = match[2]
    return found


def _from_json(text: str) -> dict[str, dict[str, str]] | None:
    start, end = text.find("{"), text.rfind("}")
    document = text[start : end + 1]
    for candidate in (document, _mended(document)):
        try:
            # Control characters in a text are not fatal: strict=False.
            data = json.loads(candidate, strict=False, object_pairs_hook=_agreed)
        except ValueError:
            continue
        listed = data.get("Jobs", {}) if isinstance(data, dict) else None
        if not isinstance(listed, dict):
            return None
        return {canonical(job_id): dict(_flat(value)) for job_id, value in listed.items() if isinstance(value, dict)}
    return None


def _agreed(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out what is given twice with different values: nobody knows which of the two PBS meant."""
    found: dict[str, Any] = {}
    twice = {name for name, value in pairs if found.setdefault(name, value) != value}
    return {name: value for name, value in found.items() if name not in twice}


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"{}\[\]:,]+', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_WORD = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|true|false|null")


def _mended(document: str) -> str:
    r"""Repair what deployed versions are known to print: ``\'``, ``"foo":005``, and other words without quotes."""
    return _TOKEN.sub(_mended_token, document)


def _mended_token(match: re.Match[str]) -> str:
    token = match.group()
    if token.startswith('"'):
        return _ESCAPE.sub(lambda escape: escape.group() if escape[1] else r"\\", token)
    return token if _WORD.fullmatch(token) else f'"{token}"'


def _flat(attributes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
