"""Transports by the kind that a site file names."""

from __future__ import annotations

from orchestrator.clock import Clock
from orchestrator.errors import UsageError
from orchestrator.transports.base import Transport
from orchestrator.transports.remote import Link, RemoteTransport
from orchestrator.transports.settings import SiteSettings

__all__ = ["make_transport"]


def make_transport(site: SiteSettings, clock: Clock) -> Transport:
    """Make the transport of ``site``; a remote one connects when it is first used, or by its ``open``.

    Raises
    ------
    UsageError
        If the site file lacks what a remote site needs.
    """
    if site.transport.kind == "local":
        from orchestrator.transports.local import LocalTransport

        return LocalTransport(clock)
    if site.work_root is None:
        raise UsageError(
            f"site {site.name} is reached over ssh, and its file does not say where studies lie there",
            hint=f"Set `work_root:` to a folder of yours there. {site.work_root_hint}".strip(),
        )
    if site.python is None:
        raise UsageError(
            f"site {site.name} is reached over ssh: its jobs cannot have the driver's own Python",
            hint="Set `python:` in the site file, such as `python: python3`.",
        )
    transport = site.transport
    return RemoteTransport(
        _link(site),
        clock,
        name=transport.kind,
        site=site.name,
        shell=transport.shell,
        python=transport.python,
        interval=transport.reconnect_interval,
        channels=transport.channels,
    )


def _link(site: SiteSettings) -> Link:
    if site.transport.kind == "openssh":
        from orchestrator.transports.openssh import OpenSSHLink

        return OpenSSHLink(site)
    from orchestrator.transports.paramiko_ import ParamikoLink

    return ParamikoLink(site)
