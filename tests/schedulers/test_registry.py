"""Schedulers by name."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.schedulers import registry
from orchestrator.schedulers.base import Scheduler, SchedulerOptions
from orchestrator.schedulers.registry import GROUP, make_scheduler, scheduler_names
from orchestrator.schedulers.slurm import Slurm


class Brought(Slurm):
    """A scheduler that another package brings."""

    name = "brought"


class FromElsewhere:
    """An entry point of another package."""

    def __init__(self, name: str, loads: Any) -> None:
        self.name = name
        self.value = "elsewhere:Brought"
        self.dist = None
        self._loads = loads

    def load(self) -> Any:
        if isinstance(self._loads, Exception):
            raise self._loads
        return self._loads


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        FromElsewhere("brought", Brought),
        FromElsewhere("broken", ImportError("no module named libbatch")),
        FromElsewhere("odd", dict),
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[FromElsewhere]:
        assert group == GROUP
        return [point for point in points if name is None or point.name == name]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


@pytest.mark.parametrize("name", ["gridengine", "pbs", "pjm", "slurm"])
def test_each_of_ours_is_made_by_its_name_with_its_options(name: str) -> None:
    options = SchedulerOptions(timeout=7.0)
    scheduler = make_scheduler(name, options)
    assert (scheduler.name, scheduler.options) == (name, options)
    assert scheduler.template == f"{name}.sh.j2"


def test_local_is_known() -> None:
    assert "local" in scheduler_names()
    module, attribute = registry._OURS["local"]
    assert issubclass(getattr(__import__(module, fromlist=[attribute]), attribute), Scheduler)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown scheduler 'slrum'") as caught:
        make_scheduler("slrum")
    assert "Did you mean 'slurm'?" in str(caught.value)


def test_an_option_that_the_adaptor_does_not_understand_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="does not understand the option 'dialekt'") as caught:
        make_scheduler("pjm", SchedulerOptions(extra={"dialekt": "wrapped"}))
    assert "Did you mean 'dialect'?" in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
def test_another_package_s_scheduler_is_made_by_its_name() -> None:
    assert isinstance(make_scheduler("brought"), Brought)
    assert "brought" in scheduler_names()


@pytest.mark.usefixtures("elsewhere")
def test_a_package_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(UsageError, match="libbatch") as caught:
        make_scheduler("broken")
    assert "elsewhere:Brought" in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
def test_an_entry_point_that_is_no_scheduler_is_refused() -> None:
    with pytest.raises(UsageError, match="is no Scheduler"):
        make_scheduler("odd")
