"""The local transport: commands with deadlines, files that are whole or not there."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import agent
from orchestrator.transports import local
from orchestrator.transports.base import Command, Transport
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.trouble import SiteUnusable


@pytest.fixture
def transport() -> Transport:
    return LocalTransport()


async def _gone(pid: int) -> None:
    """Wait until a killed process is no more, or only a zombie."""
    async with asyncio.timeout(30):
        while _state(pid) not in {"Z", "X", ""}:
            await asyncio.to_thread(os.sched_yield)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def test_a_command_runs_to_its_end(transport: Transport) -> None:
    done = await transport.run(Command(argv=("sh", "-c", "cat; echo trouble >&2; exit 3"), stdin="grüße"))
    assert (done.returncode, done.stdout, done.stderr) == (3, "grüße", "trouble\n")


async def test_a_command_that_reads_nothing_may_be_sent_much(transport: Transport) -> None:
    done = await transport.run(Command(argv=("true",), stdin="x" * 1_000_000))
    assert done.returncode == 0


async def test_output_that_is_no_utf_8_is_read_all_the_same(transport: Transport) -> None:
    done = await transport.run(Command(argv=("printf", r"\377ok")))
    assert done.stdout == "\N{REPLACEMENT CHARACTER}ok"


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_start_is_told_by_its_code(transport: Transport, program: str, code: int) -> None:
    done = await transport.run(Command(argv=(program, "-v")))
    assert done.returncode == code
    assert program in done.stderr


async def test_at_the_deadline_the_whole_group_is_killed_and_the_outcome_is_unknown(
    transport: Transport, tmp_path: Path
) -> None:
    script = f"trap '' TERM; sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & echo begun; wait"
    done = await transport.run(Command(argv=("sh", "-c", script), timeout=1.0))
    assert done.returncode is None
    assert done.stdout == "begun\n"
    assert "no answer within 1 s" in done.stderr
    await _gone(int((tmp_path / "pid").read_text()))


async def test_a_process_that_left_the_group_does_not_hold_us_up(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LAST_WORDS", 0.1)
    script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & wait"
    done = await transport.run(Command(argv=("sh", "-c", script), timeout=1.0))
    assert done.returncode is None
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_a_command_ends_when_its_caller_gives_up(transport: Transport, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    command = Command(argv=("sh", "-c", f"echo $$ > {tmp_path}/begun; exec sleep 1000"))
    task = asyncio.create_task(transport.run(command))
    pid = int(await asyncio.to_thread((tmp_path / "begun").read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(pid)


async def test_files_are_put_whole_and_private(transport: Transport, tmp_path: Path) -> None:
    order, script = tmp_path / "a" / "b" / "job.json", tmp_path / "a" / "b" / "job.sh"
    await transport.put({str(order): b"{}", str(script): b"exit 0\n"}, executable=[str(script)])
    assert order.read_bytes() == b"{}"
    assert order.stat().st_mode & 0o777 == 0o600
    assert script.stat().st_mode & 0o777 == 0o700
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["job.json", "job.sh"]


async def test_a_file_that_is_there_is_replaced(transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "stop"
    await transport.put({str(path): b"one"})
    await transport.put({str(path): b"two"})
    assert path.read_bytes() == b"two"


async def test_a_symbolic_link_is_never_written_through(transport: Transport, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "stop"
    victim.write_text("mine")
    path.symlink_to(victim)
    await transport.put({str(path): b"theirs"})
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


async def test_a_full_disk_leaves_the_old_file_and_no_torn_one(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "job.json"
    path.write_text("old")

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(SiteUnusable, match=f"{tmp_path}: no space left"):
        await transport.put({str(path): b"new"})
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["job.json"]


async def test_a_file_is_got_whole_or_by_its_end(transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"0123456789")
    assert await transport.get(str(path)) == b"0123456789"
    assert await transport.get(str(path), limit=3) == b"789"
    assert await transport.get(str(path), limit=99) == b"0123456789"
    assert await transport.get(str(tmp_path / "none")) is None


async def test_a_stale_handle_is_opened_again_once(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"{}")
    read, stale = local._read, [1]

    def read_once_stale(name: str, limit: int | None) -> bytes:
        if stale:
            stale.pop()
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(name, limit)

    monkeypatch.setattr(local, "_read", read_once_stale)
    assert await transport.get(str(path)) == b"{}"
    stale.extend([1, 1])
    with pytest.raises(OSError, match="Stale"):
        await transport.get(str(path))


async def test_looking_and_revoking_are_the_agent_s(transport: Transport, tmp_path: Path) -> None:
    attempt = str(tmp_path / "attempt-1")
    assert await transport.revoke(attempt, "t1")
    request = {"attempts": {attempt: {"progress": 0}}, "query": {"argv": ["sh", "-c", "cat"], "stdin": "in"}}
    reply = await transport.look(request)
    assert reply is not None
    assert set(reply) == set(agent.look({"attempts": {}, "query": None}))
    assert reply["attempts"][attempt]["claim"]["by"] == "driver"
    assert reply["query"] == {"returncode": 0, "stdout": "in", "stderr": ""}


async def test_file_work_goes_through_the_clock(tmp_path: Path) -> None:
    class Counting:
        calls = 0

        def now(self) -> float:
            return 0.0

        async def sleep(self, seconds: float) -> None:
            raise AssertionError(seconds)

        async def blocking(self, function: Callable[[], Any]) -> Any:
            self.calls += 1
            return function()

    clock = Counting()
    transport = LocalTransport(clock)
    await transport.put({str(tmp_path / "a"): b""})
    await transport.get(str(tmp_path / "a"))
    await transport.look({"attempts": {}, "query": None})
    await transport.revoke(str(tmp_path), "t1")
    await transport.close()
    assert clock.calls == 4


async def test_removing_takes_whole_folders_and_never_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "deep").mkdir(parents=True)
    (tmp_path / "artifacts" / "deep" / "model").write_text("x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "data").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    await LocalTransport().remove([str(tmp_path / name) for name in ("artifacts", "link", "missing")])
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert (tmp_path / "kept" / "data").exists()
