"""One sshd for all tests of this folder; each test starts with it running and its own host key known."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from debian_packages import CannotProvide
from jumping_clock import JumpingClock
from login_place import Place
from ssh_server import Sshd, make_key, provide

from orchestrator.config.site import Site
from orchestrator.simulate.installed import InstalledCluster, install
from orchestrator.transports.openssh import OpenSSHLink
from orchestrator.transports.registry import make_transport
from orchestrator.transports.remote import RemoteTransport

if TYPE_CHECKING:
    from login_node import LoginNode
    from ssh_study import FarStudy, MakeStudy
    from survey_command import Ran

_TESTS = Path(__file__).resolve().parents[2]
# The contract lives with the other transports, the study that counts its own executions with Slurm.
sys.path[:0] = [str(_TESTS / "transports"), str(_TESTS / "system" / "slurm"), str(_TESTS / "cli")]


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Path]]:
    try:
        folder = tmp_path_factory.mktemp("sshd")
        provide(folder / "apt.log")
        server = Sshd(folder / "server", make_key(folder / "user_key"))
        server.start()
    except CannotProvide as error:
        pytest.fail(f"no sshd to test with: {error}", pytrace=False)
    yield server, folder / "user_key"
    server.stop()


@pytest.fixture
def place(own_server: tuple[Sshd, Path], tmp_path: Path) -> Iterator[Place]:
    server, key = own_server
    found = Place(server, key, tmp_path / "ssh_config", tmp_path / "known_hosts", tmp_path / "m" / "s")
    found.configure()
    found.know(server.known_hosts_line)
    yield found
    for socket in found.socket.parent.glob("*"):
        end = ["ssh", "-F", str(found.config), "-S", str(socket), "-O", "exit", "127.0.0.1"]
        subprocess.run(end, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the site, which is this machine."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture(params=["openssh", "paramiko"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_site(place: Place, kind: str) -> Callable[..., Site]:
    """Make a site of the kind in turn; words given replace its transport's."""

    def make(**words: Any) -> Site:
        transport = {
            "kind": kind,
            "host": "127.0.0.1",
            "port": place.server.port,
            "user": "root",
            "identity_file": str(place.key),
            "config_file": str(place.config),
            **({"control_path": str(place.socket)} if kind == "openssh" else {}),
            **words,
        }
        return Site.model_validate(
            {"name": "there", "scheduler": "local", "work_root": "/tmp/work", "transport": transport}
        )

    return make


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
async def open_transport(clock: JumpingClock) -> AsyncIterator[Callable[[Site], RemoteTransport]]:
    """Make transports that are closed, and their masters ended, after the test."""
    made: list[RemoteTransport] = []

    def make(site: Site) -> RemoteTransport:
        transport = make_transport(site, clock)
        assert isinstance(transport, RemoteTransport)
        made.append(transport)
        return transport

    yield make
    for transport in made:
        if isinstance(transport._link, OpenSSHLink):
            await transport._link.drop()
        await transport.close()


@pytest.fixture
def transport(make_site: Callable[..., Site], open_transport: Callable[[Site], RemoteTransport]) -> RemoteTransport:
    return open_transport(make_site())


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[InstalledCluster]:
    """An emulated Slurm's commands, for sessions of a login node."""
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="survey-") as short, install(Path(short), kind="slurm") as cluster:
        yield cluster


@pytest.fixture
def make_study(place: Place, kind: str, tmp_path: Path) -> Iterator[MakeStudy]:
    """Make a study behind a login node whose sessions see ``environment``; ``transport`` changes its site's."""
    from login_node import LoginNode
    from ssh_study import FarStudy

    made: list[tuple[FarStudy, LoginNode]] = []

    def make(environment: Mapping[str, str], **keys: Any) -> tuple[FarStudy, LoginNode]:
        root = tmp_path / f"study-{len(made)}"
        root.mkdir()
        node = LoginNode(root / "node", place.key.with_suffix(".pub").read_text(), environment)
        node.sshd.start()
        place.know(*(each.sshd.known_hosts_line for _, each in made), node.sshd.known_hosts_line)
        transport = {
            "kind": kind,
            "host": "127.0.0.1",
            "port": node.sshd.port,
            "user": "root",
            "identity_file": str(place.key),
            "config_file": str(place.config),
            "shell": str(node.shell),
            "python": sys.executable,
            **({"control_path": str(place.socket)} if kind == "openssh" else {}),
            **keys.pop("transport", {}),
        }
        study = FarStudy(root, transport, **keys)
        made.append((study, node))
        return made[-1]

    yield make
    for study, node in made:
        study.close()
        node.sshd.stop()


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a verb of ``survey``, in the folder of the study that comes before its words."""
    from survey_command import command

    verb = command(capsys)

    def run(study: FarStudy, *words: str) -> Ran:
        monkeypatch.chdir(study.root)
        return verb(*words)

    return run


@pytest.fixture
def emulated_environment(emulated: InstalledCluster) -> dict[str, str]:
    """What sessions of a login node see of the emulated Slurm."""
    return {"PATH": f"{emulated.bin}:{os.environ['PATH']}"}
