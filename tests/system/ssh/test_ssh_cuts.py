"""The connection is cut before, in the middle of, and after whatever can be asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from jumping_clock import JumpingClock
from login_place import Place

from orchestrator.config.site import Site
from orchestrator.transports import remote
from orchestrator.transports.base import Command
from orchestrator.transports.remote import Exchange, RemoteTransport

pytestmark = pytest.mark.system

Make = Callable[..., Site]
Open = Callable[[Site], RemoteTransport]

# The server of our session is the parent of the parent of the command: the far end's Python came by exec.
_CUT = "kill -9 $(ps -o ppid= -p $PPID)"


def shell_that(folder: Path, deed: str) -> str:
    """Make a shell that does ``deed`` the first time it is used, with the server's pid as $PPID."""
    path = folder / "shell"
    path.write_text(f'#!/bin/sh\nif mkdir {folder}/done 2>/dev/null; then {deed}; fi\nexec /bin/sh "$@"\n')
    path.chmod(0o755)
    return str(path)


async def test_what_comes_after_a_cut_goes_over_a_new_connection_not_too_soon(
    place: Place, transport: RemoteTransport, folder: Path, clock: JumpingClock
) -> None:
    await transport.put({str(folder / "a"): b"1"})
    place.server.cut()
    await transport.put({str(folder / "a"): b"2"})
    assert (folder / "a").read_bytes() == b"2"
    assert clock.slept == [15.0]


async def test_a_submit_that_is_cut_in_its_middle_is_unknown_and_runs_once(
    transport: RemoteTransport, folder: Path
) -> None:
    done = await transport.run(Command(argv=("sh", "-c", f"echo submitted >> {folder}/log; {_CUT}")))
    assert done.returncode is None
    assert (folder / "log").read_text() == "submitted\n"
    assert (await transport.run(Command(argv=("echo", "back")))).stdout == "back\n"
    assert (folder / "log").read_text() == "submitted\n"


async def test_a_submit_that_was_cut_off_still_comes_to_its_end_there(transport: RemoteTransport, folder: Path) -> None:
    os.mkfifo(folder / "end")
    done = await transport.run(Command(argv=("sh", "-c", f"{_CUT}; echo 7 > {folder}/end")))
    assert done.returncode is None
    assert (folder / "end").read_text() == "7\n"


async def test_a_cut_before_the_request_has_arrived_leaves_a_submit_undone(
    make_site: Make, open_transport: Open, folder: Path
) -> None:
    transport = open_transport(make_site(shell=shell_that(folder, "kill -9 $PPID; exit 1")))
    done = await transport.run(Command(argv=("touch", str(folder / "submitted"))))
    assert done.returncode is None
    assert not (folder / "submitted").exists()


@pytest.mark.parametrize("deed", ["kill -9 $PPID; exit 1", "head -c 30000 > /dev/null; kill -9 $PPID; exit 1"])
async def test_an_upload_that_is_cut_is_made_again(
    make_site: Make, open_transport: Open, folder: Path, deed: str
) -> None:
    transport = open_transport(make_site(shell=shell_that(folder, deed)))
    content = bytes(range(256)) * 20_000
    await transport.put({str(folder / "up" / "job.sh"): content})
    assert (folder / "up" / "job.sh").read_bytes() == content
    assert [path.name for path in (folder / "up").iterdir()] == ["job.sh"]


async def test_a_download_that_is_cut_is_made_again(make_site: Make, open_transport: Open, folder: Path) -> None:
    deed = '/bin/sh "$@" | head -c 50000; kill -9 $PPID; exit 1'
    transport = open_transport(make_site(shell=shell_that(folder, deed)))
    content = bytes(range(256)) * 20_000
    (folder / "model").write_bytes(content)
    assert await transport.get(str(folder / "model")) == content


