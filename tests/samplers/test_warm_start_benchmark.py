"""The benchmark of warm starts: it runs, goes on where it was, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "search" / "warm_start.py"


def measure(folder: Path, *words: str) -> str:
    command = [sys.executable, str(SCRIPT), "--seeds", "1", "--workers", "1", "--out", "warm.jsonl", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_warm_and_cold_starts_are_paired_and_what_was_run_is_not_run_again(tmp_path: Path) -> None:
    name = "ackley5, reversed"
    said = measure(tmp_path, "--problems", name, "--figure", "warm.svg")
    rows = [json.loads(line) for line in (tmp_path / "warm.jsonl").read_text().splitlines()]
    assert [(row["engine"], row["problem"], len(row["curve"])) for row in rows] == [
        ("cold", name, 15),
        ("warm", name, 15),
    ]
    assert f"{name} N=1 seed 3000: " in said
    ratio = rows[1]["regret"] / rows[0]["regret"]
    assert f"| {name} | {ratio:.2f} |" in said
    assert f"| **unrelated, geometric mean** | **{ratio:.2f}** ({ratio:.2f} - {ratio:.2f}) |" in said
    assert "<svg" in (tmp_path / "warm.svg").read_text()
    assert f"{name} N=1" not in measure(tmp_path, "--problems", name)
