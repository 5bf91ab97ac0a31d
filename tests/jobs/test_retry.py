"""What follows an attempt, by its verdict: from the attempts on record and the site's own words alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.site import BatchOptions, Site, load_site
from orchestrator.jobs.placement import place
from orchestrator.jobs.retry import CHECKPOINTED, NEVER_RAN, RetryPolicy, left_checkpoint, with_more_memory
from orchestrator.model import Attempt, Outcome, Resources, Verdict


def ended(*verdicts: Verdict, notes: tuple[str, ...] = (), **outcome: Any) -> list[Attempt]:
    """Attempts of one job that ended so, one after the other."""
    return [
        Attempt(
            key="00000",
            number=number,
            tag=f"t{number}",
            fence="",
            planned=0.0,
            notes=notes,
            outcome=Outcome(key="00000", verdict=verdict, **outcome),
        )
        for number, verdict in enumerate(verdicts, start=1)
    ]


def further(verdict: Verdict, *, notes: tuple[str, ...] = (), roomier: bool = False, **policy: Any) -> int:
    """How many attempts follow the first one, if all end so."""
    rule = RetryPolicy(**policy)
    count = 1
    while rule.again(ended(*[verdict] * count, notes=notes), roomier=roomier):
        count += 1
        assert count < 100
    return count - 1


@pytest.mark.parametrize(
    ("verdict", "attempts"),
    [
        (Verdict.NODE_FAILURE, 3),
        (Verdict.PREEMPTED, 5),
        (Verdict.LOST, 2),
        (Verdict.REQUEUE_REQUESTED, 20),
        (Verdict.FAILED, 0),
        (Verdict.CANCELLED, 0),
        (Verdict.REJECTED, 0),
        (Verdict.TIMEOUT, 0),
        (Verdict.OUT_OF_MEMORY, 0),
    ],
)
def test_what_the_program_cannot_help_is_tried_again_so_often_and_the_rest_is_not(
    verdict: Verdict, attempts: int
) -> None:
    assert further(verdict) == attempts


def test_a_timeout_is_followed_by_another_attempt_only_where_a_checkpoint_was_written() -> None:
    assert further(Verdict.TIMEOUT, notes=(CHECKPOINTED,)) == 5
    decision = RetryPolicy().decide(ended(Verdict.TIMEOUT))
    assert (decision.again, decision.why[:28]) == (False, "no checkpoint was written in")
    # The one that wrote nothing is the last, however much those before it wrote.
    progress = ended(Verdict.TIMEOUT, Verdict.TIMEOUT, notes=(CHECKPOINTED,))
    assert not RetryPolicy().again([*progress, *ended(Verdict.TIMEOUT)])


def test_out_of_memory_is_tried_again_only_with_more_of_it() -> None:
    assert further(Verdict.OUT_OF_MEMORY, roomier=True) == 2
    assert "no more memory" in RetryPolicy().decide(ended(Verdict.OUT_OF_MEMORY)).why


def test_each_verdict_has_a_count_of_its_own() -> None:
    mixed = ended(Verdict.PREEMPTED, Verdict.LOST, Verdict.PREEMPTED, Verdict.LOST)
    assert RetryPolicy().again(mixed)
    assert not RetryPolicy().again([*mixed, *ended(Verdict.LOST)])
    assert RetryPolicy().again([*mixed, *ended(Verdict.PREEMPTED)])


def test_the_study_s_numbers_go_over_the_defaults() -> None:
    assert further(Verdict.FAILED, limits={Verdict.FAILED: 2}) == 2
    assert further(Verdict.LOST, limits={}) == 0
    assert RetryPolicy(limits={}).decide(ended(Verdict.LOST)).why == "`retry: lost` is 0"
    spent = RetryPolicy().decide(ended(*[Verdict.LOST] * 3))
    assert spent.why == "3 attempts have ended so, and `retry: lost` is 2"


def test_an_attempt_that_never_ran_counts_for_nothing() -> None:
    assert RetryPolicy(limits={}).again(ended(Verdict.LOST, notes=(NEVER_RAN,)))
    voids = ended(*[Verdict.LOST] * 50, notes=(NEVER_RAN,))
    assert RetryPolicy().again([*voids, *ended(Verdict.LOST, Verdict.LOST)])


@pytest.mark.parametrize("verdict", [Verdict.SUCCEEDED, Verdict.STOPPED])
def test_a_result_is_never_computed_again(verdict: Verdict) -> None:
    assert not RetryPolicy(limits=dict.fromkeys(Verdict, 9)).again(ended(verdict, notes=(CHECKPOINTED,)))


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (None, False),
        ({"tag": "t1"}, False),  # an agent of an older version says nothing
        ({"tag": "t1", "checkpoint": None}, False),
        ({"tag": "t1", "checkpoint": 1795223524.25}, True),
        ({"tag": "another", "checkpoint": 1795223524.25}, False),
    ],
)
def test_it_is_the_attempt_s_own_report_that_tells_of_a_checkpoint(report: dict[str, Any] | None, said: bool) -> None:
    assert left_checkpoint(report, "t1") is said


# Where more memory comes from

BY_SHARE = """
name: shares
scheduler: slurm
memory_syntax: --mem={memory}M
queues:
  - {name: all, unit: share, cores_per_unit: 64, memory_per_unit: 256GB}
"""
BY_PART = """
name: parts
scheduler: gridengine
queue_flag: -l {queue}={units}
queues:
  - {name: quarter, unit: fraction, cores_per_unit: 16, memory_per_unit: 64GB, max_units: 1, weight: 0.25}
  - {name: half, unit: fraction, cores_per_unit: 32, memory_per_unit: 128GB, max_units: 1, weight: 0.5}
"""
BY_GPU = """
name: gpus
scheduler: pjm
queues:
  - {name: some, unit: gpu, gpus_per_unit: 1, cores_per_unit: 30, memory_per_unit: 100GB, max_units: 4}
"""
BY_NODE = """
name: nodes
scheduler: pjm
queues:
  - {name: usual, unit: node, cores_per_unit: 48, memory_per_unit: 32GB}
"""


@pytest.fixture
def site(tmp_path: Path) -> Any:
    def make(text: str) -> Site:
        path = tmp_path / "site.yaml"
        path.write_text("schema_version: 1" + text)
        return load_site(path)

    return make


def more(site: Site, had: Resources, *, packed: int = 1, used: float | None = None, **batch: Any) -> int | None:
    """Memory of the attempt after one that ran out of memory."""
    attempt = dataclasses.replace(ended(Verdict.OUT_OF_MEMORY, max_rss=used)[0], packed=packed)
    wanted = with_more_memory(site, BatchOptions(**batch), had, attempt, 2.0)
    return None if wanted is None else wanted.memory


def test_where_memory_is_asked_for_the_factor_is_taken_and_half_the_step_where_that_is_too_much(site: Any) -> None:
    shares = site(BY_SHARE)
    assert more(shares, Resources(memory=8192)) == 16384
    assert more(shares, Resources(memory=160 * 1024)) == 240 * 1024
    assert more(shares, Resources(memory=200 * 1024)) is None


def test_without_a_number_the_memory_that_was_used_is_the_measure(site: Any) -> None:
    assert more(site(BY_SHARE), Resources(), used=3000.4) == 6002
    assert more(site(BY_SHARE), Resources()) is None


def test_where_memory_comes_with_the_queue_a_larger_queue_is_taken(site: Any) -> None:
    parts = site(BY_PART)
    wanted = more(parts, Resources(cpus=4))
    assert wanted == 128 * 1024
    assert more(parts, Resources(cpus=4, memory=wanted)) is None
    assert more(parts, Resources(cpus=4), queue="quarter") is None


def test_where_memory_comes_with_gpus_more_of_them_are_taken_up_to_a_whole_node(site: Any) -> None:
    gpus = site(BY_GPU)
    first = more(gpus, Resources(gpus=1))
    assert first == 200 * 1024
    second = more(gpus, Resources(gpus=1, memory=first))
    assert second == 400 * 1024
    assert place(gpus, Resources(gpus=1, memory=second), BatchOptions()).gpus == 4
    assert more(gpus, Resources(gpus=1, memory=second)) is None


def test_on_whole_nodes_fewer_attempts_share_one_and_one_alone_has_all_there_is(site: Any) -> None:
    nodes = site(BY_NODE)
    assert more(nodes, Resources(cpus=12), packed=4, pack="auto") == 16384
    assert more(nodes, Resources(cpus=12, memory=16384), packed=2, pack="auto") == 32768
    assert more(nodes, Resources(cpus=12, memory=32768), pack="auto") is None
    assert more(nodes, Resources(cpus=12)) is None


def test_a_site_that_says_nothing_of_memory_cannot_give_more(site: Any) -> None:
    assert more(load_site("local"), Resources(), used=100.0) is None
    assert more(load_site("local"), Resources(memory=100)) is None
