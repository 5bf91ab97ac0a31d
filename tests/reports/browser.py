"""A headless Chromium for the tests that open a report as a reader does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser for tests has nobody to report to and nothing to fetch.
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def chromium() -> str:
    """Path of a Chromium; where there is none and we are root, apt-get installs one.

    Raises
    ------
    RuntimeError
        If there is none and it cannot be installed.
    """
    found = _find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-500:]}")
        found = _find()
    if found is None:
        raise RuntimeError(f"none of {', '.join(NAMES)} is on PATH, and this user cannot install one")
    return found


def dump_dom(page: Path, *, options: tuple[str, ...] = ()) -> str:
    """Open ``page``, let its scripts run for ten virtual seconds, and return the document as HTML."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            chromium(), *QUIET, *options, f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom",
            page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout


def _find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)
