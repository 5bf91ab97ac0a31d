"""What the emulated commands print, against lines that real schedulers printed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from worlds import World, machine, play

from orchestrator.simulate.batchjob import Partition
from orchestrator.transports.base import Command, Completion

QUEUES = (
    Partition(name="main", default_walltime=3600.0),
    Partition(name="debug", max_walltime=1800.0, queued=3),
    Partition(name="shut", enabled=False),
)


async def said(world: World, *argv: str) -> Completion:
    return await world.transport.run(Command(argv=argv))


# Command line, return code, a line of its stderr or stdout: Slurm 22.05.8, OpenPBS 23.06.06, Grid Engine 8.1.9.
REAL = {
    "slurm": [
        (
            "sbatch -p nosuch /s.sh",
            1,
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
        ),
        (
            "sbatch --gres=gpu:9 /s.sh",
            1,
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        ),
        ("sbatch nofile.sh", 1, "sbatch: error: Unable to open file nofile.sh"),
        ("sbatch --nosuchopt=1 /s.sh", 255, "sbatch: unrecognized option '--nosuchopt=1'"),
        (
            "sbatch -a 0-99999 /s.sh",
            1,
            "sbatch: error: Batch job submission failed: Invalid job array specification",
        ),
        ("sbatch /s.sh", 0, "Submitted batch job 1"),
        ("sbatch --parsable /s.sh", 0, "2"),
        ("squeue -j 999999", 1, "slurm_load_jobs error: Invalid job id specified"),
        ("scontrol show job 999999", 1, "slurm_load_jobs error: Invalid job id specified"),
        ("scancel 999999", 0, ""),
        ("sacct -P -j 999999 -o JobID,JobName,State,ExitCode", 0, "JobID|JobName|State|ExitCode"),
        ("sbatch --version", 0, "slurm-wlm 22.05.8"),
    ],
    "slurm-noacct": [("sacct -P -j 1", 1, "Slurm accounting storage is disabled")],
    "pbs": [
        ("qsub -q nosuch /s.sh", 170, "qsub: Unknown queue"),
        ("qsub -q shut /s.sh", 173, "qsub: Queue is not enabled"),
        (
            "qsub -q debug -l walltime=01:00:00 /s.sh",
            188,
            "qsub: Job violates queue and/or server resource limits",
        ),
        ("qsub nofile.sh", 1, "qsub: script file:: No such file or directory"),
        ("qsub -J 0-9999 /s.sh", 3, "qsub: Array job exceeds server or queue size limit"),
        (
            "qsub -l walltime=abc /s.sh",
            166,
            "qsub: Illegal attribute or resource value Resource_List.walltime",
        ),
        ("qsub -l select=1:foo=1 /s.sh", 187, "qsub: Unknown resource: foo"),
        ("qsub /s.sh", 0, "1.pbsvm"),
        ("qstat 999999", 153, "qstat: Unknown Job Id 999999.pbsvm"),
        ("qdel 999999", 153, "qdel: Unknown Job Id 999999.pbsvm"),
        ("qdel garbage", 1, "qdel: illegally formed job identifier: garbage"),
        ("qstat -f 1", 0, "Job Id: 1.pbsvm"),
        ("qstat -f 1", 0, "    job_state = R"),
        ("qstat -f 1", 0, "    Resource_List.walltime = 01:00:00"),
    ],
    "pjm": [
        ("pjsub /s.sh", 0, "[INFO] PJM 0000 pjsub Job 1 submitted."),
        ("pjsub -z jid /s.sh", 0, "2"),
        ("pjdel 1", 0, "[INFO] PJM 0100 pjdel Accepted job 1."),
        ("pjstat r1", 1, "[ERR.] PJM 0211 pjstat Invalid jobid: r1."),
        ("pjsub -g other /s.sh", 1, "[ERR.] PJM 0071 pjsub Group not authorized to submit a job: group(other)"),
        (
            "pjstat -v --choose jid,st,ec,pc,sn,jnam,ermsg --filter jid=7",
            0,
            "JOB_ID     ST  EC  PC  SN  JOB_NAME   REASON",
        ),
    ],
    "gridengine": [
        (
            "qsub -q nosuch.q /s.sh",
            1,
            'Unable to run job: Job was rejected because job requests unknown queue "nosuch.q"',
        ),
        ("qsub -l foo=1 /s.sh", 1, 'Unable to run job: unknown resource "foo"'),
        ("qsub -terse /s.sh", 0, "1"),
        ("qsub -terse -t 1-4:2 /s.sh", 0, "2.1-4:2"),
        ("qsub -N gj /s.sh", 0, 'Your job 3 ("gj") has been submitted'),
        ("qdel 999999", 1, 'denied: job "999999" does not exist'),
        ("qstat -j 999999", 1, "Following jobs do not exist: "),
        ("qacct -j 999999", 1, "no jobs running since startup"),
    ],
}


@pytest.mark.parametrize("kind", list(REAL))
def test_the_commands_print_what_the_real_ones_print(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, partitions=QUEUES, nodes=machine(8), groups=("mine",), array_size=1000)
        await world.transport.put({"/s.sh": b"#!/bin/bash\nsleep 6000\n"})
        for line, returncode, words in REAL[kind]:
            done = await said(world, *line.split())
            assert done.returncode == returncode, (line, done)
            assert words in (done.stdout + done.stderr).split("\n"), (line, done)

    play(body)


def test_pbs_stops_listing_a_finished_job_and_says_where_it_is(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs")
        await world.transport.put({"/s.sh": b"#!/bin/bash\nsleep 5\n"})
        await said(world, "qsub", "/s.sh")
        await asyncio.sleep(10.0)
        done = await said(world, "qstat", "-f", "1")
        tail = "use -x or -H to obtain historical job information"
        assert done.stderr == f"qstat: 1.pbsvm Job has finished, {tail}\n"
        assert done.returncode == 35
        past = await said(world, "qstat", "-x", "-f", "1")
        assert "    Exit_status = 0\n" in past.stdout
        assert (await said(world, "qdel", "1")).stderr == "qdel: Job has finished 1.pbsvm\n"

    play(body)


def test_pbs_cuts_a_long_value_and_goes_on_with_a_tab(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs")
        await world.transport.put({"/s.sh": b"#!/bin/bash\nsleep 500\n"})
        await said(world, "qsub", "-o", "/" + "long/" * 40, "/s.sh")
        done = await said(world, "qstat", "-f", "1")
        assert max(map(len, done.stdout.splitlines())) <= 79
        assert "\n\t" in done.stdout

    play(body)


def test_scontrol_holds_releases_and_shows(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", queue_wait=lambda _job: 60.0)
        await world.transport.put({"/s.sh": b"#!/bin/bash\nsleep 500\n"})
        await said(world, "sbatch", "/s.sh")
        assert (await said(world, "scontrol", "hold", "1")).returncode == 0
        assert "JobState=PENDING Reason=JobHeldUser" in (await said(world, "scontrol", "show", "job", "1")).stdout
        await said(world, "scontrol", "release", "1")
        await asyncio.sleep(120.0)
        assert "JobState=RUNNING Reason=None" in (await said(world, "scontrol", "show", "job", "1")).stdout

    play(body)


def test_squeue_hides_what_has_ended_unless_all_states_are_asked_for(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm")
        await world.transport.put({"/s.sh": b"#!/bin/bash\nexit 7\n"})
        await said(world, "sbatch", "/s.sh")
        await asyncio.sleep(5.0)
        assert (await said(world, "squeue", "-h", "-o", "%i %T")).stdout == ""
        assert (await said(world, "squeue", "-h", "-t", "all", "-o", "%i %T")).stdout == "1 FAILED\n"

    play(body)


def test_a_command_that_the_cluster_does_not_have_is_not_found(tmp_path: Path) -> None:
    async def body() -> None:
        assert (await said(World(tmp_path, "pjm"), "sbatch", "x")).returncode == 127

    play(body)
