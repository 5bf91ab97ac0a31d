"""Which sites a study runs on, and what is different on each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from orchestrator.config.fields import Frozen, OneLine, Variables, Whole
from orchestrator.config.mistakes import mistake_at
from orchestrator.config.sampling import BareName
from orchestrator.config.site import BatchOptions

__all__ = ["SiteChoice", "SiteOrName", "check_shares"]


class SiteChoice(Frozen):
    """A site that a study runs on."""

    name: OneLine = Field(description="A site's name (`survey sites`) or a site file.")
    share: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="Most trials in flight there at a time. Default: as many as parallel says."
    )
    batch: BatchOptions = Field(default=BatchOptions(), description="What of the study's batch is different there.")
    environment: Variables = Field(default={}, description="Environment variables of the command, there.")
    workdir: Annotated[OneLine, AfterValidator(os.path.expanduser)] | None = Field(
        default=None, description="Where the command runs, there."
    )

    @property
    def batch_changes(self) -> dict[str, Any]:
        """What is written under ``batch``, and nothing of its defaults."""
        return {key: getattr(self.batch, key) for key in self.batch.model_fields_set}


SiteOrName = Annotated[SiteChoice, BareName()]


def check_shares(sites: Sequence[SiteChoice], parallel: int) -> None:
    """Refuse a site that is named twice, and shares that leave slots empty for ever.

    Raises
    ------
    ValueError
        With the place of the mistake.
    """
    for index, site in enumerate(sites):
        if site.name in [other.name for other in sites[:index]]:
            raise mistake_at(("sites", index), f'"{site.name}" is named twice')
    shares = [site.share or parallel for site in sites]
    if sites and sum(shares) < parallel:
        raise mistake_at(("sites",), f"the shares are {sum(shares)} in all, and parallel is {parallel}")
