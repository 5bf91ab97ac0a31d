"""Looks of the doctor, for tests: at an emulated cluster's site, by subject and level."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clock import Clock, SystemClock
from orchestrator.config.site import BatchOptions, Site
from orchestrator.doctor.findings import Finding, Level
from orchestrator.doctor.site import SiteCheck
from orchestrator.simulate.faults import Fault
from orchestrator.simulate.flavours import flavour
from orchestrator.simulate.installed import InstalledCluster, install
from orchestrator.transports.base import Transport

__all__ = ["bad", "emulated", "look", "of", "said"]


def emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, faults: Sequence[Fault] = (), **rules: Any
) -> InstalledCluster:
    """An emulated cluster whose commands come first on PATH; its context starts and ends it."""
    made = flavour(kind).make_rules(**rules)
    cluster = install(tmp_path / "cluster", kind=kind, rules=made, faults=faults, delay_factor=0.0)
    # Schedulers leave their jobs' output where they were called: not in the checkout.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{cluster.bin}{os.pathsep}{os.environ['PATH']}")
    return cluster


async def look(
    site: Site,
    root: Path,
    *,
    transport: Transport | None = None,
    clock: Clock | None = None,
    record: bool = False,
) -> SiteCheck:
    """Look at a site without a probe."""
    check = SiteCheck(
        site=site, root=root, batch=BatchOptions(), clock=clock or SystemClock(), transport=transport, record=record
    )
    await check.run()
    return check


def of(findings: Sequence[Finding], subject: str) -> list[Finding]:
    """The findings about ``subject``."""
    return [finding for finding in findings if finding.subject == subject]


def said(findings: Sequence[Finding], subject: str) -> str:
    """All that was said of ``subject``, levels and hints too."""
    return "\n".join(f"{line.level} {line.text} -> {line.hint}" for line in of(findings, subject))


def bad(findings: Sequence[Finding]) -> dict[str, Level]:
    """The subjects that are not well, each with its worst level."""
    worst: dict[str, Level] = {}
    for finding in findings:
        if finding.level is Level.ERROR or (finding.level is Level.WARN and finding.subject not in worst):
            worst[finding.subject] = finding.level
    return worst
