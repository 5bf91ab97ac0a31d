"""Installs the servers that tests need from Debian, without letting the packages start anything."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["CannotProvide", "install"]

_POLICY = Path("/usr/sbin/policy-rc.d")
_FETCH = ("apt-get", "install", "-y", "-q", "--no-install-recommends")
_OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")


class CannotProvide(Exception):
    """This machine cannot have what the tests need, or must not; the message says why and what to do."""


def install(packages: Iterable[str], log: Path) -> None:
    """Install those of ``packages`` that are missing; what apt-get says is added to ``log``.

    Raises
    ------
    CannotProvide
        If this is no Debian-like machine, we are not root, or the packages cannot be had.
    """
    missing = [name for name in packages if not _installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise CannotProvide(f"the packages {', '.join(missing)} are missing, and only root can install them")
    with log.open("a") as output, _nothing_starts():
        for command in (["apt-get", "update", "-q"], [*_FETCH, *_OPTIONS, *missing]):
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                    timeout=900,
                    check=False,
                )
            except FileNotFoundError as error:
                raise CannotProvide("the system tests install packages with apt-get, which is not here") from error
            if done.returncode:
                raise CannotProvide(f"`{' '.join(command)}` failed: {log.read_text(errors='replace')[-500:]}")


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotProvide("the system tests need Debian or one of its kind: there is no dpkg-query here") from error
    return done.stdout.endswith("ok installed")


@contextlib.contextmanager
def _nothing_starts() -> Iterator[None]:
    """Forbid maintainer scripts to start daemons, as invoke-rc.d(8) describes; a policy that is there is kept."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(_POLICY.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    try:
        yield
    finally:
        _POLICY.unlink()
