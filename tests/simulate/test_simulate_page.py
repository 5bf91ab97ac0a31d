"""The page about the emulated cluster: its example runs, and it knows every flavour and every fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from worlds import EVERY

from orchestrator.simulate.faults import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "simulate.md"


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, env=environment, check=True)


def test_the_page_names_every_flavour_and_every_fault() -> None:
    prose = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    words = set(re.findall(r"`([^`]+)`", prose))
    assert set(EVERY) <= words
    assert set(FAULTS) <= words
