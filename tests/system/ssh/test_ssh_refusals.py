"""What keeps us out, said in words, each with its exit code, and never tried in a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jumping_clock import JumpingClock
from login_place import Place
from ssh_server import Account, Sshd, free_port, lock_key, make_key

from orchestrator.config.site import Site
from orchestrator.errors import UsageError
from orchestrator.transports.base import Command
from orchestrator.transports.remote import RemoteTransport
from orchestrator.transports.trouble import HostKeyRefused, LoginNeeded, SiteUnusable, Unreachable

pytestmark = pytest.mark.system

MakeSite = Callable[..., Site]
Open = Callable[[Site], RemoteTransport]


@pytest.fixture
def jump_host(tmp_path: Path, place: Place) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "jump", place.key.with_suffix(".pub").read_text())
    server.start()
    yield server
    server.stop()


async def test_an_unknown_host_is_refused_with_its_fingerprint(
    place: Place, transport: RemoteTransport, clock: JumpingClock
) -> None:
    place.know()
    with pytest.raises(HostKeyRefused, match="is not known") as refused:
        await transport.open()
    assert place.server.fingerprint in refused.value.message
    assert refused.value.exit_code == 4
    assert place.known_hosts.read_text() == ""


async def test_a_changed_host_key_is_a_hard_stop_that_no_acceptance_mends(
    place: Place, make_site: MakeSite, open_transport: Open, kind: str, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other").split()
    place.know(f"[127.0.0.1]:{place.server.port} {' '.join(other[:2])}\n")
    words = {"accepted_host_keys": [place.server.fingerprint]} if kind == "paramiko" else {}
    with pytest.raises(HostKeyRefused, match="another one than before") as refused:
        await open_transport(make_site(**words)).open()
    assert place.server.fingerprint in refused.value.message
    assert "Somebody may be between" in refused.value.hint


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
async def test_the_named_key_is_accepted_and_written_down_and_no_other(
    place: Place, make_site: MakeSite, open_transport: Open
) -> None:
    place.know()
    with pytest.raises(HostKeyRefused):
        await open_transport(make_site(accepted_host_keys=["SHA256:" + "A" * 43])).open()
    await open_transport(make_site(accepted_host_keys=[place.server.fingerprint])).open()
    assert place.known_hosts.read_text() == place.server.known_hosts_line
    await open_transport(make_site()).open()


async def test_a_host_that_does_not_exist_is_named(make_site: MakeSite, open_transport: Open) -> None:
    with pytest.raises(UsageError, match=r"'no-such-host\.invalid'") as refused:
        await open_transport(make_site(host="no-such-host.invalid")).open()
    assert refused.value.exit_code == 2


async def test_a_refused_connection_is_no_connection_now(make_site: MakeSite, open_transport: Open) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1.*refused|refused.*127\.0\.0\.1"):
        await open_transport(make_site(port=free_port())).open()


async def test_a_refused_key_needs_a_person_and_is_not_offered_again(
    place: Place, make_site: MakeSite, open_transport: Open, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger")
    log = place.server.folder / "log"
    before = log.read_text().count("Failed publickey")
    transport = open_transport(make_site(identity_file=str(tmp_path / "stranger")))
    for _ in range(3):
        with pytest.raises(LoginNeeded) as refused:
            await transport.run(Command(argv=("true",)))
    with pytest.raises(LoginNeeded):
        await transport.look({"attempts": {}, "query": None})
    assert refused.value.exit_code == 4
    assert log.read_text().count("Failed publickey") == before + 1
    assert transport.requests == 0


async def test_a_key_file_with_a_passphrase_is_said_to_have_one(
    make_site: MakeSite, open_transport: Open, tmp_path: Path, kind: str
) -> None:
    make_key(tmp_path / "locked")
    lock_key(tmp_path / "locked", "secret")
    with pytest.raises(LoginNeeded) as refused:
        await open_transport(make_site(identity_file=str(tmp_path / "locked"))).open()
    if kind == "paramiko":
        assert "has a passphrase: load it with ssh-add" in refused.value.message


async def test_a_login_node_without_python_is_of_no_use(make_site: MakeSite, open_transport: Open) -> None:
    with pytest.raises(SiteUnusable, match="no no-such-python") as refused:
        await open_transport(make_site(python="no-such-python")).open()
    assert refused.value.exit_code == 4
    assert "transport: python:" in refused.value.hint


async def test_a_python_that_is_too_old_is_of_no_use(make_site: MakeSite, open_transport: Open, tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\necho 'Unknown option: -I' >&2\nexit 2\n")
    old.chmod(0o755)
    with pytest.raises(SiteUnusable, match=r"Python 3\.6 or newer"):
        await open_transport(make_site(python=str(old))).open()


async def test_a_wrong_work_root_is_the_site_file_s_mistake(transport: RemoteTransport) -> None:
    with pytest.raises(UsageError, match="/proc/nowhere") as refused:
        await transport.put({"/proc/nowhere/study/job.json": b"{}"})
    assert "work_root" in refused.value.hint
    assert (await transport.run(Command(argv=("true",)))).returncode == 0


async def test_a_jump_host_is_gone_through(
    place: Place, jump_host: Sshd, make_site: MakeSite, open_transport: Open
) -> None:
    place.configure(
        "Host jumper", "  HostName 127.0.0.1", f"  Port {jump_host.port}", "  User root", f"  IdentityFile {place.key}"
    )
    place.know(place.server.known_hosts_line, jump_host.known_hosts_line)
    transport = open_transport(make_site(jump=["jumper"]))
    done = await transport.run(Command(argv=("sh", "-c", "echo $SSH_CONNECTION")))
    assert done.stdout.split()[3] == str(place.server.port)
    assert (jump_host.folder / "log").read_text().count("Accepted publickey") == 1


async def test_an_alias_with_a_jump_of_its_own_is_understood(
    place: Place, jump_host: Sshd, make_site: MakeSite, open_transport: Open
) -> None:
    place.configure(
        *("Host site-alias", "  HostName 127.0.0.1", f"  Port {place.server.port}", "  ProxyJump jumper"),
        *("Host jumper", "  HostName 127.0.0.1", f"  Port {jump_host.port}", f"  IdentityFile {place.key}"),
        *("Host *", "  User root"),
    )
    place.know(place.server.known_hosts_line, jump_host.known_hosts_line)
    transport = open_transport(make_site(host="site-alias", port=None, user=None))
    assert (await transport.open()).user == "root"


async def test_a_jump_host_s_key_must_be_known_too(
    place: Place, jump_host: Sshd, make_site: MakeSite, open_transport: Open
) -> None:
    place.configure(
        "Host jumper", "  HostName 127.0.0.1", f"  Port {jump_host.port}", "  User root", f"  IdentityFile {place.key}"
    )
    with pytest.raises(HostKeyRefused) as refused:
        await open_transport(make_site(jump=["jumper"])).open()
    assert jump_host.fingerprint in refused.value.message


@pytest.mark.parametrize(
    ("jump", "named"),
    [
        ("no-such-jump.invalid", "no-such-jump.invalid"),
        ("root@:22", "ProxyJump|port 22|site-alias|-J"),
        ("127.0.0.1:1", "127"),
    ],
)
async def test_a_half_configured_jump_is_named(
    place: Place, make_site: MakeSite, open_transport: Open, jump: str, named: str
) -> None:
    place.configure("Host site-alias", "  HostName 127.0.0.1", f"  Port {place.server.port}", f"  ProxyJump {jump}")
    with pytest.raises((UsageError, Unreachable), match=named) as refused:
        await open_transport(make_site(host="site-alias", port=None)).open()
    assert refused.value.exit_code in {2, 4}
    assert refused.value.hint


async def test_a_broken_configuration_is_the_user_s_to_mend(
    place: Place, make_site: MakeSite, open_transport: Open
) -> None:
    place.config.write_text("Host x\n  NoSuchOption yes\n\n  = = =\nPort\n")
    with pytest.raises((UsageError, HostKeyRefused)) as refused:
        await open_transport(make_site()).open()
    assert refused.value.exit_code in {2, 4}


@pytest.fixture
def csh_account(place: Place) -> Iterator[Account]:
    account = Account("surveycsh", "/bin/csh", place.key.with_suffix(".pub").read_text())
    yield account
    account.remove()


async def test_csh_a_banner_and_a_talkative_login_file_do_no_harm(
    place: Place, csh_account: Account, make_site: MakeSite, open_transport: Open
) -> None:
    (csh_account.home / ".cshrc").write_text(
        "echo Welcome; echo 'quota: 93 %' >> /dev/stderr\nset prompt='x! '\nalias python3 'echo no'\n"
    )
    transport = open_transport(make_site(user="surveycsh"))
    there = str(csh_account.home / "work root" / "job.json")
    await transport.put({there: b"{}"})
    assert await transport.get(there) == b"{}"
    words = ("a b", "$HOME", "it's", "!!", "`id`")
    done = await transport.run(Command(argv=("printf", "<%s>", *words)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(f"<{word}>" for word in words), "")
    assert (await transport.open()).user == "surveycsh"


async def test_a_login_shell_finds_what_only_login_files_put_on_path(
    csh_account: Account, make_site: MakeSite, open_transport: Open
) -> None:
    tools = csh_account.home / "tools"
    tools.mkdir()
    (tools / "survey-tool").write_text("#!/bin/sh\necho 7\n")
    (tools / "survey-tool").chmod(0o755)
    tools.chmod(0o755)
    csh_account.home.chmod(0o755)
    (csh_account.home / ".bash_profile").write_text(f"echo hello\nPATH={tools}:$PATH\n")
    plain = open_transport(make_site(user="surveycsh"))
    assert (await plain.run(Command(argv=("survey-tool",)))).returncode == 127
    deep = open_transport(make_site(user="surveycsh", shell="/bin/bash -l"))
    assert (await deep.run(Command(argv=("survey-tool",)))).stdout == "7\n"
