"""known_hosts as paramiko's transport reads it: several nodes of a name, patterns, revoked keys."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from orchestrator.config.site import Site
from orchestrator.transports.host_keys import KnownHosts
from orchestrator.transports.route import Hop, route
from orchestrator.transports.trouble import HostKeyRefused

ONE, OTHER, THIRD = (paramiko.ECDSAKey.generate() for _ in range(3))


def line(names: str, key: paramiko.PKey) -> str:
    return f"{names} {key.get_name()} {key.get_base64()} a comment\n"


def known(path: Path, *lines: str, accepted: tuple[str, ...] = ()) -> KnownHosts:
    path.write_text("# known hosts\n\n" + "".join(lines))
    hop = Hop(
        name="flow", address="flow", port=2222, user="u", keys=(), explicit=False, known_hosts=(str(path), "/nowhere")
    )
    return KnownHosts("flow", hop, accepted)


def test_each_of_the_keys_of_a_name_is_known_and_no_other(tmp_path: Path) -> None:
    hosts = known(tmp_path / "k", line("[flow]:2222", ONE), line("other,[flow]:2222", OTHER), line("flow", THIRD))
    hosts.check(ONE)
    hosts.check(OTHER)
    with pytest.raises(HostKeyRefused, match="another one than before"):
        hosts.check(THIRD)


@pytest.mark.parametrize(
    "names",
    [paramiko.HostKeys.hash_host("[flow]:2222"), "[FLOW]:2222", "[fl*]:2222", "x,[f?ow]:*"],
    ids=["hashed", "capitals", "star", "list"],
)
def test_hashed_names_and_patterns_are_understood(tmp_path: Path, names: str) -> None:
    known(tmp_path / "k", line(names, ONE)).check(ONE)


@pytest.mark.parametrize("names", ["[*]:2222,![flow]:2222", "flow", "@cert-authority [flow]:2222"])
def test_a_line_that_is_not_meant_makes_nothing_known(tmp_path: Path, names: str) -> None:
    with pytest.raises(HostKeyRefused, match="is not known"):
        known(tmp_path / "k", line(names, ONE)).check(ONE)


def test_a_revoked_key_is_refused_even_if_it_is_accepted_by_name(tmp_path: Path) -> None:
    hosts = known(tmp_path / "k", line("@revoked [flow]:2222", ONE), accepted=(str(ONE.fingerprint),))
    with pytest.raises(HostKeyRefused):
        hosts.check(ONE)


def test_a_key_that_is_taken_by_name_is_known_the_next_time(tmp_path: Path) -> None:
    known(tmp_path / "k", accepted=(str(ONE.fingerprint),)).check(ONE)
    known(tmp_path / "k", (tmp_path / "k").read_text()).check(ONE)


def test_lines_that_no_one_can_read_are_passed_over(tmp_path: Path) -> None:
    known(tmp_path / "k", "[flow]:2222 ssh-rsa !!!\n", "[flow]:2222 odd-kind AAAA\n", line("[flow]:2222", ONE)).check(
        ONE
    )


def test_a_host_whose_key_goes_by_another_name_is_known_by_that_name_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host flow\n  HostName 10.0.0.1\n  Port 2222\n  HostKeyAlias nodes\n  UserKnownHostsFile {tmp_path}/k\n"
    )
    transport = {"kind": "paramiko", "host": "flow", "config_file": str(config)}
    site = Site.model_validate({"name": "flow", "scheduler": "slurm", "transport": transport})
    (hop,) = route(site)
    assert (hop.address, hop.port) == ("10.0.0.1", 2222)
    (tmp_path / "k").write_text(line("nodes", ONE) + line("[10.0.0.1]:2222", OTHER))
    hosts = KnownHosts("flow", hop, ())
    hosts.check(ONE)
    with pytest.raises(HostKeyRefused):
        hosts.check(OTHER)
