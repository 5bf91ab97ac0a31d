from __future__ import annotations

import pytest

from orchestrator.config.site import BatchOptions, Queue, Site, load_site
from orchestrator.errors import UsageError
from orchestrator.jobs.placement import place
from orchestrator.model import Resources

HOUR = 3600
GROUP = BatchOptions(group="gx01")


def batch(**options: object) -> BatchOptions:
    return BatchOptions.model_validate({"group": "gx01", **options})


def test_one_gpu_goes_to_the_queue_that_sells_single_gpus() -> None:
    placement = place(load_site("flow-type2"), Resources(gpus=1, walltime=HOUR), GROUP)
    assert (placement.queue, placement.units, placement.pack) == ("cx-share", 1, 1)


def test_a_walltime_over_the_cheapest_queues_limit_goes_to_the_next() -> None:
    placement = place(load_site("flow-type2"), Resources(gpus=1, walltime=200 * HOUR), GROUP)
    assert (placement.queue, placement.walltime) == ("cx-single", 200 * HOUR)


def test_memory_over_a_gpus_share_takes_more_or_goes_elsewhere() -> None:
    assert place(load_site("flow-type2"), Resources(gpus=1, memory=200 * 1024), GROUP).queue == "cx-single"
    wisteria = place(load_site("wisteria-aquarius"), Resources(gpus=1, memory=100 * 1024), GROUP)
    assert (wisteria.queue, wisteria.units, wisteria.gpus) == ("share", 2, 2)


def test_nothing_fits_is_said_queue_by_queue() -> None:
    with pytest.raises(UsageError) as caught:
        place(load_site("flow-type2"), Resources(gpus=4, walltime=400 * HOUR), GROUP)
    text = str(caught.value)
    assert "no queue of site flow-type2 takes 4 GPUs, 1 core, for 16d 16h" in text
    assert "cx-share (by gpu): 4 GPUs, and it takes 1" in text
    assert "cx-single (by node): a walltime of 16d 16h is over its 14d" in text
    assert "cx-middle (by node): 1 node, and it takes 4 to 16" in text
    assert "extends: flow-type2" in text
    assert "cx-debug" not in text


def test_a_named_queue_is_honoured_and_checked() -> None:
    site = load_site("flow-type2")
    assert place(site, Resources(gpus=1, walltime=600), batch(queue="cx-debug")).queue == "cx-debug"
    with pytest.raises(UsageError, match=r"cx-debug \(by node\): a walltime of 2h is over its 1h"):
        place(site, Resources(gpus=1, walltime=2 * HOUR), batch(queue="cx-debug"))


def test_an_unknown_queue_comes_with_the_likely_one() -> None:
    with pytest.raises(UsageError, match=r'no queue .cx-shared.; did you mean "cx-share"\?'):
        place(load_site("flow-type2"), Resources(gpus=1), batch(queue="cx-shared"))


def test_a_debug_queue_is_never_chosen_unasked() -> None:
    placement = place(load_site("miyabi-g"), Resources(gpus=1, walltime=600), GROUP)
    assert placement.queue == "regular-g"


def test_limits_that_depend_on_the_number_of_nodes_hold() -> None:
    site = load_site("genkai")
    two = Resources(gpus=4, nodes=2, walltime=96 * HOUR)
    assert place(site, two, GROUP).units == 2
    with pytest.raises(UsageError, match="over its 4d"):
        place(site, Resources(gpus=4, nodes=2, walltime=97 * HOUR), GROUP)


def test_pack_auto_fills_a_whole_node_with_single_gpu_attempts() -> None:
    site = load_site("reedbush-l")
    placement = place(site, Resources(gpus=1, cpus=4), batch(pack="auto"), attempts=8)
    assert (placement.pack, placement.units, placement.gpus) == (4, 1, 4)


@pytest.mark.parametrize(
    ("site", "queue", "pack"), [("reedbush-h", None, 2), ("reedbush-l", None, 4), ("flow-type2", "cx-single", 4)]
)
def test_pack_auto_puts_one_attempt_on_each_gpu_of_a_whole_node(site: str, queue: str | None, pack: int) -> None:
    placement = place(load_site(site), Resources(gpus=1), batch(pack="auto", queue=queue), attempts=8)
    assert (placement.pack, placement.nodes, placement.gpus) == (pack, 1, pack)