async def test_a_look_that_is_cut_says_nothing_and_the_next_one_sees(
    transport: RemoteTransport, folder: Path, clock: JumpingClock
) -> None:
    (folder / "claim").write_text('{"tag": "t1", "by": "agent"}')
    wanted = {str(folder): {"progress": 0}}
    cut = {"argv": ["sh", "-c", _CUT], "timeout": 5}
    assert await transport.look({"attempts": wanted, "query": cut}) is None
    # No connection is waited for: the driver has other things to do.
    assert await transport.look({"attempts": wanted, "query": None}) is None
    assert clock.slept == []
    clock.slept.append(15.0)
    reply = await transport.look({"attempts": wanted, "query": None})
    assert reply is not None
    assert reply["attempts"][str(folder)]["claim"]["by"] == "agent"


async def test_a_revoke_that_is_cut_does_not_claim_to_have_worked(
    make_site: Make, open_transport: Open, folder: Path
) -> None:
    transport = open_transport(make_site(shell=shell_that(folder, "kill -9 $PPID; exit 1")))
    assert not await transport.revoke(str(folder / "attempt-1"), "t1")
    assert await transport.revoke(str(folder / "attempt-1"), "t1")


async def test_a_server_that_does_not_answer_is_left_at_the_deadline(
    make_site: Make, open_transport: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SLACK", 1.0)
    transport = open_transport(make_site(shell=shell_that(folder, "exec sleep 1000")))
    done = await transport.run(Command(argv=("touch", str(folder / "submitted")), timeout=0.5))
    assert done.returncode is None
    assert not await transport._link.alive()
    assert (await transport.run(Command(argv=("echo", "back"), timeout=30))).stdout == "back\n"
    assert not (folder / "submitted").exists()


async def test_while_the_server_is_away_a_transfer_waits_ever_longer(
    place: Place, transport: RemoteTransport, folder: Path, clock: JumpingClock
) -> None:
    await transport.put({str(folder / "a"): b"1"})
    place.server.stop()
    told = []

    def come_back() -> None:
        told.append(transport.trouble)
        if len(clock.slept) == 4:
            place.server.start()

    clock.before_wake = come_back
    await transport.put({str(folder / "a"): b"2"})
    assert (folder / "a").read_bytes() == b"2"
    assert clock.slept == [15.0, 30.0, 60.0, 120.0]
    assert "refused" in told[-1]
    assert transport.trouble == ""


@pytest.mark.parametrize("kind", ["openssh"], indirect=True)
async def test_a_killed_master_is_a_cut_like_any_other(
    place: Place, transport: RemoteTransport, clock: JumpingClock
) -> None:
    await transport.open()
    for process in psutil.process_iter(["cmdline"]):
        if str(place.socket) in " ".join(process.info["cmdline"] or ()):
            process.kill()
    assert (await transport.run(Command(argv=("echo", "back")))).stdout == "back\n"
    assert clock.slept == [15.0]


@pytest.mark.parametrize("kind", ["openssh"], indirect=True)
async def test_the_master_outlives_the_driver_and_serves_the_next_one(
    place: Place, make_site: Make, open_transport: Open
) -> None:
    first = open_transport(make_site())
    await first.open()
    await first.close()
    log = (place.server.folder / "log").read_text()
    assert (await open_transport(make_site()).run(Command(argv=("echo", "same")))).stdout == "same\n"
    assert (place.server.folder / "log").read_text().count("Accepted") == log.count("Accepted")


async def test_a_session_too_many_is_asked_for_again_later(
    transport: RemoteTransport, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await transport.open()
    exchange, refusals = transport._link.exchange, [1, 1]

    async def full(line: str, stdin: bytes, timeout: float) -> Exchange:  # noqa: ASYNC109 - see Link
        if refusals:
            refusals.pop()
            return Exchange(returncode=None, refused=True)
        return await exchange(line, stdin, timeout)

    monkeypatch.setattr(transport._link, "exchange", full)
    assert (await transport.run(Command(argv=("echo", "in")))).stdout == "in\n"
    assert clock.slept == [15.0, 15.0]
