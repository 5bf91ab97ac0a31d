"""What holds for every link: what is sent twice, what is unknown, how often a connection is made."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jumping_clock import JumpingClock
from loopback import Loopback, loopback_transport

from orchestrator.errors import UsageError
from orchestrator.transports import far_end, framing
from orchestrator.transports.base import Command
from orchestrator.transports.framing import Request, command_line, parse_reply
from orchestrator.transports.remote import Exchange
from orchestrator.transports.trouble import LoginNeeded, SiteUnusable, Unreachable, file_trouble, ssh_trouble


def test_the_command_line_holds_nothing_that_a_shell_touches() -> None:
    line = command_line("/bin/sh", "python3")
    outer = re.fullmatch(r"exec /bin/sh -c '([^']*)'", line)
    assert outer is not None
    assert not set(outer[1]) & set("$`\\!\n*?[")


def test_the_far_end_needs_no_more_than_python_3_6() -> None:
    run = "from vermin.main import main; main()"
    argv = [sys.executable, "-c", run, "-t=3.6-", "--no-tips", "--violations", far_end.__file__]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_reply_is_found_in_any_noise_and_nowhere_else() -> None:
    request = Request.make("hello", {})
    content = request.stdin.split(b"\n", 1)[1][len(framing._source("far_end.py")) :].split(b"\n", 1)[1]
    reply = far_end.answer(content)
    found = parse_reply(b"Welcome\n" + reply + b"bye\n", request.marker)
    assert found is not None
    assert found.data["user"]
    assert parse_reply(reply, "survey-another") is None
    for length in range(len(reply) - len(request.marker) - 7):
        assert parse_reply(reply[:length], request.marker) is None
    assert parse_reply(reply.replace(b'"host"', b'"hast"'), request.marker) is None


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
async def test_a_request_that_is_cut_short_does_nothing(tmp_path: Path, share: float) -> None:
    link = Loopback()
    transport = loopback_transport(link)
    whole = Request.make("run", {"argv": ["touch", str(tmp_path / "done")], "timeout": 5, "files": []})
    link.cut_stdin = int(len(whole.stdin) * share)
    done = await transport.run(Command(argv=("touch", str(tmp_path / "done"))))
    assert done.returncode is None
    assert os.listdir(tmp_path) == []


async def test_files_and_a_command_may_go_in_one_request(tmp_path: Path) -> None:
    transport = loopback_transport(Loopback())
    script = str(tmp_path / "attempt-1" / "job.sh")
    done = await transport.put_and_run(
        {script: b"#!/bin/sh\ncat\n"}, Command(argv=(script,), stdin="7\n"), executable=[script]
    )
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert transport.requests == 1


async def test_an_answer_that_is_lost_makes_a_command_unknown_and_a_transfer_twice(tmp_path: Path) -> None:
    link, log = Loopback(), tmp_path / "log"
    transport = loopback_transport(link)
    lost = [True, True]

    def lose(exchange: Exchange) -> Exchange:
        return Exchange(returncode=None) if lost and lost.pop() else exchange

    link.spoil = lose
    done = await transport.run(Command(argv=("sh", "-c", f"echo x >> {log}")))
    assert (done.returncode, log.read_text()) == (None, "x\n")
    await transport.put({str(tmp_path / "a"): b"1"})
    assert (transport.requests, link.connections) == (3, 3)


async def test_a_transfer_that_never_comes_through_is_given_up_with_words(tmp_path: Path) -> None:
    link = Loopback()
    link.spoil = lambda exchange: dataclasses.replace(exchange, stdout=b"", stderr=b"odd\n")
    with pytest.raises(Unreachable, match=r"odd.*4 times"):
        await loopback_transport(link).put({str(tmp_path / "a"): b"1"})


async def test_connections_that_fail_are_tried_ever_more_rarely() -> None:
    link, clock = Loopback(), JumpingClock()
    link.failures = [Unreachable("down") for _ in range(7)]
    await loopback_transport(link, clock).run(Command(argv=("true",)))
    assert clock.slept == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]


async def test_a_look_does_not_wait_for_a_connection() -> None:
    link, clock = Loopback(), JumpingClock()
    link.failures = [Unreachable("down")]
    transport = loopback_transport(link, clock)
    for _ in range(3):
        assert await transport.look({"attempts": {}, "query": None}) is None
    assert (link.connections, clock.slept, transport.trouble) == (1, [], "down")


async def test_a_refusal_is_never_tried_again_until_a_person_has_acted() -> None:
    link, clock = Loopback(), JumpingClock()
    link.failures = [LoginNeeded("who are you?")]
    transport = loopback_transport(link, clock)
    for _ in range(3):
        with pytest.raises(LoginNeeded):
            await transport.run(Command(argv=("true",)))
    assert (link.connections, clock.slept) == (1, [])
    link.up = True  # by the person's doing
    assert (await transport.run(Command(argv=("true",)))).returncode == 0
    assert transport.trouble == ""


async def test_a_host_that_was_known_before_is_waited_for_when_the_network_is_away() -> None:
    link, clock = Loopback(), JumpingClock()
    transport = loopback_transport(link, clock)
    await transport.open()
    link.up = False
    link.failures = [UsageError("there is no host 'there'")]
    assert (await transport.run(Command(argv=("true",)))).returncode == 0
    assert clock.slept == [15.0, 30.0]


async def test_opening_does_not_wait_for_a_host_that_is_down() -> None:
    link, clock = Loopback(), JumpingClock()
    link.failures = [Unreachable("down")]
    with pytest.raises(Unreachable, match="down"):
        await loopback_transport(link, clock).open()
    assert clock.slept == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, SiteUnusable, "no space left"),
        (errno.EDQUOT, SiteUnusable, "quota"),
        (errno.EACCES, UsageError, "not allowed"),
        (errno.EROFS, UsageError, "cannot be written"),
        (errno.EIO, OSError, "Input/output"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_with_what_to_do(number: int, kind: type[Exception], words: str) -> None:
    error = file_trouble("there", number, os.strerror(number), "/work/a b")
    assert isinstance(error, kind)
    assert words in str(error)
    assert "/work/a b" in str(error)


async def test_a_full_disk_there_stops_with_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "rename", full)
    body = {"marker": "m", "verb": "put", "files": [[str(tmp_path / "a"), 2, 0o600]]}
    reply = parse_reply(far_end.answer(json.dumps(body).encode() + b"\n{}"), "m")
    assert reply is not None
    assert reply.data["error"]["errno"] == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("ssh: Could not resolve hostname nowhere: Name or service not known\r\n", UsageError, "'nowhere'"),
        ("user@there: Permission denied (publickey,keyboard-interactive).", LoginNeeded, "survey login --site there"),
        ("ssh: connect to host there port 22: Connection refused", Unreachable, "refused"),
        ("/home/u/.ssh/config: line 3: Bad configuration option: prxyjump\nterminating, 1 bad configuration options",
         UsageError, "line 3"),
        ("Load key: WARNING: UNPROTECTED PRIVATE KEY FILE!\n", UsageError, "others may read"),
        ("", Unreachable, "without a word"),
    ],
)  # fmt: skip
def test_what_ssh_says_becomes_what_to_do(said: str, kind: type[Exception], words: str) -> None:
    error = ssh_trouble("there", "there", said)
    assert type(error) is kind
    assert words in str(error)
    assert error.hint


async def test_a_login_that_is_needed_once_more_is_waited_for_and_told_once() -> None:
    link, clock = Loopback(), JumpingClock()
    link.made_by_others = True
    transport = loopback_transport(link, clock)
    told: list[LoginNeeded | None] = []
    transport.on_login = told.append
    await transport.open()
    link.up = False
    clock.slept.append(15.0)
    needed = LoginNeeded("who are you?")
    link.failures = [needed]
    for _ in range(3):
        assert await transport.look({"attempts": {}, "query": None}) is None
    assert (clock.slept, told) == ([15.0], [needed])

    async def a_person_logs_in_at_last(seconds: float) -> None:
        clock.slept.append(seconds)
        link.up = len(clock.slept) == 3

    clock.sleep = a_person_logs_in_at_last  # type: ignore[method-assign]
    assert (await transport.run(Command(argv=("true",)))).returncode == 0
    assert (link.connections, clock.slept, told) == (2, [15.0, 15.0, 15.0], [needed, None])
    assert transport.trouble == ""


async def test_the_first_login_is_not_waited_for() -> None:
    link, clock = Loopback(), JumpingClock()
    link.made_by_others = True
    link.failures = [LoginNeeded("who are you?")]
    with pytest.raises(LoginNeeded):
        await loopback_transport(link, clock).open()
    assert clock.slept == []


async def test_a_login_that_nobody_can_make_from_outside_ends_the_session() -> None:
    link, clock = Loopback(), JumpingClock()
    transport = loopback_transport(link, clock)
    await transport.open()
    link.up = False
    clock.slept.append(15.0)
    link.failures = [LoginNeeded("who are you?")]
    with pytest.raises(LoginNeeded):
        await transport.look({"attempts": {}, "query": None})


async def test_what_may_go_goes_with_the_next_request_or_at_the_end_and_survives_a_lost_one(tmp_path: Path) -> None:
    link = Loopback()
    transport = loopback_transport(link)
    for name in ("a", "b", "c"):
        (tmp_path / name / "artifacts").mkdir(parents=True)
    transport.remove_later([str(tmp_path / "a"), str(tmp_path / "missing")])
    link.failures = [None]
    link.spoil = lambda _exchange: Exchange(returncode=None)
    await transport.run(Command(argv=("true",)))
    (tmp_path / "a").mkdir(exist_ok=True)
    link.spoil = lambda exchange: exchange
    await transport.run(Command(argv=("true",)))
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    assert transport.requests == 2
    transport.remove_later([str(tmp_path / "b")])
    await transport.close()
    assert os.listdir(tmp_path) == ["c"]
    assert transport.requests == 3
