"""What stops a study in its middle until a person has acted, and how it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from login_place import Place
from otp_server import PASSWORD, Serving, serve
from ssh_study import SECOND_WAY_SLOW, FarStudy, MakeStudy, until
from ssh_terminal import at_a_terminal

from orchestrator.store.record import StudyRecord
from orchestrator.studies.reader import read_study
from orchestrator.transports.openssh import OpenSSHLink
from orchestrator.transports.trouble import HostKeyRefused, LoginNeeded, SiteUnusable

pytestmark = pytest.mark.system

SURVEY = [sys.executable, "-m", "orchestrator.cli.app"]


@contextlib.asynccontextmanager
async def driving(study: FarStudy, **keys: Any) -> AsyncIterator[asyncio.Task[StudyRecord]]:
    """A driver whose first job has begun."""
    driver = asyncio.create_task(study.drive(**keys))
    try:
        await until(lambda: driver.done() or bool(study.executions()), "the first job")
        yield driver
    finally:
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)


@pytest.fixture
async def otp_study(
    place: Place, kind: str, tmp_path: Path, emulated_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FarStudy, Serving]]:
    """A study on a site that asks for a one-time password."""
    monkeypatch.setenv("PATH", emulated_environment["PATH"])  # the server runs commands as this process does
    async with serve() as server:
        place.know(server.known_hosts_line)
        transport = {
            "kind": kind,
            "host": "127.0.0.1",
            "port": server.port,
            "user": "root",
            "config_file": str(place.config),
            **({"control_path": str(place.socket)} if kind == "openssh" else {}),
        }
        study = FarStudy(tmp_path, transport, trials=4, parallel=2, seconds="0.5")
        yield study, server
        study.close()
        if kind == "openssh":
            await OpenSSHLink(study.profile).drop()


def log_in(study: FarStudy) -> Sequence[str]:
    return [*SURVEY, "login", "--site", str(study.site)]


@pytest.mark.parametrize("kind", ["openssh"], indirect=True)
async def test_a_study_waits_for_a_login_says_once_what_to_type_and_goes_on_by_itself(
    otp_study: tuple[FarStudy, Serving],
) -> None:
    study, server = otp_study
    code, shown = await at_a_terminal(log_in(study), {"One-time password: ": PASSWORD})
    assert code == 0, shown
    folder = study.root / "runs" / "toy"
    async with driving(study) as driver:
        await server.cut()
        server.begun.clear()
        await until(lambda: driver.done() or read_study(folder).state == "paused", "the pause")
        assert "Type: survey login --site tests" in read_study(folder).message
        await asyncio.sleep(2)
        assert len(server.begun) == 1, "nobody tries to log in while a person is waited for"
        assert not driver.done()
        code, shown = await at_a_terminal(log_in(study), {"One-time password: ": PASSWORD})
        assert code == 0, shown
        record = await driver
    assert (record.state, record.message) == ("done", "")
    study.assert_each_trial_ran_once(4)
    assert len(server.answered) == 2
    assert len([words for words in study.said_so_far if "survey login" in words]) == 1


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_where_nobody_can_be_asked_again_the_study_pauses_and_is_resumed(
    otp_study: tuple[FarStudy, Serving],
) -> None:
    study, server = otp_study

    def ask(title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        return [PASSWORD for _ in prompts]

    async with driving(study, ask=ask) as driver:
        await server.cut()
        with pytest.raises(LoginNeeded) as needed:
            await driver
    assert needed.value.exit_code == 4
    assert read_study(study.root / "runs" / "toy").state == "paused"
    assert (await study.drive(ask=ask)).state == "done"
    study.assert_each_trial_ran_once(4)
    assert len(server.answered) == 2


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_a_study_asks_at_its_terminal_for_the_password_and_does_not_show_it(
    otp_study: tuple[FarStudy, Serving],
) -> None:
    study, server = otp_study
    argv = [*SURVEY, "run", str(study.study), "--site", str(study.site), "--yes"]
    code, shown = await at_a_terminal(argv, {"One-time password: ": PASSWORD}, cwd=study.root)
    assert code == 0, shown
    assert "Two factors" in shown
    assert PASSWORD not in shown
    assert len(server.answered) == 1
    study.assert_each_trial_ran_once(4)
    for path in (study.root / "runs").rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_a_wrong_password_at_the_terminal_pauses_the_study_and_is_not_asked_for_again(
    otp_study: tuple[FarStudy, Serving],
) -> None:
    study, server = otp_study
    argv = [*SURVEY, "run", str(study.study), "--site", str(study.site), "--yes"]
    code, shown = await at_a_terminal(argv, {"One-time password: ": "000000"}, cwd=study.root)
    assert code == 4, shown
    assert len(server.answered) == 1
    assert not study.executions()


async def test_a_host_key_that_changes_in_mid_study_stops_it_and_nothing_is_lost(
    make_study: MakeStudy, place: Place, emulated_environment: dict[str, str]
) -> None:
    study, node = make_study(emulated_environment, trials=6, parallel=2, seconds="0.5")
    async with driving(study) as driver:
        node.sshd.stop()
        node.sshd.change_host_key()
        node.sshd.start()
        with pytest.raises(HostKeyRefused, match="another one than before") as refused:
            await driver
    assert refused.value.exit_code == 4
    assert node.sshd.fingerprint in refused.value.message
    before = node.execs
    with pytest.raises(HostKeyRefused):
        await study.drive()
    assert node.execs == before
    place.know(node.sshd.known_hosts_line)
    assert (await study.drive()).state == "done"
    study.assert_each_trial_ran_once(6)


# A disk that is full as long as a file says so, to the Python that serves requests.
_FULL = """#!/bin/sh
exec {python} "$1" "$2" "$3" "import errno, os; real = os.rename
def rename(a, b):
    if os.path.exists('{flag}') and b'trials' in b: raise OSError(errno.ENOSPC, 'No space left on device', b)
    real(a, b)
