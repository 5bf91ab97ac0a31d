"""What every transport must do, wherever its site is: subclasses bring a ``transport`` and a ``folder`` of its site."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator import agent
from orchestrator.transports.base import Command, Transport

__all__ = ["TransportContract"]


class TransportContract:
    async def test_a_command_runs_to_its_end(self, transport: Transport) -> None:
        done = await transport.run(Command(argv=("sh", "-c", "cat; echo trouble >&2; exit 3"), stdin="grüße"))
        assert (done.returncode, done.stdout, done.stderr) == (3, "grüße", "trouble\n")

    async def test_words_reach_a_command_as_they_are(self, transport: Transport) -> None:
        words = ("a b", "", "$HOME", "it's", '"', "\\", "`id`", "!x", "*", "a\nb", "-n", "ü")
        done = await transport.run(Command(argv=("printf", "<%s>", *words)))
        assert done.stdout == "".join(f"<{word}>" for word in words)

    async def test_a_command_may_be_sent_and_may_say_much(self, transport: Transport) -> None:
        done = await transport.run(Command(argv=("cat",), stdin="0123456789" * 300_000))
        assert (done.returncode, len(done.stdout)) == (0, 3_000_000)
        ignored = await transport.run(Command(argv=("true",), stdin="x" * 1_000_000))
        assert ignored.returncode == 0

    async def test_output_that_is_no_utf_8_is_read_all_the_same(self, transport: Transport) -> None:
        done = await transport.run(Command(argv=("printf", r"\377ok")))
        assert done.stdout == "\N{REPLACEMENT CHARACTER}ok"

    @pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
    async def test_a_command_that_cannot_start_is_told_by_its_code(
        self, transport: Transport, program: str, code: int
    ) -> None:
        done = await transport.run(Command(argv=(program, "-v")))
        assert done.returncode == code
        assert program in done.stderr

    async def test_at_its_deadline_a_command_is_killed_and_its_outcome_is_unknown(self, transport: Transport) -> None:
        done = await transport.run(Command(argv=("sh", "-c", "echo begun; exec sleep 1000"), timeout=0.5))
        assert done.returncode is None
        assert done.stdout == "begun\n"
        assert "no answer within 0.5 s" in done.stderr

    async def test_several_at_a_time_get_each_its_own_answer(self, transport: Transport) -> None:
        done = await asyncio.gather(*(transport.run(Command(argv=("echo", str(number)))) for number in range(8)))
        assert [one.stdout for one in done] == [f"{number}\n" for number in range(8)]

    async def test_files_are_put_whole_and_private(self, transport: Transport, folder: Path) -> None:
        order, script = folder / "a b" / "ü" / "job.json", folder / "a b" / "ü" / "job.sh"
        await transport.put({str(order): b"{}", str(script): b"\0\xff\n"}, executable=[str(script)])
        assert (order.read_bytes(), script.read_bytes()) == (b"{}", b"\0\xff\n")
        assert order.stat().st_mode & 0o777 == 0o600
        assert script.stat().st_mode & 0o777 == 0o700
        assert (folder / "a b").stat().st_mode & 0o777 == 0o700
        assert sorted(os.listdir(order.parent)) == ["job.json", "job.sh"]

    async def test_a_file_that_is_there_is_replaced_and_a_link_never_written_through(
        self, transport: Transport, folder: Path
    ) -> None:
        victim, path = folder / "victim", folder / "stop"
        victim.write_text("mine")
        path.symlink_to(victim)
        await transport.put({str(path): b"one"})
        await transport.put({str(path): b"two"})
        assert (victim.read_text(), path.read_bytes()) == ("mine", b"two")
        assert not path.is_symlink()

    async def test_a_place_that_cannot_be_is_an_error_and_leaves_nothing(
        self, transport: Transport, folder: Path
    ) -> None:
        (folder / "file").write_text("x")
        with pytest.raises(Exception, match="file"):
            await transport.put({str(folder / "good"): b"", str(folder / "file" / "job.json"): b"{}"})
        assert not [name for name in os.listdir(folder) if name.startswith(".")]

    async def test_a_file_is_got_whole_or_by_its_end(self, transport: Transport, folder: Path) -> None:
        content = os.urandom(200_000)
        (folder / "stdout").write_bytes(content)
        assert await transport.get(str(folder / "stdout")) == content
        assert await transport.get(str(folder / "stdout"), limit=3) == content[-3:]
        assert await transport.get(str(folder / "stdout"), limit=999_999) == content
        assert await transport.get(str(folder / "none")) is None

    async def test_what_is_no_file_cannot_be_got(self, transport: Transport, folder: Path) -> None:
        with pytest.raises(IsADirectoryError):
            await transport.get(str(folder))

    async def test_looking_and_revoking_are_the_agent_s(self, transport: Transport, folder: Path) -> None:
        attempt = str(folder / "attempt-1")
        assert await transport.revoke(attempt, "t1")
        request = {"attempts": {attempt: {"progress": 0}}, "query": {"argv": ["sh", "-c", "cat"], "stdin": "in"}}
        reply = await transport.look(request)
        assert reply is not None
        assert set(reply) == set(agent.look({"attempts": {}, "query": None}))
        assert reply["attempts"][attempt]["claim"]["by"] == "driver"
        assert reply["query"] == {"returncode": 0, "stdout": "in", "stderr": ""}

    async def test_an_agent_s_claim_is_not_taken_away(self, transport: Transport, folder: Path) -> None:
        (folder / "claim").write_text('{"tag": "t1", "by": "agent"}')
        assert not await transport.revoke(str(folder), "t1")

    async def test_removing_takes_whole_folders_and_never_what_a_link_points_to(
        self, transport: Transport, folder: Path
    ) -> None:
        (folder / "artifacts" / "deep").mkdir(parents=True)
        (folder / "artifacts" / "deep" / "model").write_text("x")
        (folder / "kept").mkdir()
        (folder / "kept" / "data").write_text("x")
        (folder / "link").symlink_to(folder / "kept")
        await transport.remove([str(folder / name) for name in ("artifacts", "link", "missing")])
        assert os.listdir(folder) == ["kept"]
        assert (folder / "kept" / "data").exists()

    async def test_closing_it_twice_does_no_harm(self, transport: Transport) -> None:
        assert (await transport.run(Command(argv=("true",)))).returncode == 0
        await transport.close()
        await transport.close()
