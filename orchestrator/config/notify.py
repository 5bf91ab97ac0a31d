"""Who is told when a study pauses or ends: in study.yaml, or for all of a user's studies in ``notify.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config.fields import Frozen, OneLine, Text
from orchestrator.config.loading import load_model
from orchestrator.config.mistakes import mistake_at

__all__ = ["Notify", "notify_file", "users_notify"]


def _address(value: str) -> str:
    # What a mail program could take for an option, a second address or a header is none.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._%+=-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?", value):
        raise ValueError(f'expected one mail address, found "{value}"')
    return value


Address: TypeAlias = Annotated[OneLine, Field(max_length=254), AfterValidator(_address)]


class Notify(Frozen):
    """Who is told when a study pauses or ends: one of command, mail."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="Words of a command, run without a shell; the message is its input."
    )
    mail: Address | None = Field(default=None, description="A mail address; the machine's sendmail takes it there.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.mail is None):
            raise mistake_at((), "needs exactly one of command, mail")
        return self


def notify_file() -> Path:
    """Where a user says it for all studies."""
    import platformdirs

    from orchestrator.resources import APP

    return Path(platformdirs.user_config_dir(APP)) / "notify.yaml"


def users_notify() -> Notify | None:
    """What the user says for all studies; None if nothing.

    Raises
    ------
    ConfigError
        If the file is wrong.
    """
    path = notify_file()
    return load_model(path, Notify, kind="notify") if path.is_file() else None
