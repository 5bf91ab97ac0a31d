from __future__ import annotations

from pathlib import Path

import pytest

from workloads.__main__ import main


def made(tmp_path_factory: pytest.TempPathFactory, task: str, *options: str) -> Path:
    """A small data set of phantoms: 16 training, 12 validation and 4 test cases."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    sizes = ["--train", "16", "--validation", "12", "--test", "4"]
    assert main(["phantom", task, "--out", str(folder), "--seed", "3", *sizes, *options]) == 0
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of angiograms; tests must not change them."""
    return made(tmp_path_factory, "aneurysm", "--noise", "0.1")


@pytest.fixture(scope="session")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of brain with metastases; tests must not change them."""
    return made(tmp_path_factory, "metastasis", "--noise", "0.03", "--confounders", "1")


@pytest.fixture(scope="session")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small chests with normal and abnormal lung; tests must not change them."""
    shape = ["--shape", "32", "32", "16", "--noise", "30"]
    return made(tmp_path_factory, "covid-3d", "--train", "8", "--validation", "4", *shape)
