"""The hosts on the way to a site, for paramiko: from the site file and from ~/.ssh/config.

paramiko reads ``ProxyJump`` but leaves the jumping to its caller; here each hop gets its own address,
user, keys and known hosts, as ssh would give it.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from orchestrator.errors import UsageError
from orchestrator.transports.settings import SiteSettings

__all__ = ["Hop", "route"]

_HOP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]]+\]|[^:@\s\[\]]+)(?::(?P<port>\d+))?")
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One host on the way.

    Attributes
    ----------
    name : str
        As the site file or ~/.ssh/config names it, for messages.
    address : str
        What is connected to, and looked up in known_hosts.
    keys : tuple of str
        Key files that are there, in the order in which they are offered.
    explicit : bool
        Whether the key files were named by the user; then the agent's keys come after them.
    known_hosts : tuple of str
        The first is the one that is written to.
    key_alias : str
        Under which name its key is known, if not under its own (``HostKeyAlias``).
    """

    name: str
    address: str
    port: int
    user: str
    keys: tuple[str, ...]
    explicit: bool
    known_hosts: tuple[str, ...]
    key_alias: str = ""

    @property
    def known_as(self) -> str:
        """Its name in known_hosts."""
        return self.key_alias or (self.address if self.port == 22 else f"[{self.address}]:{self.port}")


def route(site: SiteSettings) -> tuple[Hop, ...]:
    """Hosts on the way to ``site``, nearest first, the login node last.

    Raises
    ------
    UsageError
        If ~/.ssh/config cannot be read, asks for what paramiko has not, or leads in a circle.
    """
    transport = site.transport
    config = _config(site)
    hops: list[Hop] = []
    target = transport.host or ""
    if transport.jump:
        for written in transport.jump:
            user, host, port = _parse(site, written)
            hops.append(_hop(site, config, host, user=user, port=port))
        return (*hops, _last(site, config))
    for written in _jumps(site, config, target, ()):
        user, host, port = _parse(site, written)
        hops.append(_hop(site, config, host, user=user, port=port))
    return (*hops, _last(site, config))


def _last(site: SiteSettings, config: paramiko.SSHConfig) -> Hop:
    transport = site.transport
    return _hop(
        site, config, transport.host or "", user=transport.user, port=transport.port, identity=transport.identity_file
    )


def _config(site: SiteSettings) -> paramiko.SSHConfig:
    given = site.transport.config_file
    path = os.path.expanduser(given or "~/.ssh/config")
    try:
        return paramiko.SSHConfig.from_path(path)
    except FileNotFoundError as error:
        if given is None:
            return paramiko.SSHConfig()
        raise UsageError(f"site {site.name}: there is no file {path}", hint="Look at transport.config_file.") from error
    except (OSError, UnicodeDecodeError, paramiko.ConfigParseError) as error:
        raise UsageError(f"site {site.name}: {path} cannot be read: {error}") from error


def _lookup(site: SiteSettings, config: paramiko.SSHConfig, host: str) -> Any:
    try:
        return config.lookup(host)
    except Exception as error:  # paramiko raises of many kinds, ImportError for `Match exec` among them
        raise UsageError(
            f"site {site.name}: the part of ~/.ssh/config for {host} cannot be used: {error}",
            hint="Set `transport: kind: openssh`, which leaves all of it to ssh itself.",
        ) from error


def _jumps(site: SiteSettings, config: paramiko.SSHConfig, host: str, seen: tuple[str, ...]) -> list[str]:
    """What ~/.ssh/config says of the way to ``host``, jumps of jumps included."""
    if host in seen:
        circle = " -> ".join((*seen, host))
        raise UsageError(f"site {site.name}: ProxyJump leads in a circle: {circle}", hint="Mend ~/.ssh/config.")
    found = _lookup(site, config, host)
    jump = str(found.get("proxyjump") or "none")
    if jump.lower() == "none":
        if str(found.get("proxycommand") or "none").lower() != "none":
            raise UsageError(
                f"site {site.name}: ~/.ssh/config reaches {host} by a ProxyCommand, which paramiko does not run here",
                hint="Write it as ProxyJump, or set `transport: kind: openssh`.",
            )
        return []
    hops = [word.strip() for word in jump.split(",")]
    _, first, _ = _parse(site, hops[0])
    return [*_jumps(site, config, first, (*seen, host)), *hops]


def _parse(site: SiteSettings, written: str) -> tuple[str | None, str, int | None]:
    match = _HOP.fullmatch(written.removeprefix("ssh://"))
    if match is None:
        raise UsageError(
            f"site {site.name}: ProxyJump names {written!r}, which is no [user@]host[:port]",
            hint="Mend ProxyJump in ~/.ssh/config, or `jump:` in the site file.",
        )
    return match["user"], match["host"].strip("[]"), int(match["port"]) if match["port"] else None


def _hop(
    site: SiteSettings,
    config: paramiko.SSHConfig,
    host: str,
    *,
    user: str | None,
    port: int | None,
    identity: str | None = None,
) -> Hop:
    found = _lookup(site, config, host)
    named: Sequence[str] = [identity] if identity else list(found.get("identityfile") or ())
    for path in [identity] if identity else []:
        if not os.path.isfile(os.path.expanduser(path)):
            raise UsageError(f"site {site.name}: there is no key file {path}", hint="Look at transport.identity_file.")
    files = named or [f"~/.ssh/{name}" for name in _DEFAULT_KEYS]
    keys = tuple(path for path in map(os.path.expanduser, files) if os.path.isfile(path))
    known = site.transport.known_hosts or str(found.get("userknownhostsfile") or "~/.ssh/known_hosts")
    own = [known] if site.transport.known_hosts else known.split()
    return Hop(
        name=host,
        address=str(found.get("hostname") or host),
        port=port or int(found.get("port") or 22),
        user=user or str(found.get("user") or getpass.getuser()),
        keys=keys,
        explicit=bool(named),
        known_hosts=tuple(os.path.expanduser(path) for path in (*own, "/etc/ssh/ssh_known_hosts")),
        key_alias=str(found.get("hostkeyalias") or ""),
    )
