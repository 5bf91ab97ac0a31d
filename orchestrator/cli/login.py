"""``survey login``: one interactive login that serves all later connections to a site; host keys taken by name."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import message
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.site import Site

__all__ = ["AcceptOption", "accepting", "login"]

AcceptOption = Annotated[
    str,
    typer.Option(
        "--accept-host-key",
        metavar="SHA256:...",
        show_default=False,
        help="Take this one key of a host that is not known yet (transport paramiko).",
    ),
]
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def login(
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file, with transport: openssh.")],
    accept_host_key: AcceptOption = "",
) -> None:
    """Log in to a site by hand (password, one-time password), and keep the connection for the driver."""
    from orchestrator.config.site import load_site
    from orchestrator.transports import openssh

    profile = accepting(load_site(site), accept_host_key)
    if accept_host_key:
        asyncio.run(_meet(profile))
        message(f"the key of {profile.transport.host} is known now; `survey run --site {site}` connects to it")
        return
    if profile.transport.kind != "openssh":
        raise UsageError(
            f"site {profile.name} is reached by transport {profile.transport.kind}: it keeps no login",
            hint="`transport: {kind: openssh, host: ...}` in a site file of your own does; see docs/remote.md",
        )
    openssh.login(profile)
    message(f"logged in to {profile.transport.host}; `survey run --site {site}` uses this connection")


def accepting(site: Site, fingerprint: str) -> Site:
    """``site``, which takes the host key with this fingerprint from a host that is not known yet; "": as it is.

    Raises
    ------
    UsageError
        If this is no fingerprint, or the site's transport is not the one that takes keys this way.
    """
    if not fingerprint:
        return site
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError(
            f"--accept-host-key {fingerprint}: no fingerprint of a key",
            hint="It reads SHA256: and 43 letters and digits, as the refusal showed it and as `ssh-keygen -l` prints it.",
        )
    transport = site.transport
    if transport.kind != "paramiko":
        words = {"local": "this machine, and shows no key", "openssh": "ssh, which asks about keys itself"}
        raise UsageError(
            f"--accept-host-key: site {site.name} is reached by {words[transport.kind]}",
            hint="Leave the option out." if transport.kind == "local" else f"Type: survey login --site {site.name}",
        )
    keys = (*transport.accepted_host_keys, fingerprint)
    return site.model_copy(update={"transport": transport.model_copy(update={"accepted_host_keys": keys})})


async def _meet(site: Site) -> None:
    """Connect once, so that the key is written down."""
    from orchestrator.clock import SystemClock
    from orchestrator.transports.registry import make_transport
    from orchestrator.transports.remote import RemoteTransport

    transport = make_transport(site, SystemClock())
    try:
        if isinstance(transport, RemoteTransport):
            await transport.open()
    finally:
        await transport.close()
