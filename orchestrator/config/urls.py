"""URLs of databases in files: never with a password, but with the name of an environment variable in its place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from orchestrator.config.fields import OneLine
from orchestrator.errors import UsageError

__all__ = ["DatabaseURL", "filled"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        secrets = [parts.password, *(value for key, value in parse_qsl(parts.query) if "password" in key.lower())]
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if any(secret and not _VARIABLE.fullmatch(secret) for secret in secrets):
        raise ValueError("no password in a file: write ${NAME} in its place and set that environment variable")
    return url


DatabaseURL: TypeAlias = Annotated[OneLine, AfterValidator(_without_password)]
"""A URL whose password, if it has one, is ``${NAME}``."""


def filled(url: str, where: str, environ: Mapping[str, str] | None = None) -> str:
    """``url`` with its ``${NAME}`` filled from the environment.

    The result may hold a password: it is for the database alone, never for a file or a message.

    Parameters
    ----------
    where : str
        What the URL belongs to, for messages.

    Raises
    ------
    UsageError
        If a variable is not set.
    """
    variables = os.environ if environ is None else environ

    def fill(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise UsageError(f"{where}: the environment variable {match[1]} is not set")
        return variables[match[1]]

    return _VARIABLE.sub(fill, url)
