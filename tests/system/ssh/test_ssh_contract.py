"""The contract of every transport, through a real sshd."""

from __future__ import annotations

import pytest
from transport_contract import TransportContract

pytestmark = pytest.mark.system


class TestSSH(TransportContract):
    """By OpenSSH and by paramiko (the fixture ``kind``)."""
