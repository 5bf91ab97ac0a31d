"""Installs Slurm, munge and MariaDB from Debian, without letting the packages start anything."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CannotProvide", "install"]

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client", "slurmdbd", "mariadb-server")

_POLICY = Path("/usr/sbin/policy-rc.d")


class CannotProvide(Exception):
    """This machine cannot have the cluster, or must not; the message says why and what to do."""


def install(log: Path) -> None:
    """Install what is missing.

    Raises
    ------
    CannotProvide
        If this is no Debian-like machine, we are not root, or the packages cannot be had.
    """
    missing = [name for name in PACKAGES if not _installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise CannotProvide(f"the packages {', '.join(missing)} are missing, and only root can install them")
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold"]
    fetch = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *options, *missing]
    with log.open("a") as output, _nothing_starts():
        for command in (["apt-get", "update", "-q"], fetch):
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
                raise CannotProvide(f"`{' '.join(command)}` failed; see {log}")


def _installed(package: str) -> bool:
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True, check=False
        )
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
