"""What was run: one JSON line for each search, appended and flushed, so that an interrupted comparison goes on."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines import ENGINES
from paired import Key
from problems import ALL
from protocol import search
from versions import versions

__all__ = ["load", "run"]


def load(path: Path, trials: int) -> dict[Key, Mapping[str, Any]]:
    """Read searches of that many trials; a last line that was cut short is passed over."""
    found: dict[Key, Mapping[str, Any]] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(text)
            except json.JSONDecodeError:
                continue
            if len(row["curve"]) == trials:
                found[row["engine"], row["problem"], row["workers"], row["seed"]] = row
    return found


def run(
    path: Path,
    *,
    engines: Sequence[str],
    problems: Sequence[str],
    workers: Sequence[int],
    seeds: Sequence[int],
    trials: int,
    said: Callable[[str], None] = lambda _: None,
) -> dict[Key, Mapping[str, Any]]:
    """Run the searches that ``path`` lacks, seed by seed, and return all that it holds.

    Random search pays no heed to what is pending, but its trials end in another order: it is run for each N.
    """
    done = load(path, trials)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        if torn:
            out.write("\n")
        for seed, problem, count, name in itertools.product(seeds, problems, workers, engines):
            if (name, problem, count, seed) in done:
                continue
            made = search(ALL[problem], functools.partial(_make, name), seed=seed, workers=count, trials=trials)
            row: dict[str, Any] = {"engine": name, "problem": problem, "workers": count, "seed": seed, **made}
            row["curve"] = [None if math.isnan(value) else round(value, 9) for value in made["curve"]]
            row["regret"] = None if math.isnan(made["regret"]) else made["regret"]
            row["versions"] = versions(name)
            out.write(json.dumps(row) + "\n")
            out.flush()
            done[name, problem, count, seed] = row
            said(f"{name} {problem} N={count} seed {seed}: regret {made['regret']:.4f}")
    return done


def _make(name: str, seed: int) -> Any:
    return ENGINES[name](seed)
