"""What every verb of the command line needs is light to import."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["atomic", "database", "lease", "ledger", "provenance", "snapshot"])
def test_reading_a_study_needs_neither_optuna_nor_sqlalchemy(module: str) -> None:
    program = f"import sys, orchestrator.store.{module}; print(sorted({{'optuna', 'sqlalchemy', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
