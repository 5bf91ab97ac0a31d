"""The look at a site over a connection: what reaches it, what does not, and how little it costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from looks import emulated, look, of, said
from loopback import Loopback, loopback_transport

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site
from orchestrator.doctor.findings import Level, exit_code
from orchestrator.simulate.flavours import flavour
from orchestrator.transports.remote import RemoteTransport
from orchestrator.transports.trouble import LoginNeeded, Unreachable


def far(tmp_path: Path, **changes: Any) -> Site:
    return flavour("slurm").site(
        **{
            "command_timeout": 10.0,
            "python": sys.executable,
            "work_root": str(tmp_path / "work of {user}"),
            "transport": {"kind": "openssh", "host": "there"},
            **changes,
        }
    )


async def test_a_far_site_is_looked_at_in_three_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = loopback_transport(Loopback(noise="echo Welcome; "))
    with emulated(tmp_path, monkeypatch, "slurm"):
        check = await look(far(tmp_path), tmp_path, transport=transport, clock=SystemClock())
    assert exit_code(check.findings) == 0, check.findings
    assert transport.requests == 3
    assert said(check.findings, "connection").startswith(f"OK {check.names['user']} on ")
    assert f"work of {check.names['user']}" in said(check.findings, "work root")
    assert set(os.listdir(tmp_path)) == {"cluster"}


async def test_a_site_that_cannot_be_reached_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    link = Loopback()
    link.failures = [Unreachable("site there: no connection to there: timed out", hint="Look at the VPN.")]
    check = await look(far(tmp_path), tmp_path, transport=loopback_transport(link))
    assert said(check.findings, "connection") == (
        "ERROR site there: no connection to there: timed out -> Look at the VPN."
    )
    assert exit_code(check.findings) == 4
    assert link.connections == 1


async def test_a_login_that_a_person_must_make_is_asked_for_once(tmp_path: Path) -> None:
    link = Loopback()
    link.failures = [LoginNeeded("nobody is let in", hint="Type: survey login --site there")]
    check = await look(far(tmp_path), tmp_path, transport=loopback_transport(link))
    assert "survey login --site there" in said(check.findings, "connection")
    assert link.connections == 1


async def test_a_login_node_without_python_is_an_error_with_the_key_to_set(tmp_path: Path) -> None:
    transport = RemoteTransport(Loopback(), SystemClock(), name="loopback", site="there", python="python9")
    check = await look(far(tmp_path), tmp_path, transport=transport)
    assert of(check.findings, "connection")[0].level is Level.ERROR
    assert "no python9 that is Python 3.6 or newer" in said(check.findings, "connection")
    assert "`transport: python:`" in said(check.findings, "connection")


async def test_a_far_site_whose_file_names_no_work_root_says_so(tmp_path: Path) -> None:
    check = await look(far(tmp_path, work_root=None), tmp_path)
    assert "does not say where studies lie there" in said(check.findings, "connection")


async def test_a_connection_that_is_cut_while_it_is_asked_is_no_verdict_on_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Loopback()
    transport = loopback_transport(link)
    await transport.open()
    link.cut_stdin = 100
    link.failures = [None, *[Unreachable("gone")] * 9]
    check = await look(far(tmp_path), tmp_path, transport=transport)
    assert exit_code(check.findings) == 4
    assert of(check.findings, "connection")[-1].level is Level.ERROR
    assert not of(check.findings, "commands")
