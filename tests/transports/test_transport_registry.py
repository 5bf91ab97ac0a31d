"""From a site file to its transport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clock import SystemClock
from orchestrator.config.site import Site, load_site
from orchestrator.errors import ConfigError, UsageError
from orchestrator.transports.openssh import OpenSSHLink, control_path
from orchestrator.transports.registry import make_transport

REMOTE = {"kind": "openssh", "host": "there"}


def _site(**words: Any) -> Site:
    data = {"name": "there", "scheduler": "slurm", "work_root": "/work", "transport": REMOTE, **words}
    return Site.model_validate(data)


@pytest.mark.parametrize("kind", ["local", "openssh", "paramiko"])
async def test_each_kind_makes_its_transport_without_connecting(kind: str, clean_environment: Path) -> None:
    site = _site(transport={"kind": "local"} if kind == "local" else {**REMOTE, "kind": kind})
    transport = make_transport(site, SystemClock())
    assert transport.name == kind
    await transport.close()


def test_a_remote_site_must_say_where_studies_lie_and_which_python_runs_there() -> None:
    with pytest.raises(UsageError, match="where studies lie"):
        make_transport(_site(work_root=None), SystemClock())
    with pytest.raises(UsageError, match="the driver's own Python"):
        make_transport(_site(python=None), SystemClock())


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        ("{kind: openssh}", "needs a host"),
        ("{host: there}", "kind: local"),
        ("{kind: openssh, host: -oProxyCommand=id}", "host"),
        ("{kind: openssh, host: there, jump: ['a b']}", "jump"),
        ("{kind: paramiko, host: there, control_path: /tmp/x}", "control_path has no meaning"),
        ("{kind: openssh, host: there, accepted_host_keys: ['SHA256:short']}", "accepted_host_keys"),
        ("{kind: openssh, host: there, shell: 'sh; id'}", "shell"),
        ("{kind: openssh, host: there, python: python3 -x}", "python"),
        ("{kind: openssh, host: there, reconnect_interval: 5}", "15"),
    ],
)
def test_a_transport_that_cannot_be_is_refused_with_its_place(tmp_path: Path, transport: str, words: str) -> None:
    path = tmp_path / "there.yaml"
    path.write_text(f"name: there\nscheduler: slurm\ntransport: {transport}\n")
    with pytest.raises(ConfigError, match=words):
        load_site(str(path))


def test_each_way_to_a_host_has_a_socket_of_its_own_in_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp" if len(str(tmp_path)) > 40 else str(tmp_path))
    first, second = control_path(_site()), control_path(_site(transport={**REMOTE, "port": 2222}))
    assert first != second
    assert first == control_path(_site())
    folder = Path(first).parent
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_enter_holds_no_socket(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(UsageError, match="nobody else can enter"):
        OpenSSHLink(_site(transport={**REMOTE, "control_path": str(tmp_path / "open" / "s")}))
