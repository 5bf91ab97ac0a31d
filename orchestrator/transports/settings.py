"""What a transport asks of a site; `orchestrator.config.site.Site` has it all."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SiteSettings", "TransportSettings"]


class TransportSettings(Protocol):
    """The ``transport:`` part of a site file; its keys are described there."""

    @property
    def kind(self) -> str: ...  # noqa: D102 - a key of the file
    @property
    def host(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def user(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def port(self) -> int | None: ...  # noqa: D102 - as above
    @property
    def jump(self) -> tuple[str, ...]: ...  # noqa: D102 - as above
    @property
    def identity_file(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def config_file(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def known_hosts(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def accepted_host_keys(self) -> tuple[str, ...]: ...  # noqa: D102 - as above
    @property
    def control_path(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def control_persist(self) -> float: ...  # noqa: D102 - as above
    @property
    def python(self) -> str: ...  # noqa: D102 - as above
    @property
    def shell(self) -> str: ...  # noqa: D102 - as above
    @property
    def connect_timeout(self) -> float: ...  # noqa: D102 - as above
    @property
    def reconnect_interval(self) -> float: ...  # noqa: D102 - as above
    @property
    def channels(self) -> int: ...  # noqa: D102 - as above


class SiteSettings(Protocol):
    """The keys of a site file that a transport reads."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as above
    @property
    def python(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def work_root(self) -> str | None: ...  # noqa: D102 - as above
    @property
    def work_root_hint(self) -> str: ...  # noqa: D102 - as above
    @property
    def transport(self) -> TransportSettings: ...  # noqa: D102 - as above
