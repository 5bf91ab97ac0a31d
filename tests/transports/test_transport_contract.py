"""The contract of every transport: on this machine, and through shells without a server between."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from loopback import Loopback, loopback_transport
from transport_contract import TransportContract

from orchestrator.transports.base import Transport
from orchestrator.transports.local import LocalTransport

NOISE = "echo Welcome; echo 'quota: 93 %' 1>&2; "
SHELLS = [shell for shell in ("/bin/sh", "/bin/bash", "/bin/csh") if shutil.which(shell)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


class TestLocal(TransportContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return LocalTransport()


@pytest.mark.parametrize("shell", SHELLS)
class TestThroughAShell(TransportContract):
    @pytest.fixture
    def transport(self, shell: str) -> Transport:
        noise = "" if shell.endswith("csh") else NOISE  # csh cannot redirect stderr alone
        return loopback_transport(Loopback(shell, noise))
