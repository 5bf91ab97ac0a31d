"""Command by command, the emulated schedulers answer as real ones did whose sessions were recorded."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from recorded import SAMPLES, Said, sessions
from worlds import World, machine, play

from orchestrator.simulate.batchjob import Node, Partition
from orchestrator.simulate.faults import Fault
from orchestrator.transports.base import Command

SLURM: dict[str, Any] = {
    "nodes": tuple(Node(name=f"n{number}", gpus=4, cpus=8, memory=16000) for number in (1, 2)),
    "partitions": (
        Partition(name="main", default_walltime=1800.0),
        Partition(name="debug", max_walltime=120.0),
        Partition(name="down", default_walltime=3600.0, started=False),
    ),
    "groups": ("root",),
    "user": "root",
    "zone": 0.0,
}
PBS: dict[str, Any] = {
    "nodes": (Node(name="pbsvm[0]", gpus=2, cpus=2), Node(name="pbsvm[1]", gpus=2, cpus=1)),
    "partitions": (
        Partition(name="workq"),
        Partition(name="debug", max_walltime=120.0, queued=3),
        Partition(name="shut", enabled=False),
    ),
    "zone": 0.0,
}
SCRIPTS = {
    "/ok.sh": "#!/bin/sh\nsleep 1\n",
    "/long.sh": "#!/bin/sh\nsleep 3600\n",
    "/arr.sh": "#!/bin/sh\nsleep 3\nexit 0\n",
    "/noshebang.sh": "sleep 1\n",
    "/badopt.sh": "#!/bin/sh\n#SBATCH --nosuchopt=1\ntrue\n",
    "/g.sh": "#!/bin/sh\n#$ -N gj\n#$ -l h_rt=30,gpu=1\nsleep 2\nexit 3\n",
    "/l.sh": "#!/bin/sh\nsleep 60\n",
}


async def put_scripts(world: World) -> None:
    await world.transport.put({path: text.encode() for path, text in SCRIPTS.items()})


async def say(world: World, line: str) -> Said:
    done = await world.transport.run(Command(argv=tuple(shlex.split(line)), timeout=60.0))
    assert done.returncode is not None
    return Said(line, (done.stderr + done.stdout).splitlines(), done.returncode)


def plain(said: Said) -> tuple[int, list[str]]:
    """Without the number of a new job, and without anything of a time, a priority or the order of the two streams."""
    lines = [re.sub(r"^(Submitted batch job )?\d+(?=\.pbsvm$|$)", r"\1N", line) for line in said.lines]
    lines = [re.sub(r"\d\d/\d\d/\d{4} [\d:]+|\d{4}-\d\d-\d\dT[\d:]+", "TIME", line) for line in lines]
    lines = [re.sub(r'"timestamp":\t\d+', '"timestamp":\tN', re.sub(r"\b0\.[05]0000\b", "P", line)) for line in lines]
    return said.returncode, sorted(" ".join(line.split()) for line in lines)


# What is not emulated, by how the command begins.
NO_SLURM = {
    "sbatch -q": "qualities of service",
    "sbatch --parsable -q": "qualities of service",
    "sbatch -d": "dependencies",
    "sinfo": "sinfo",
    "scontrol update": "changes of a job's request",
}
SLURM_ERRORS = [said for said in sessions("slurm/errors.txt") if not said.command.startswith(tuple(NO_SLURM))]


@pytest.mark.parametrize("real", SLURM_ERRORS, ids=lambda said: said.command)
def test_slurm_s_commands_fail_and_succeed_as_recorded(tmp_path: Path, real: Said) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", first_number=14, **SLURM)
        await put_scripts(world)
        await say(world, "sbatch -H -J held --wrap true")
        assert plain(await say(world, real.command)) == plain(real)

    play(body)


@pytest.mark.parametrize(
    "real",
    [said for said in sessions("slurm/slurmctld_down.txt") if not said.command.startswith(("sinfo", "sacct"))],
    ids=lambda said: said.command,
)
def test_slurm_s_commands_give_up_on_their_controller_as_recorded(tmp_path: Path, real: Said) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", faults=[Fault(command="any", kind="down")], **SLURM)
        assert plain(await say(world, real.command)) == plain(real)

    play(body)


async def recorded_queue(world: World) -> None:
    """The jobs of the recorded queue whose state the emulated cluster has."""
    for number, words in {
        1439: "-p debug -t 60",
        1440: "-p down",
        1444: "-N 99",
        1443: "-n 999",
        14: "-H -J held",
        1452: "-J running --gres=gpu:2 -t 10 --comment 'free text; with | pipe'",
        1453: "-J pending -c 8 -t 30",
    }.items():
        world.cluster.reset_counter(number)
        assert (await say(world, f"sbatch {words} --wrap 'sleep 3600'")).returncode == 0
    await asyncio.sleep(3.0)


@pytest.mark.parametrize("options", ["", " -r"])
def test_squeue_prints_the_recorded_lines(tmp_path: Path, options: str) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", **{**SLURM, "nodes": SLURM["nodes"][:1]})
        await recorded_queue(world)
        (real,) = (said for said in sessions("slurm/squeue.txt") if said.command == f"squeue{options}")
        here = {"JOBID", "1439", "1440", "1444", "1443", "14", "1452", "1453"}
        expected = [line for line in real.lines if line.split()[0] in here]
        assert sorted((await say(world, f"squeue{options}")).lines) == sorted(expected)
        assert len(expected) == 8

    play(body)


def test_squeue_prints_the_recorded_columns(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", **{**SLURM, "nodes": SLURM["nodes"][:1]})
        await recorded_queue(world)
        (real,) = (said for said in sessions("slurm/squeue.txt") if said.command.startswith("squeue -h -o '%i|%A"))
        names = real.command.split("'")[1].split("|")
        kept = [column for column, name in enumerate(names) if name[1] in "iAFKTtrMlPuDNjk"]
        form = "|".join(names[column] for column in kept)
        expected = {
            cells[0]: [cells[column] for column in kept[:-1]]
            for cells in (line.split("|", len(names) - 1) for line in real.lines)
        }
        for line in (await say(world, f"squeue -h -o '{form}'")).lines:
            cells = line.split("|", len(kept) - 1)
            assert cells[:-1] == expected[cells[0]]

    play(body)


def test_an_array_whose_nodes_are_down_waits_in_one_line_with_a_reason_of_many_words(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", **SLURM)
        world.cluster.fail_node("n1")
        world.cluster.fail_node("n2")
        world.cluster.reset_counter(1455)
        await say(world, "sbatch -J arr -a 0-5%2 --wrap true")
        recorded = sessions("slurm/squeue.txt")
        for real in recorded[:2]:
            # How many may run at a time is not emulated.
            expected = [line.replace("1455_[0-5%2]", "  1455_[0-5]") for line in real.lines if " arr " in line]
            assert (await say(world, real.command)).lines[1:] == expected
        shown = (await say(world, "scontrol show job 1455")).lines
        assert shown[0].startswith("JobId=1455 ArrayJobId=1455 ArrayTaskId=0-5")
        assert "Reason=Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved" in shown[3]

    play(body)


def test_sacct_prints_the_recorded_table_and_rows(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", **SLURM)
        world.cluster.reset_counter(1455)
        await say(world, "sbatch -J arr -a 0-5 --wrap 'sleep 3'")
        world.cluster.ended(world.cluster.job(1455)[1], exit_code=1)
        await asyncio.sleep(10.0)
        recorded = {said.command: said for said in sessions("slurm/sacct.txt")}
        table = recorded["sacct -X -j 1455"]
        ended = [line for line in table.lines if not line.startswith("1455_5")]  # which still ran
        assert [line for line in (await say(world, table.command)).lines if line in ended] == ended
        cut = recorded["sacct -P -n -X -j 1455 -o jobid%30,state%30"]
        assert set(cut.lines) - {"1455_5|RUNNING"} <= set((await say(world, cut.command)).lines)
        by_state = recorded["sacct -P -X -S now-1hour -o jobid,state -s F,CA,TO,NF"]
        assert (await say(world, by_state.command)).lines == by_state.lines
        unknown = await say(world, "sacct -P -o jobid,restarts")
        assert unknown.lines == recorded[next(iter(recorded))].lines

    play(body)


def test_scontrol_requeues_as_recorded(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", **SLURM)
        await say(world, "sbatch --wrap 'sleep 600'")
        await say(world, "sbatch --no-requeue --wrap 'sleep 600'")
        await say(world, "sbatch -p down --wrap true")
        await asyncio.sleep(5.0)
        assert (await say(world, "scontrol requeue 3")).lines == ["Job is pending execution for job 3"]
        refused = await say(world, "scontrol requeue 2")
        assert refused.lines == ["Requested operation is presently disabled for job 2"]
        assert refused.returncode == 1
        assert (await say(world, "scontrol requeuehold 1")).returncode == 0
        await asyncio.sleep(60.0)
        assert (await say(world, "squeue -h -j 1 -o '%i %T %r'")).lines == ["1 PENDING job requeued in held state"]
        await say(world, "scontrol release 1")
        await asyncio.sleep(200.0)
        shown = (await say(world, "scontrol -o show job 1")).lines
        assert len(shown) == 1
        assert " Restarts=1 " in shown[0]
        rows = (await say(world, "sacct -X -P -n -D -j 1 -o jobid,state")).lines
        assert rows == ["1|REQUEUED", "1|RUNNING"]

    play(body)


def test_a_job_whose_record_has_not_come_through_is_an_allocation_that_waits(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "slurm", history_lag=5.0, queue_wait=lambda _job: 10.0, **SLURM)
        await say(world, "sbatch -J oom --wrap 'sleep 600'")
        await say(world, "sbatch -J arr -a 0-1 --wrap 'sleep 600'")
        await asyncio.sleep(12.0)
        said = (await say(world, "sacct -X -P -n -o jobid,jobname,partition,alloccpus,state,exitcode")).lines
        assert said == ["1|allocation||0|PENDING|0:0"]  # and of the array's elements nothing
        await asyncio.sleep(5.0)
        said = (await say(world, "sacct -X -P -n -o jobid,jobname,state")).lines
        assert said == ["1|oom|RUNNING", "2_0|arr|RUNNING", "2_1|arr|RUNNING"]

    play(body)


# PBS

NO_PBS = {
    "qsub -A x -W foo": "attributes of -W, and qsub's slip of the tongue",
    "qsub -W depend": "dependencies",
    "qhold": "qhold",
    "qstat -Q": "one queue's table",
    "qstat -f -F json 9.pbsvm": "a job of its own, compared by attributes",
}
PBS_ERRORS = [said for said in sessions("pbs/errors.txt") if not said.command.startswith(tuple(NO_PBS))]


def test_pbs_s_commands_fail_and_succeed_as_recorded(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs", array_size=1000, **PBS)
        await put_scripts(world)
        await say(world, "qsub ok.sh".replace("ok", "/ok"))
        await say(world, "qsub /ok.sh")
        await asyncio.sleep(10.0)
        for real in PBS_ERRORS:
            line = re.sub(r"(?<= )(?=(ok|arr)\.sh)", "/", real.command)
            assert plain(await say(world, line)) == plain(real), real.command

    play(body)


@pytest.mark.parametrize("real", sessions("pbs/server_down.txt"), ids=lambda said: said.command)
def test_pbs_s_commands_miss_their_server_as_recorded(tmp_path: Path, real: Said) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs", faults=[Fault(command="any", kind="down")], **PBS)
        assert plain(await say(world, real.command)) == plain(real)

    play(body)


def attributes(text: str) -> dict[str, str]:
    """Names and values of a full listing, its continued lines put together."""
    lines = text.replace("\n\t", "").splitlines()
    return {line.strip().partition(" = ")[0]: line.partition(" = ")[2] for line in lines if " = " in line}


SAME = ("job_state", "substate", "Exit_status", "run_count", "Hold_Types", "array", "array_state_count")
# The job as it was submitted, what became of it, and what real PBS said: a file, or a job of a JSON document.
PBS_JOBS: dict[str, tuple[str, float | str, str]] = {
    "ended well": ("qsub -N okjob /ok.sh", 10.0, "qstat_xf_F_ok.txt"),
    "runs": ("qsub -N runner -l select=1:ncpus=1:ngpus=1 -l walltime=00:10:00 /long.sh", 3.0, "qstat_f_R.txt"),
    "never": ("qsub -N never -l select=1:ncpus=400 /long.sh", 3.0, "qstat_f_Q_never.txt"),
    "deleted while it waited": ("qsub -N delq -h /ok.sh", "qdel 1", "qstat_xf_F_deleted_queued.txt"),
    "deleted while it ran": ("qsub -N delr /long.sh", "qdel 1", "qstat_xf_F_deleted_running.txt"),
    "out of time": ("qsub -N wall -l walltime=00:00:08 /long.sh", 60.0, "qstat_xf_F_walltime.txt"),
    "failed": ("qsub -N fail3 /exit3.sh", 10.0, "qstat_xf_F_exit3.txt"),
    "killed itself": ("qsub -N kill9 /kill9.sh", 10.0, "qstat_xf_F_kill9.txt"),
    "array": ("qsub -N arr -J 0-4 -l select=1:ncpus=1 /arr.sh", 1.0, "qstat_f_array_parent.json"),
    "ended array": ("qsub -N arr -J 0-4 -l select=1:ncpus=1 /arr2.sh", 30.0, "qstat_xf_F_array.txt"),
    "element": ("qsub -N arr -J 0-4 -l select=1:ncpus=1 /arr2.sh", 30.0, "qstat_xtf_F_array_subjobs_bracket.txt"),
}
# Of what no script here does, or what is not emulated: dependencies, and a session that was not noted in time.
OTHER = {"depend", "session_id", "Resource_List.ngpus", "Resource_List.walltime", "Stageout_status", "obittime"}


@pytest.mark.parametrize("name", list(PBS_JOBS))
def test_pbs_tells_of_a_job_what_real_pbs_told(tmp_path: Path, name: str) -> None:
    submit, then, sample = PBS_JOBS[name]
    text = (SAMPLES / "pbs" / sample).read_text()
    if sample.endswith(".json"):
        text = listing(json.loads(text)["Jobs"])
    real = attributes(text.partition("\n\n")[0])

    async def body() -> None:
        world = World(tmp_path, "pbs", **PBS)
        await put_scripts(world)
        await world.transport.put(
            {"/exit3.sh": b"sleep 1\nexit 3\n", "/kill9.sh": b"sleep 1\nkill -9 $$\n", "/arr2.sh": b"sleep 3\nexit 7\n"}
        )
        await say(world, submit)
        await asyncio.sleep(then if isinstance(then, float) else 4.0)
        if isinstance(then, str):
            assert (await say(world, then)).lines == []
            await asyncio.sleep(30.0)
        history = "-x " if real["job_state"] == "F" else ""
        job = {"array": "1[]", "ended array": "1[]", "element": "1[2]"}.get(name, "1")
        made = attributes("\n".join((await say(world, f"qstat {history}-f {job}")).lines))
        assert made.keys() - OTHER == real.keys() - OTHER
        assert {key: made[key] for key in SAME if key in made} == {key: real[key] for key in SAME if key in real}
        assert said_without_details(made) == said_without_details(real)

    play(body)


def said_without_details(job: dict[str, str]) -> str:
    """The comment without resources, places, people and times."""
    details = r"(?<=Run: ).*|\(.*?\)|\w+@\w+|(?<= at )\w{3} .*?\d\d:\d\d"
    return re.sub(details, "", job.get("comment", ""))


def listing(jobs: dict[str, Any]) -> str:
    """The plain form of a JSON document's first job."""
    flat = []
    for key, value in next(iter(jobs.values())).items():
        if isinstance(value, dict) and key != "Variable_List":
            flat += [f"    {key}.{inner} = {item}" for inner, item in value.items()]
        else:
            flat.append(f"    {key} = {value}")
    return "\n".join(flat)


