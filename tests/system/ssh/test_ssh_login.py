"""Sites that ask for a one-time password: a person answers once, and nobody else ever does."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import pytest
from jumping_clock import JumpingClock
from login_place import Place
from otp_server import PASSWORD, serve
from ssh_terminal import at_a_terminal

from orchestrator.config.site import Site
from orchestrator.errors import UsageError
from orchestrator.transports.base import Command
from orchestrator.transports.openssh import login
from orchestrator.transports.paramiko_ import ParamikoLink
from orchestrator.transports.remote import RemoteTransport
from orchestrator.transports.trouble import LoginNeeded

pytestmark = pytest.mark.system

MakeSite = Callable[..., Site]
Open = Callable[[Site], RemoteTransport]


@dataclass
class Otp:
    site: Site
    answered: list[str]


@pytest.fixture
async def otp(place: Place, make_site: MakeSite) -> AsyncIterator[Otp]:
    async with serve() as server:
        place.know(server.known_hosts_line)
        yield Otp(make_site(port=server.port, identity_file=None), server.answered)


async def test_without_a_terminal_login_is_needed_and_nothing_is_tried_again(
    otp: Otp, open_transport: Open, clock: JumpingClock
) -> None:
    transport = open_transport(otp.site)
    for _ in range(3):
        with pytest.raises(LoginNeeded) as needed:
            await transport.run(Command(argv=("true",)))
    assert needed.value.exit_code == 4
    assert "survey login --site there" in needed.value.hint
    assert (otp.answered, clock.slept, transport.requests) == ([], [], 0)


async def _type(site: Site, answer: str) -> tuple[int, str]:
    """Call `login` in a terminal of its own where somebody types ``answer``."""
    script = (
        "import sys; from orchestrator.config.site import Site; from orchestrator.transports.openssh import login; "
        "from orchestrator.errors import SurveyError\n"
        "try: login(Site.model_validate_json(sys.argv[1]))\n"
        "except SurveyError as error: print(type(error).__name__); sys.exit(error.exit_code)"
    )
    argv = [sys.executable, "-c", script, site.model_dump_json(exclude_unset=True)]
    return await at_a_terminal(argv, {"One-time password: ": answer})


@pytest.mark.parametrize("kind", ["openssh"], indirect=True)
async def test_one_login_in_a_terminal_serves_all_that_follows(otp: Otp, open_transport: Open) -> None:
    transport = open_transport(otp.site)
    with pytest.raises(LoginNeeded):
        await transport.run(Command(argv=("true",)))
    code, shown = await _type(otp.site, PASSWORD)
    assert code == 0, shown
    assert PASSWORD not in shown
    # The driver that was told to wait goes on by itself.
    for number in range(3):
        assert (await transport.run(Command(argv=("echo", str(number))))).stdout == f"{number}\n"
    assert (await open_transport(otp.site).run(Command(argv=("echo", "x")))).stdout == "x\n"
    assert len(otp.answered) == 1
    assert (await _type(otp.site, "never asked"))[0] == 0
    assert len(otp.answered) == 1


@pytest.mark.parametrize("kind", ["openssh"], indirect=True)
async def test_a_wrong_password_is_no_login(otp: Otp) -> None:
    code, shown = await _type(otp.site, "000000")
    assert code == 4
    assert "LoginNeeded" in shown


def test_a_login_needs_a_terminal_and_openssh(place: Place, make_site: MakeSite, kind: str) -> None:
    with pytest.raises(UsageError, match="terminal" if kind == "openssh" else "no login that stays"):
        login(make_site())


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_a_person_is_asked_for_the_first_connection_and_never_again(otp: Otp, clock: JumpingClock) -> None:
    asked: list[str] = []

    def ask(title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        asked.extend(prompt for prompt, _ in prompts)
        return [PASSWORD for _ in prompts]

    link = ParamikoLink(otp.site, ask=ask)
    transport = RemoteTransport(link, clock, name="paramiko", site="there")
    assert (await transport.run(Command(argv=("echo", "in")))).stdout == "in\n"
    assert asked == ["One-time password: "]
    await link.drop()
    with pytest.raises(LoginNeeded):
        await transport.run(Command(argv=("true",)))
    assert (asked, otp.answered) == (["One-time password: "], ["root"])
    await transport.close()


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_an_answer_that_is_refused_is_not_asked_for_again(otp: Otp, clock: JumpingClock) -> None:
    link = ParamikoLink(otp.site, ask=lambda _title, _words, prompts: ["000000" for _ in prompts])
    transport = RemoteTransport(link, clock, name="paramiko", site="there")
    for _ in range(2):
        with pytest.raises(LoginNeeded, match="the answers were refused"):
            await transport.run(Command(argv=("true",)))
    assert otp.answered == ["root"]
    await transport.close()
