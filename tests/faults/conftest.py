"""Where the tests of the faults keep their files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In virtual time waiting for a disk is most of what a study costs: its files lie in memory, where that can be had."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="survey-test-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)
