from __future__ import annotations

from pathlib import Path

import pytest

from workloads.__main__ import main


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of phantoms; tests must not change it."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    sizes = ["--train", "16", "--validation", "12", "--test", "4"]
    assert main(["phantom", "aneurysm", "--out", str(folder), "--seed", "3", "--noise", "0.1", *sizes]) == 0
    return folder
