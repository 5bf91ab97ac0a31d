"""Chaos by the thousand: ``python tests/chaos/chaos_by_hand.py --runs 5000``; one again: ``--seed 17``.

Prints the seeds that failed, each with its plan and what did not hold, and ends with 1 if there were any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pprint
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence

from chaos_campaign import Plan, play
from chaos_world import fast_folder, processes

__all__ = ["main", "runs"]


def runs(seeds: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
    """Play the plan of each seed; what ends in an exception counts as a violation, too."""
    with processes(), fast_folder() as folder:
        for seed in seeds:
            try:
                wrong = play(Plan.drawn(seed), folder)
            except Exception:
                wrong = [traceback.format_exc()]
            yield seed, wrong


def say(*lines: str) -> None:
    """Print lines at once, also into a pipe."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _part(seeds: range) -> list[tuple[int, list[str]]]:
    return [(seed, wrong) for seed, wrong in runs(seeds) if wrong]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many seeds (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="this seed alone, with its plan")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        say(pprint.pformat(Plan.drawn(options.seed), sort_dicts=False))
        ((_, wrong),) = runs([options.seed])
        say("\n".join(wrong) or "all invariants hold")
        return int(bool(wrong))
    begun, bad = time.monotonic(), 0
    parts = [
        range(start, min(start + 20, options.first + options.runs))
        for start in range(options.first, options.first + options.runs, 20)
    ]
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for failed in pool.imap_unordered(_part, parts):
            for seed, wrong in failed:
                bad += 1
                say(f"seed {seed}: again by `{sys.executable} {__file__} --seed {seed}`")
                say(pprint.pformat(Plan.drawn(seed), sort_dicts=False), *wrong)
    say(f"{options.runs} runs from seed {options.first}, {bad} failed, {time.monotonic() - begun:.0f} s")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
