"""Folders in memory, and drivers that count as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_world import fast_folder, processes


@pytest.fixture(scope="module")
def each_driver_is_a_process_of_its_own() -> Iterator[None]:
    with processes():
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder
