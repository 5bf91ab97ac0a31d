"""Two hundred runs drawn from their seeds; thousands by ``python tests/chaos/chaos_by_hand.py --runs 5000``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import chaos_by_hand
import pytest
from chaos_campaign import Plan, play, undisturbed
from chaos_fresh import opened_in_a_fresh_process

pytestmark = pytest.mark.usefixtures("each_driver_is_a_process_of_its_own")

RUNS, TOGETHER = 200, 10


def again(seed: int) -> str:
    return f"again by `python {Path(chaos_by_hand.__file__).name} --seed {seed}`: {Plan.drawn(seed)}"


@pytest.mark.parametrize("first", range(0, RUNS, TOGETHER))
def test_whatever_a_seed_brings_every_invariant_holds(place: Path, first: int) -> None:
    for seed in range(first, first + TOGETHER):
        assert play(Plan.drawn(seed), place) == [], again(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(RUNS, 2000, 100))
def test_whatever_more_seeds_bring_every_invariant_holds(place: Path, first: int) -> None:
    for seed in range(first, first + 100):
        assert play(Plan.drawn(seed), place) == [], again(seed)


def test_databases_that_have_seen_chaos_open_twice_in_fresh_processes(place: Path) -> None:
    expected = undisturbed(place)
    seeds = [seed for seed in range(40) if "storage" not in Plan.drawn(seed).study and Plan.drawn(seed).ends][:4]
    for seed in seeds:
        assert play(Plan.drawn(seed), place) == [], again(seed)
    folders = [place / str(seed) / "chaos" for seed in seeds]
    once, twice = opened_in_a_fresh_process(folders), opened_in_a_fresh_process(folders)
    assert once == twice
    for seed, found in zip(seeds, once, strict=True):
        asked = [params for _, _, params, _ in found]
        assert asked == [json.loads(json.dumps(dict(params))) for _, _, params, _ in expected[: len(asked)]], seed


def test_a_seed_stands_for_one_plan() -> None:
    assert str(Plan.drawn(5)).split("queue_wait")[0] == str(Plan.drawn(5)).split("queue_wait")[0]
    assert len({str(Plan.drawn(seed).ends) for seed in range(30)}) > 15


def test_one_command_plays_a_seed_again_and_says_what_it_stands_for() -> None:
    done = subprocess.run(
        [sys.executable, chaos_by_hand.__file__, "--seed", "4"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Plan\(seed=4,", done.stdout)
    assert done.stdout.endswith("all invariants hold\n")