def test_the_refusal_of_a_packed_job_says_how_many_share_it() -> None:
    with pytest.raises(UsageError, match="takes 3 attempts in one job, each with 1 GPU") as caught:
        place(load_site("reedbush-h"), Resources(gpus=1), batch(pack=3), attempts=5)
    assert "h-regular (by node): 3 GPUs a node are more than its 2" in str(caught.value)


def test_a_job_of_several_nodes_without_gpus_stays_off_gpu_nodes() -> None:
    assert place(load_site("genkai"), Resources(cpus=100, nodes=20, walltime=24 * HOUR), GROUP).queue == "a-batch"
    with pytest.raises(UsageError, match=r"a-batch \(by node\): a walltime of 2d is over its 1d"):
        place(load_site("genkai"), Resources(cpus=100, nodes=20, walltime=48 * HOUR), GROUP)


def test_pack_auto_leaves_room_for_cores_and_memory() -> None:
    node = Queue(name="n", unit="node", gpus_per_unit=4, cores_per_unit=16, memory_per_unit=64 * 1024)
    site = Site(name="x", scheduler="pbs", queues=(node,))
    auto = batch(pack="auto")
    assert place(site, Resources(gpus=1, cpus=8), auto, attempts=8).pack == 2
    assert place(site, Resources(gpus=1, memory=20 * 1024), auto, attempts=8).pack == 3
    assert place(site, Resources(cpus=4), auto, attempts=8).pack == 4


def test_a_job_packs_no_more_than_the_attempts_that_wait() -> None:
    site = load_site("reedbush-l")
    assert place(site, Resources(gpus=1), batch(pack="auto"), attempts=3).pack == 3
    assert place(site, Resources(gpus=1), batch(pack="auto")).pack == 1
    assert place(site, Resources(gpus=1), batch(pack=2), attempts=1).pack == 1


def test_packing_makes_a_whole_node_cheaper_for_each_attempt() -> None:
    queues = (
        Queue(name="single", unit="gpu", gpus_per_unit=1, weight=3.0),
        Queue(name="whole", unit="node", gpus_per_unit=4, weight=8.0),
    )
    site = Site(name="x", scheduler="pbs", queues=queues)
    assert place(site, Resources(gpus=1), batch(pack="auto"), attempts=1).queue == "single"
    assert place(site, Resources(gpus=1), batch(pack="auto"), attempts=4).queue == "whole"


def test_attempts_of_several_nodes_are_not_packed() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        place(load_site("reedbush-l"), Resources(gpus=4, nodes=2), batch(pack=2), attempts=2)
    assert place(load_site("reedbush-l"), Resources(gpus=4, nodes=2), batch(pack="auto"), attempts=2).pack == 1


def test_a_job_without_gpus_stays_off_gpus_where_it_can() -> None:
    assert place(load_site("tsubame4"), Resources(cpus=8), GROUP).queue == "cpu_40"
    assert place(load_site("genkai"), Resources(cpus=8), GROUP).queue == "a-batch"


def test_a_part_of_a_node_is_charged_as_that_part() -> None:
    half = Queue(name="s", unit="share", gpus_per_unit=4, cores_per_unit=40, weight=10.0)
    placement = place(Site(name="x", scheduler="slurm", queues=(half,)), Resources(gpus=2, cpus=8), GROUP)
    assert placement.charge == pytest.approx(5.0)
    assert (placement.gpus, placement.cpus) == (2, 8)


def test_a_site_without_a_queue_list_passes_the_request_on() -> None:
    placement = place(load_site("slurm"), Resources(gpus=2, cpus=3, memory=100, nodes=2), batch(queue="gpu"))
    assert (placement.queue, placement.nodes, placement.gpus, placement.cpus) == ("gpu", 2, 2, 3)


def test_a_site_of_single_node_jobs_refuses_several() -> None:
    with pytest.raises(UsageError, match="at most 1 node, not 2"):
        place(load_site("gridengine"), Resources(nodes=2), GROUP)


def test_a_site_that_wants_a_group_says_so_before_anything_is_submitted() -> None:
    with pytest.raises(UsageError, match="takes no job without a group"):
        place(load_site("abci3"), Resources(gpus=1), BatchOptions())


def test_a_queues_default_walltime_is_what_the_job_asks_for() -> None:
    assert place(load_site("abci3"), Resources(gpus=1), GROUP).walltime == HOUR
