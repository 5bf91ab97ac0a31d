"""What every test shares: a clean environment, and which tests run where."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BEGAN_WITH = dict(os.environ)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_configure() -> None:
    # A runner in the background ignores these, and every program that a test starts would inherit it.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("system"):
            # One worker has the machine's servers to itself: their packages, ports and state are one.
            item.add_marker(pytest.mark.xdist_group("system"))
        elif _shares_with_its_module(item):
            # What a module makes once for all its tests would be made by every worker that gets one of them.
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}-{item.path.stem}"))
    # The longest chains begin first, so that the other workers' tests run beside them.
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("system", "tensorflow")])


def _shares_with_its_module(item: pytest.Item) -> bool:
    """Whether a fixture of it is its module's, made once for all the module's tests."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no public way to ask
    module = item.nodeid.partition("::")[0]
    return any(found[-1].scope == "module" and found[-1].baseid == module for found in definitions.values() if found)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Skipped from here, all of them are one line of the summary.
    if item.get_closest_marker("slow") and not item.config.getoption("--run-slow"):
        pytest.skip("runs in `make test-slow`")
    if item.get_closest_marker("system"):
        if os.environ.get("SURVEY_TEST_SYSTEM") != "1":
            pytest.skip("set SURVEY_TEST_SYSTEM=1 to let the tests install and start servers")
        if hasattr(item.config, "workerinput") and not item.nodeid.endswith("@system"):
            pytest.fail("this pytest-xdist does not keep the system's tests on one worker: install another version")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No variable of the user's, of a scheduler's or of an outer survey reaches a test; its home is empty."""
    for name in list(os.environ):
        if name.startswith(("SURVEY_", "SLURM_", "PBS_", "PJM_", "SGE_")) and name != "SURVEY_TEST_SYSTEM":
            monkeypatch.delenv(name)
    for name in ("CUDA_VISIBLE_DEVICES", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in THREADS:
        # A training within a worker sets them for good: programs that later tests start would compute otherwise.
        if name in BEGAN_WITH:
            monkeypatch.setenv(name, BEGAN_WITH[name])
        else:
            monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home
