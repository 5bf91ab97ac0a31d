"""Faults 54 to 60: the way to a site. What needs a server is tested with one too (`tests/system/ssh`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fault_link import FragileLink, far_transport
from fault_world import THREE, TRIALS, FaultWorld, play
from jumping_clock import JumpingClock

from orchestrator.errors import Paused
from orchestrator.simulate.faults import Fault
from orchestrator.transports.base import Command, Completion
from orchestrator.transports.trouble import HostKeyRefused, LoginNeeded, Unreachable

three = pytest.mark.parametrize("kind", THREE)
AWAY = 400.0  # longer than the grace of a job that is gone


class Cut:
    """A connection that drops at the second submit, and is away for a while.

    Parameters
    ----------
    moment : str
        ``before`` the command has arrived, ``during`` it, or ``after`` its answer.
    """

    def __init__(self, world: FaultWorld, moment: str) -> None:
        self.world, self.moment = world, moment
        self.submits, self.back = 0, 0.0
        self.run, self.look, self.put = world.transport.run, world.transport.look, world.transport.put

    @property
    def away(self) -> bool:
        return self.world.clock.now() < self.back

    def _lost(self, command: Command) -> Completion:
        return Completion(argv=command.argv, returncode=None, stderr="the connection was lost")

    async def cut_run(self, command: Command) -> Completion:
        if self.away:
            return self._lost(command)
        submit = any(word.endswith("job.sh") for word in command.argv)
        self.submits += submit
        if not submit or self.submits != 2:
            return await self.run(command)
        self.back = self.world.clock.now() + AWAY
        if self.moment == "before":
            return self._lost(command)
        answer = await self.run(command)
        return answer if self.moment == "after" else self._lost(command)

    async def cut_look(self, request: Any) -> Any:
        return None if self.away else await self.look(request)

    async def cut_put(self, *arguments: Any, **named: Any) -> None:
        while self.away:  # a transfer waits for the next connection
            await self.world.clock.sleep(15.0)
        await self.put(*arguments, **named)


@three
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_fault_54_a_connection_that_drops_around_a_submit_leaves_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str
) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind)
        cut = Cut(world, moment)
        for name in ("run", "look", "put"):
            monkeypatch.setattr(world.transport, name, getattr(cut, f"cut_{name}"))
        await world.holds(await world.run())
        assert cut.back, "it was to be cut"
        assert world.calls("submit") == TRIALS
        assert not world.said("suspect")

    play(body)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
async def test_fault_55_a_file_whose_transfer_is_cut_is_whole_in_the_end_and_never_half_there(
    tmp_path: Path, share: float
) -> None:
    content = os.urandom(200_000)
    link = FragileLink(JumpingClock())
    transport = far_transport(link)
    link.uploads = [share, share]
    path = tmp_path / "there" / "job.sh"
    await transport.put({str(path): content})
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["job.sh"]
    link.downloads = [share, share]
    assert await transport.get(str(path)) == content
    assert len(link.connected) == 5


async def test_fault_56_connections_that_are_closed_or_refused_are_never_made_in_a_storm(tmp_path: Path) -> None:
    clock = JumpingClock()
    link = FragileLink(clock)
    transport = far_transport(link)
    for number in range(5):
        await transport.run(Command(argv=("touch", str(tmp_path / str(number)))))
        link.up = False  # it was idle for too long
    link.refusals = [Unreachable("too many sessions") for _ in range(5)]
    await transport.run(Command(argv=("touch", str(tmp_path / "last"))))
    gaps = [late - early for early, late in pairwise(link.connected)]
    assert len(os.listdir(tmp_path)) == 6
    assert min(gaps) >= 15.0
    assert gaps[-5:] == sorted(gaps[-5:])
    assert gaps[-1] >= 120.0


def _once(world: FaultWorld, error: Paused, look: Callable[..., Any]) -> Callable[..., Any]:
    """A look that meets ``error`` once, some minutes after the beginning."""
    left = [error]

    async def blocked(request: Any) -> Any:
        if left and world.clock.now() - world.began > 300.0:
            raise left.pop()
        return await look(request)

    return blocked


def pauses_and_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: Paused) -> None:
    """A study meets ``error`` on its way: it pauses, its jobs run on, and the next run takes them up."""

    async def body() -> None:
        world = FaultWorld(root, kind)
        monkeypatch.setattr(world.transport, "look", _once(world, error, world.transport.look))
        with pytest.raises(type(error)) as caught:
            await world.run()
        assert caught.value.exit_code == 4
        assert len(world.running()) == 3, "the jobs run on"
        await world.holds(await world.run())
        assert world.calls("submit") == TRIALS

    play(body)


@three
def test_fault_57_a_login_that_only_a_person_can_make_pauses_the_study_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    error = LoginNeeded("site there: somebody must log in", hint="survey login --site there")
    pauses_and_goes_on(tmp_path, monkeypatch, kind, error)


@three
def test_fault_58_a_host_key_that_is_another_one_pauses_the_study_and_its_jobs_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    error = HostKeyRefused("site there: the host key is another one than before (SHA256:abc)", hint="ask the site")
    pauses_and_goes_on(tmp_path, monkeypatch, kind, error)


@three
def test_fault_59_nothing_that_is_needed_lies_on_a_login_node_outside_the_work_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen: set[str] = set()

    def noting(call: Callable[..., Any], paths: Callable[[Any], Any]) -> Callable[..., Any]:
        async def noted(first: Any, *arguments: Any, **named: Any) -> Any:
            seen.update(paths(first))
            return await call(first, *arguments, **named)

        return noted

    def absolute(command: Command) -> list[str]:
        return [word for word in command.argv if word.startswith("/")]

    async def body() -> None:
        world = FaultWorld(tmp_path, kind, site={"work_root": "/gpfs/{user}"})
        transport = world.transport
        for name, paths in (
            ("put", list),
            ("get", lambda path: [path]),
            ("look", lambda request: request["attempts"]),
            ("revoke", lambda directory: [directory]),
            ("remove", list),
            ("run", absolute),
        ):
            monkeypatch.setattr(transport, name, noting(getattr(transport, name), paths))
        await world.holds(await world.run())
        assert seen
        assert {path for path in seen if not path.startswith("/gpfs/")} == set()

    play(body)


@three
def test_fault_60_notices_around_every_answer_make_none_of_them_wrong(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = FaultWorld(tmp_path, kind, faults=[Fault(command="any", kind="banner")])
        await world.holds(await world.run())
        assert len(world.attempts()) == TRIALS

    play(body)