def test_pbs_lists_an_array_as_one_and_with_t_each_element_which_expires_before_the_whole_has_ended(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        world = World(tmp_path, "pbs", **PBS)
        await put_scripts(world)
        await say(world, "qsub -N arr -J 0-4 /arr.sh")
        await asyncio.sleep(1.0)
        head = ["Job id            Name             User              Time Use S Queue"]
        head.append("----------------  ---------------- ----------------  -------- - -----")
        row = "{:<17} arr              tester            {:>8} {} workq           "
        assert (await say(world, "qstat")).lines == [*head, row.format("1[].pbsvm", "0", "B")]
        await asyncio.sleep(3.0)
        rows = (await say(world, "qstat -t")).lines
        assert rows[3:] == [
            row.format(f"1[{index}].pbsvm", "00:00:00" if state != "Q" else "0", state)
            for index, state in enumerate("XXXRR")
        ]
        assert (await say(world, "qstat -f 1[0]")).returncode == 0
        await asyncio.sleep(10.0)
        assert (await say(world, "qstat 1[]")).returncode == 35
        assert {line.split()[4] for line in (await say(world, "qstat -x -t 1[]")).lines[2:]} == {"F"}

    play(body)


# Grid Engine

NO_GRIDENGINE = {"qstat -j 1": "the many attributes of one job", "qstat -s z": "the list of what has just ended"}


ACCOUNTED = {"qname", "jobname", "jobnumber", "taskid", "failed", "exit_status", "slots", "project"}


def test_grid_engine_s_commands_answer_as_recorded(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(
            tmp_path,
            "gridengine",
            partitions=(Partition(name="all.q", default_walltime=3600.0),),
            nodes=(Node(name="localhost", gpus=4, cpus=8),),
            queue_wait=lambda _job: 8.0,
            history_lag=20.0,
            zone=0.0,
        )
        await put_scripts(world)
        recorded = [said for said in sessions("gridengine/basics.txt") if said.command not in NO_GRIDENGINE]
        for number, real in enumerate(recorded):
            if real.command.startswith("qsub -cwd -terse -h"):
                world.cluster.reset_counter(5)
            if number == len(recorded) - 3:
                await asyncio.sleep(20.0)
            line = re.sub(r"(?<= )(?=[gl]\.sh)", "/", real.command)
            assert plain(await say(world, line)) == plain(real), real.command
        await asyncio.sleep(30.0)
        for real in sessions("gridengine/qacct.txt"):
            made_rows, real_rows = (
                [line.split(None, 1) for line in said.lines] for said in (await say(world, real.command), real)
            )
            assert [row[0] for row in made_rows] == [row[0] for row in real_rows]
            made_told, real_told = (
                [(row[0], " ".join(row[1].split())) for row in rows if row[0] in ACCOUNTED]
                for rows in (made_rows, real_rows)
            )
            assert made_told == real_told

    play(body)


# PJM, whose lines are from documents


@pytest.mark.parametrize(
    ("kind", "command", "sample"),
    [
        ("pjm", "pjstat -v --choose jid,st,ec,pc,sn,jnam,ermsg", "choose.txt"),
        ("pjm-stock", "pjstat", "stock.txt"),
        ("pjm-wrapped", "pjstat", "wrapped.txt"),
    ],
)
def test_pjm_s_lists_have_the_documented_columns(tmp_path: Path, kind: str, command: str, sample: str) -> None:
    async def body() -> None:
        world = World(tmp_path, kind, nodes=machine(2))
        await put_scripts(world)
        await say(world, "pjsub /long.sh")
        real = (SAMPLES / "pjm" / sample).read_text().splitlines()
        (head,) = (line for line in real if line.startswith("JOB_ID"))
        made = (await say(world, command)).lines
        assert made[0].split() == head.split()
        assert len(made) == 2

    play(body)


def test_pjm_s_empty_wrapped_list_says_so_below_its_banner(tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path, "pjm-wrapped", zone=9.0)
        real = (SAMPLES / "pjm" / "wrapped_none.txt").read_text().splitlines()
        assert (await say(world, "pjstat")).lines == [real[-1]]
        world = World(tmp_path, "pjm-wrapped", zone=9.0, stop=world.clock.now() + 31 * 86400.0)
        made = (await say(world, "pjstat")).lines
        shape = [re.sub(r"\d+", "N", re.sub(r"\(\w{3}\)", "(Day)", line)) for line in made]
        assert shape == [re.sub(r"\d+", "N", re.sub(r"\(\w{3}\)", "(Day)", line)) for line in real]

    play(body)
