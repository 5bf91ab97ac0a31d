"""Installs PostgreSQL and MariaDB from Debian, without letting the packages start anything."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CannotProvide", "install"]

_POLICY = Path("/usr/sbin/policy-rc.d")


class CannotProvide(Exception):
    """This machine cannot have the server; the message says why."""


def install(package: str, log: Path) -> None:
    """Install ``package`` if it is missing.

    Raises
    ------
    CannotProvide
        If this is no Debian-like machine, we are not root, or the package cannot be had.
    """
    try:
        query = ["dpkg-query", "-W", "-f", "${Status}", package]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotProvide("the system tests need Debian or one of its kind: there is no dpkg-query here") from error
    if done.stdout.endswith("ok installed"):
        return
    if os.geteuid() != 0:
        raise CannotProvide(f"the package {package} is missing, and only root can install it")
    fetch = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", package]
    with log.open("a") as output, _nothing_starts():
        for command in (["apt-get", "update", "-q"], fetch):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                timeout=900,
                check=False,
            )
            if done.returncode:
                raise CannotProvide(f"`{' '.join(command)}` failed; see {log}")


@contextlib.contextmanager
def _nothing_starts() -> Iterator[None]:
    """Forbid maintainer scripts to start daemons, as invoke-rc.d(8) describes; a policy that is there is kept."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
