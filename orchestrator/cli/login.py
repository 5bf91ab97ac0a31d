"""``survey login``: one interactive login that serves all later connections to a site."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.output import message
from orchestrator.errors import UsageError

__all__ = ["login"]


def login(
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file, with transport: openssh.")],
) -> None:
    """Log in to a site by hand (password, one-time password), and keep the connection for the driver."""
    from orchestrator.config.site import load_site
    from orchestrator.transports import openssh

    profile = load_site(site)
    if profile.transport.kind != "openssh":
        raise UsageError(
            f"site {profile.name} is reached by transport {profile.transport.kind}: it keeps no login",
            hint="`transport: {kind: openssh, host: ...}` in a site file of your own does; see docs/remote.md",
        )
    openssh.login(profile)
    message(f"logged in to {profile.transport.host}; `survey run --site {site}` uses this connection")
