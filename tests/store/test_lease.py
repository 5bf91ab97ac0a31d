"""One driver per study, whatever happened to the one before."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.errors import HeldByAnother
from orchestrator.store import lease as lease_module
from orchestrator.store.lease import Holder, Lease, read_holder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FixedClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    async def blocking(self, function: Callable[[], Any]) -> Any:
        return function()


HOLD = """
import sys
from pathlib import Path
from orchestrator.clock import SystemClock
from orchestrator.errors import HeldByAnother
from orchestrator.store.lease import Lease
sys.stdin.readline()
try:
    lease = Lease.acquire(Path(sys.argv[1]), SystemClock())
except HeldByAnother as error:
    print("held", str(error).replace(chr(10), " "), flush=True)
else:
    print("won", lease.token, flush=True)
sys.stdin.readline()
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def pretend(root: Path, **changes: Any) -> None:
    """Rewrite who holds the lease, in both places."""
    for path in [root / "driver.json", *sorted((root / "lease").glob("0*.json"))]:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def abandon(lease: Lease) -> None:
    """Leave the lease as a killed process does: on disk, its lock gone."""
    assert lease._lock is not None
    os.close(lease._lock)
    lease._lock = None


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


def test_of_several_processes_exactly_one_wins_and_the_others_say_who_holds_it(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(4)]
    try:
        for process in processes:
            send(process)
        answers = [answer(process) for process in processes]
    finally:
        for process in processes:
            end(process)
    winners = [process for process, said in zip(processes, answers, strict=True) if said == "won 1\n"]
    assert len(winners) == 1
    assert sum(said.startswith("held") for said in answers) == 3


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_the_lease_of_a_killed_driver_is_taken_over_at_once_with_a_higher_token(
    tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(lease_module, "_lock", lambda _: (None, False))
    process = start(tmp_path)
    try:
        send(process)
        assert answer(process) == "won 1\n"
        with pytest.raises(HeldByAnother, match=f"process {process.pid} of ") as caught:
            Lease.acquire(tmp_path, clock)
        assert "survey status" in caught.value.hint
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        end(process)
    with Lease.acquire(tmp_path, clock) as lease:
        assert lease.token == 2
        assert lease.fence.startswith("2-")
        assert [path.name for path in (tmp_path / "lease").glob("0*")] == ["00000002.json"]


def test_a_process_id_that_was_given_to_another_program_proves_nothing_alive(tmp_path: Path, clock: FixedClock) -> None:
    abandon(Lease.acquire(tmp_path, clock))
    pretend(tmp_path, start="1")
    assert Lease.acquire(tmp_path, clock).token == 2


def test_a_lease_of_before_a_reboot_is_dead(tmp_path: Path, clock: FixedClock) -> None:
    abandon(Lease.acquire(tmp_path, clock))
    pretend(tmp_path, boot_id="another-boot")
    assert Lease.acquire(tmp_path, clock).token == 2


@pytest.mark.parametrize("elsewhere", [{"host": "login2"}, {"pid_namespace": "pid:[1]", "pid": 999_999_999}])
def test_a_driver_that_cannot_be_seen_from_here_keeps_its_lease_until_it_expires(
    tmp_path: Path, clock: FixedClock, elsewhere: dict[str, Any]
) -> None:
    abandon(Lease.acquire(tmp_path, clock))
    pretend(tmp_path, **elsewhere)
    clock.time += 5000
    # A clock that runs ahead is not believed alone: the file system says the lease was just renewed.
    with pytest.raises(HeldByAnother, match="expires in"):
        Lease.acquire(tmp_path, clock)
    status = (tmp_path / "driver.json").stat()
    os.utime(tmp_path / "driver.json", (status.st_atime, status.st_mtime - 5000))
    assert Lease.acquire(tmp_path, clock).token == 2


def test_a_live_process_here_keeps_its_lease_however_long_it_was_silent(tmp_path: Path, clock: FixedClock) -> None:
    abandon(Lease.acquire(tmp_path, clock))
    clock.time += 1e6
    os.utime(tmp_path / "driver.json", (0, 0))
    with pytest.raises(HeldByAnother, match=f"process {os.getpid()} "):
        Lease.acquire(tmp_path, clock)


def test_a_lost_lease_is_noticed_by_its_old_holder_whatever_order_they_write_in(
    tmp_path: Path, clock: FixedClock
) -> None:
    old = Lease.acquire(tmp_path, clock)
    old.check()
    mine = (tmp_path / "driver.json").read_bytes()
    abandon(old)
    pretend(tmp_path, start="1")
    new = Lease.acquire(tmp_path, clock)
    with pytest.raises(HeldByAnother, match="stops writing"):
        old.check()
    with pytest.raises(HeldByAnother):
        old.renew()
    # The old holder was asleep between its check and its write:
    (tmp_path / "driver.json").write_bytes(mine)
    new.check()
    with pytest.raises(HeldByAnother):
        old.check()
    new.renew()
    assert json.loads((tmp_path / "driver.json").read_text())["token"] == 2
    old.release()
    new.check()


def test_a_released_lease_is_free_and_the_token_still_grows(tmp_path: Path, clock: FixedClock) -> None:
    tokens = []
    for _ in range(3):
        with Lease.acquire(tmp_path, clock) as lease:
            tokens.append(lease.token)
    assert tokens == [1, 2, 3]


def test_the_token_grows_even_if_the_folder_of_tokens_was_removed(tmp_path: Path, clock: FixedClock) -> None:
    with Lease.acquire(tmp_path, clock), Lease.acquire(tmp_path / "other", clock):
        pass
    for path in (tmp_path / "lease").iterdir():
        path.unlink()
    assert Lease.acquire(tmp_path, clock).token == 2


def test_a_removed_lease_is_noticed(tmp_path: Path, clock: FixedClock) -> None:
    lease = Lease.acquire(tmp_path, clock)
    for path in (tmp_path / "lease").iterdir():
        path.unlink()
    with pytest.raises(HeldByAnother, match="gone"):
        lease.check()
    abandon(lease)


def test_a_driver_that_died_between_its_claim_and_its_announcement_is_followed(
    tmp_path: Path, clock: FixedClock
) -> None:
    lease = Lease.acquire(tmp_path, clock)
    abandon(lease)
    claim = tmp_path / "lease" / "00000002.json"
    claim.write_text(json.dumps({**dataclasses.asdict(lease.holder), "token": 2, "start": "1"}))
    assert Lease.acquire(tmp_path, clock).token == 3


def test_a_claim_cut_short_is_respected_until_it_is_old(tmp_path: Path, clock: FixedClock) -> None:
    (tmp_path / "lease").mkdir()
    claim = tmp_path / "lease" / "00000001.json"
    claim.write_text('{"tok')
    with pytest.raises(HeldByAnother, match="just starting"):
        Lease.acquire(tmp_path, clock)
    os.utime(claim, (0, 0))
    assert Lease.acquire(tmp_path, clock).token == 2


def test_a_name_that_was_tidied_away_is_no_way_past_a_higher_token(
    tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        lease = Lease.acquire(tmp_path, clock)
        lease.release()
    living = Lease.acquire(tmp_path, clock)
    abandon(living)
    (tmp_path / "driver.json").unlink()
    stale = iter([{1}])
    listed = lease_module._tokens
    monkeypatch.setattr(lease_module, "_tokens", lambda folder: next(stale, None) or listed(folder))
    (tmp_path / "lease" / "00000001.json").write_text(
        json.dumps({**dataclasses.asdict(lease.holder), "token": 1, "start": "1"})
    )
    with pytest.raises(HeldByAnother, match="quicker"):
        Lease.acquire(tmp_path, clock)
    living.check()


def test_a_lock_held_by_another_process_here_is_enough(tmp_path: Path, clock: FixedClock) -> None:
    Lease.acquire(tmp_path, clock).release()
    with (tmp_path / "lease" / "lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HeldByAnother):
            Lease.acquire(tmp_path, clock)
    Lease.acquire(tmp_path, clock).release()


def test_readers_know_whether_a_driver_may_be_alive(tmp_path: Path, clock: FixedClock) -> None:
    assert read_holder(tmp_path, now=clock.now()) == (None, False)
    lease = Lease.acquire(tmp_path, clock)
    assert read_holder(tmp_path, now=clock.now()) == (lease.holder, True)
    pretend(tmp_path, host="login2")
    assert read_holder(tmp_path, now=clock.now() + 10)[1]
    assert not read_holder(tmp_path, now=clock.now() + 10_000)[1]
    pretend(tmp_path, host=lease.holder.host)
    lease.release()
    assert not read_holder(tmp_path, now=clock.now())[1]


def test_a_process_with_parentheses_in_its_name_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        mine, its = (lease_module._process_start(pid) for pid in (os.getpid(), process.pid))
    finally:
        process.kill()
        process.wait()
    assert int(its) >= int(mine) > 0


def test_what_is_no_holder_is_none() -> None:
    assert Holder.from_json(None) is None
    assert Holder.from_json({"token": 1}) is None
    assert Holder.from_json([1]) is None
