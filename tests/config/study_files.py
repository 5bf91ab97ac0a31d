"""Files for the tests of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from orchestrator.config.study import Study

Write: TypeAlias = Callable[[str], Path]
Load: TypeAlias = Callable[..., Study]

STUDY = """\
schema_version: 1
name: aneurysm
objective: {metric: pauc, direction: maximize}
command: [python, train.py]
trials: 20
space:
  lr: {type: float, low: 1e-4, high: 1e-1, log: true}
"""


def writer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write study.yaml in ``folder`` and go there, so that messages hold its bare name."""
    monkeypatch.chdir(folder)

    def write(text: str) -> Path:
        path = Path("study.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    return write


def loader(write: Write) -> Load:
    """Load a good study with ``further`` lines at its end, or with another space."""

    def load(further: str = "", *, space: str = "") -> Study:
        text = STUDY
        if space:
            text = STUDY[: STUDY.index("space:")] + "space:\n" + "".join(f"  {line}\n" for line in space.splitlines())
        return Study.load(write(text + further))

    return load