os.rename = rename; $4"
"""


@pytest.mark.parametrize("when", ["before the first trial", "in mid-study"])
@SECOND_WAY_SLOW
async def test_a_disk_that_is_full_there_pauses_the_study_and_room_lets_it_go_on(
    make_study: MakeStudy, emulated_environment: dict[str, str], tmp_path: Path, when: str
) -> None:
    flag, python = tmp_path / "full", tmp_path / "python"
    python.write_text(_FULL.format(flag=flag, python=sys.executable))
    python.chmod(0o755)
    study, _ = make_study(emulated_environment, trials=4, parallel=2, seconds="0.3", transport={"python": str(python)})
    if when == "in mid-study":
        async with driving(study) as driver:
            flag.touch()
            with pytest.raises(SiteUnusable) as full:
                await driver
    else:
        flag.touch()
        with pytest.raises(SiteUnusable) as full:
            await study.drive()
        assert not study.events.exists()
    assert full.value.exit_code == 4
    assert "no space left" in full.value.message
    assert "Make room there" in full.value.hint
    assert read_study(study.root / "runs" / "toy").state == "paused"
    flag.unlink()
    assert (await study.drive()).state == "done"
    study.assert_each_trial_ran_once(4)


class Alias:
    """One port behind which another server answers each time."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
        self._writers += [writer, far_writer]
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(1 << 16):
                target.write(piece)
                await target.drain()
        target.close()


@pytest.mark.parametrize("both_known", [True, False])
@SECOND_WAY_SLOW
async def test_another_login_node_behind_the_same_alias_serves_as_well_if_its_key_is_known(
    make_study: MakeStudy, place: Place, kind: str, emulated_environment: dict[str, str], both_known: bool
) -> None:
    _, other = make_study(emulated_environment, trials=1)
    study, node = make_study(emulated_environment, trials=6, parallel=2, seconds="0.5")
    alias = Alias([node.sshd.port, other.sshd.port])
    port = await alias.start()
    nodes = (node, other) if both_known else (node,)
    place.know(*(f"[127.0.0.1]:{port} {' '.join(each.sshd.host_public.split()[:2])}\n" for each in nodes))
    study.site.write_text(study.site.read_text().replace(f"port: {node.sshd.port}", f"port: {port}"))
    try:
        async with driving(study) as driver:
            node.sshd.cut()
            if both_known:
                assert (await driver).state == "done"
                study.assert_each_trial_ran_once(6)
                assert (node.execs > 0, other.execs > 0) == (True, True)
            else:
                with pytest.raises(HostKeyRefused) as refused:
                    await driver
                assert other.execs == 0
                # ssh is asked a second time for the fingerprint, and meets the known node then.
                assert (other.sshd.fingerprint in refused.value.message) == (kind == "paramiko")
    finally:
        for transport in study.transports:
            if isinstance(transport._link, OpenSSHLink):
                await transport._link.drop()
        await alias.stop()
