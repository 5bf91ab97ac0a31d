"""Slurm: recorded answers of 22.05."""

from __future__ import annotations

import pytest
from transcripts import answers, session

from orchestrator.model import Answer, JobState, Verdict
from orchestrator.schedulers.base import Refused, SchedulerOptions, SubmitRequest, Submitted
from orchestrator.schedulers.contract import NO_ANSWER, Recorded, SchedulerContract, completed
from orchestrator.schedulers.slurm import STATES, Slurm
from orchestrator.transports.base import Completion

LIVE_HEADER = "JOBID|JOBID|STATE|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|REASON|NAME\n"
PAST_HEADER = "JobID|JobIDRaw|State|Submit|Start|End|NodeList|ExitCode|JobName\n"
NO_ACCOUNTING = completed(stderr="Slurm accounting storage is disabled\n", returncode=1)


def live(*rows: str, returncode: int = 0) -> Completion:
    return completed(LIVE_HEADER + "".join(f"{row}\n" for row in rows), returncode=returncode)


def past(*rows: str) -> Completion:
    return completed(PAST_HEADER + "".join(f"{row}\n" for row in rows))


def recorded_list() -> Completion:
    """The recorded long list, with the columns that the adaptor asks for."""
    wide = answers("slurm/squeue.txt", "squeue -h -o '%i|%A|%F|%K|%T|%t|%r|%S")
    rows = []
    for line in wide.stdout.splitlines():
        cells = line.split("|", 21)
        rows.append("|".join((cells[0], cells[1], cells[4], "N/A", cells[7], cells[8], cells[19], cells[6], cells[20])))
    return live(*rows)


def recorded_accounting() -> Completion:
    """The recorded accounting, with the columns that the adaptor asks for."""
    rows = []
    for line in answers("slurm/sacct.txt", "sacct -P -X -D -j").stdout.splitlines()[1:]:
        job_id, name, state, exit_code, _reason, start, end = line.split("|")
        rows.append(f"{job_id}|{job_id}|{state}|{start}|{start}|{end}|n1|{exit_code}|{name}")
    return past(*rows)


def sbatch(words: str) -> Completion:
    return answers("slurm/errors.txt", f"sbatch {words}")


class TestSlurmContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        down = dict(session("slurm/slurmctld_down.txt"))
        limit = next(
            completion
            for words, completion in session("slurm/errors.txt")
            if "QOSMaxSubmitJobPerUserLimit" in completion.stderr
        )
        return Recorded(
            scheduler=Slurm(),
            accepted=[
                (completed("1445\n"), "1445"),
                (completed("1445;cluster1\n"), "1445"),
                (sbatch("-p debug -t 60"), "1439"),
                (completed("Welcome to node 17!\n\nsbatch: job of group g42\n1445\n"), "1445"),
                (completed("Submitted batch job 77 on cluster c1\n"), "77"),
            ],
            refused=[
                *(
                    sbatch(words)
                    for words in (
                        "-p nosuch",
                        "--gres=gpu:9",
                        "--gres=tpu:1",
                        "--mem=9999999",
                        "-w n77",
                        "-A nosuch",
                        "-q nosuch",
                        "-q tiny -t 60",
                        "-a 0-99999",
                        "-t abc",
                        "nofile.sh",
                        "noshebang.sh",
                        "badopt.sh",
                        "-d afterok:abc",
                    )
                ),
                completed(
                    stderr="sbatch: error: Batch job submission failed: Requested time limit is invalid "
                    "(missing or exceeds some limit)\n",
                    returncode=1,
                ),
                completed(stderr="sbatch: error: CPU count per node can not be satisfied\n", returncode=1),
            ],
            later=[
                limit,
                down["sbatch --parsable tiny.sh"],
                completed(
                    stderr="sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
                    "sbatch: error: Batch job submission failed: Resource temporarily unavailable\n",
                    returncode=1,
                ),
                completed(
                    stderr="sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
                    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
                    returncode=1,
                ),
            ],
            unclear=[
                completed(
                    stderr="sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
                    returncode=1,
                ),
                completed(
                    stderr="sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received\n",
                    returncode=1,
                ),
                completed("1445\n1446\n"),
                completed("job 1445 was, perhaps, submitted\n"),
                completed(stderr="sbatch: error: something that no table has\n", returncode=1),
            ],
            live=recorded_list(),
            alive={
                "1452": JobState.RUNNING,
                "1453": JobState.QUEUED,
                "1454": JobState.HELD,
                "1434": JobState.HELD,
                "1455_3": JobState.QUEUED,
            },
            unlisted=["999999", "145", "1455_6"],
            failed_queries=[
                down["squeue -j 1434"],
                answers("slurm/errors.txt", "squeue -j 999999"),
                completed("squeue: error: Socket timed out\n", returncode=1),
                live("1452|1452|RUNNING|N/A|N/A|N/A|n1|None|x", returncode=1),
            ],
            past=past(
                "3|3|OUT_OF_MEMORY|2026-11-20T23:10:00|2026-11-20T23:10:01|2026-11-20T23:10:09|n1|0:125|oom",
                "9|9|FAILED|2026-11-20T23:10:00|2026-11-20T23:10:01|2026-11-20T23:10:09|n1|3:0|exit3",
                "15|15|CANCELLED by 1000|2026-11-20T23:10:00|2026-11-20T23:10:01|2026-11-20T23:10:09|n1|0:0|canc",
                "7|7|TIMEOUT|2026-11-20T23:10:00|2026-11-20T23:10:16|2026-11-20T23:10:40|n1|0:0|endt",
                "26|26|NODE_FAIL|2026-11-20T23:12:00|2026-11-20T23:12:14|2026-11-20T23:12:48|n2|0:0|nf_norq",
                "11|11|COMPLETED|2026-11-20T23:12:00|2026-11-20T23:12:14|2026-11-20T23:12:48|n2|0:0|a|b",
            ),
            past_ended={
                "3": Verdict.OUT_OF_MEMORY,
                "9": Verdict.FAILED,
                "15": Verdict.CANCELLED,
                "7": Verdict.TIMEOUT,
                "26": Verdict.NODE_FAILURE,
                "11": Verdict.SUCCEEDED,
            },
            failed_histories=[
                completed(
                    stderr="sacct: error: slurm_persist_conn_open: failed to connect to slurmdbd\n", returncode=1
                ),
                completed(),
            ],
            tag="t00007-k3j9x2q8",
            found="41",
            hit=[
                live("41|41|PENDING|2026-11-20T23:10:00|N/A|N/A||Priority|t00007-k3j9x2q8"),
                past("41|41|PENDING|2026-11-20T23:10:00|Unknown|Unknown|None assigned|0:0|t00007-k3j9x2q8"),
            ],
            miss=[live("40|40|RUNNING|N/A|N/A|N/A|n1|None|t00007-k3j9x2q8x"), past()],
            failed_finds=[
                [live(), completed(stderr="sacct: error: Problem talking to the database\n", returncode=1)],
                [down["squeue -j 1434"], past()],
                [live("41|41|PEND"), past()],
            ],
            cancelled=[
                answers("slurm/errors.txt", "scancel 999999"),
                completed(
                    stderr="scancel: error: Kill job error on job id 2: Job/step already completing or completed\n",
                    returncode=1,
                ),
            ],
            not_cancelled=[down["scancel 1435"]],
        )


@pytest.mark.parametrize(
    ("job_id", "stuck"),
    [
        ("1439", True),  # PartitionTimeLimit
        ("1440", False),  # PartitionDown
        ("1444", True),  # PartitionConfig
        ("12", True),  # DependencyNeverSatisfied
        ("1454", True),  # JobHeldUser
        ("1434", True),  # launch failed requeued held
        ("1453", False),  # Resources
        ("1459", False),  # BeginTime
        ("1458", False),  # Priority
        ("1455_0", False),  # a reason of a whole sentence
        ("1452", False),  # runs
    ],
)
def test_a_pending_job_is_stuck_where_its_reason_never_ends(job_id: str, stuck: bool) -> None:
    assert Slurm().parse_query(recorded_list(), [job_id])[job_id].stuck is stuck


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [
        ("QOSMaxWallDurationPerJobLimit", True),
        ("AssocMaxCpuPerJobLimit", True),
        ("QOSMaxGRESPerNode", True),
        ("BadConstraints", True),
        ("QOSMaxJobsPerUserLimit", False),
        ("QOSMaxGRESPerUser", False),
        ("AssocGrpCpuLimit", False),
        ("AssocMaxJobsLimit", False),
        ("ReqNodeNotAvail, UnavailableNodes:n1,n2", False),
    ],
)
def test_limits_on_one_job_never_end_and_limits_on_all_jobs_do(reason: str, stuck: bool) -> None:
    status = Slurm().parse_query(live(f"5|5|PENDING|N/A|N/A|N/A||{reason}|x"), ["5"])["5"]
    assert status.stuck is stuck
    assert status.reason == reason


def test_a_running_job_with_an_old_hold_reason_is_not_stuck() -> None:
    status = Slurm().parse_query(live("1453|1453|RUNNING|N/A|N/A|N/A|n1|JobHeldAdmin|x"), ["1453"])["1453"]
    assert (status.state, status.stuck) == (JobState.RUNNING, False)


def test_an_unknown_state_word_is_not_known_and_quoted() -> None:
    status = Slurm().parse_query(live("5|5|REVOKED|N/A|N/A|N/A||None|x", "6|6|QUANTUM|N/A|N/A|N/A||None|y"), ["5", "6"])
    assert {one.answer for one in status.values()} == {Answer.UNKNOWN}
    assert "QUANTUM" in status["6"].evidence


@pytest.mark.parametrize("word", [word for word in STATES if word.startswith("REQUEUE")])
def test_a_job_that_is_put_back_is_alive(word: str) -> None:
    assert Slurm().parse_query(live(f"5|5|{word}|N/A|N/A|N/A||None|x"), ["5"])["5"].answer is Answer.ALIVE


def test_a_job_that_has_just_ended_is_still_in_the_live_list() -> None:
    listed = live("1450|1450|FAILED|2026-11-20T23:24:57|2026-11-20T23:24:57|2026-11-20T23:24:58|n1|JobLaunchFailure|x")
    status = Slurm().parse_query(listed, ["1450"])["1450"]
    assert status.answer is Answer.ENDED
    assert status.end is not None
    assert status.end.verdict is Verdict.REJECTED
    assert "JobLaunchFailure" in status.end.reason
    assert "folder" in status.end.reason


def test_times_are_utc_and_name_and_submit_time_are_told_for_reused_ids() -> None:
    listed = live("7|7|RUNNING|2026-11-20T23:24:56|2026-11-20T23:24:57|2026-11-21T23:24:57|n[1-2]|None|t|with|pipes")
    status = Slurm().parse_query(listed, ["7"])["7"]
    assert (status.submitted, status.started, status.ended) == (1795217096.0, 1795217097.0, None)
    assert (status.name, status.nodes) == ("t|with|pipes", "n[1-2]")


def test_a_name_that_ends_like_a_tag_is_not_the_tag() -> None:
    tag = "t00007-k3j9x2q8"
    foreign = live(f"8|8|RUNNING|N/A|N/A|N/A|n1|None|x|{tag}")
    assert not Slurm().parse_find([foreign, past()], [tag]).jobs[tag]


def test_an_estimated_start_is_not_a_start() -> None:
    assert Slurm().parse_query(recorded_list(), ["1453"])["1453"].started is None


def test_an_array_as_a_whole_is_alive_as_long_as_an_element_is() -> None:
    listed = live("9_0|10|COMPLETED|N/A|N/A|N/A|n1|None|a", "9_1|11|RUNNING|N/A|N/A|N/A|n1|None|a")
    answers_ = Slurm().parse_query(listed, ["9", "9_0", "9_1"])
    assert [status.answer for status in answers_.values()] == [Answer.ALIVE, Answer.ENDED, Answer.ALIVE]


def test_an_array_as_a_whole_ends_as_badly_as_its_worst_element() -> None:
    listed = live("9_0|10|COMPLETED|N/A|N/A|N/A|n1|None|a", "9_1|11|TIMEOUT|N/A|N/A|N/A|n1|None|a")
    end = Slurm().parse_query(listed, ["9"])["9"].end
    assert end is not None
    assert end.verdict is Verdict.TIMEOUT


def test_an_element_is_found_by_the_raw_id_that_its_agent_saw() -> None:
    listed = live("9_0|10|RUNNING|N/A|N/A|N/A|n1|None|a", "9_1|9|RUNNING|N/A|N/A|N/A|n1|None|a")
    assert Slurm().parse_query(listed, ["10"])["10"].answer is Answer.ALIVE


def test_a_range_that_is_cut_short_hides_nothing() -> None:
    listed = live("123_[1-3,5-...]|123|PENDING|N/A|N/A|N/A||Priority|a")
    assert Slurm().parse_query(listed, ["123_7"])["123_7"].answer is Answer.UNKNOWN


def test_a_line_that_cannot_be_read_makes_no_other_job_absent() -> None:
    answers_ = Slurm().parse_query(live("5|5|RUNNING|N/A|N/A|N/A|n1|None|x", "6|6|RUN"), ["5", "6"])
    assert [status.answer for status in answers_.values()] == [Answer.ALIVE, Answer.UNKNOWN]


def test_a_banner_before_the_header_is_passed_over() -> None:
    noisy = completed("*** maintenance on Friday ***\n" + live("5|5|RUNNING|N/A|N/A|N/A|n1|None|x").stdout)
    assert Slurm().parse_query(noisy, ["5"])["5"].answer is Answer.ALIVE


def test_no_jobs_at_all_is_an_answer_and_an_empty_output_is_none() -> None:
    assert Slurm().parse_query(live(), ["5"])["5"].answer is Answer.ABSENT
    assert Slurm().parse_query(completed(), ["5"])["5"].answer is Answer.UNKNOWN


def test_accounting_that_lags_never_proves_anything() -> None:
    lagging = past("3|3|PENDING|2026-11-20T23:10:00|Unknown|Unknown|None assigned|0:0|allocation")
    answers_ = Slurm().parse_history(lagging, ["3", "4"])
    assert {status.answer for status in answers_.values()} == {Answer.ABSENT}
    assert "PENDING" in answers_["3"].evidence


def test_a_requeued_job_has_the_state_of_its_last_record() -> None:
    records = past(
        "25|25|NODE_FAIL|2026-11-20T23:12:00|2026-11-20T23:12:14|2026-11-20T23:12:48|n2|0:0|nf_requeue",
        "25|25|COMPLETED|2026-11-20T23:12:48|2026-11-20T23:15:14|2026-11-20T23:15:48|n1|0:0|nf_requeue",
    )
    status = Slurm().parse_history(records, ["25"])["25"]
    assert status.end is not None
    assert (status.end.verdict, status.restarts) == (Verdict.SUCCEEDED, 1)


@pytest.mark.parametrize(
    ("row", "state", "stuck"),
    [
        ("COMPLETING|job requeued in held state", JobState.ENDING, False),  # as scontrol requeuehold leaves it
        ("PENDING|BeginTime", JobState.QUEUED, False),  # held back for two minutes after a node failure
        ("PENDING|job requeued in held state", JobState.HELD, True),
        ("REQUEUE_HOLD|JobHeldUser", JobState.HELD, True),
    ],
)
def test_a_job_between_two_starts_is_alive(row: str, state: JobState, stuck: bool) -> None:
    word, reason = row.split("|")
    status = Slurm().parse_query(live(f"25|25|{word}|2026-11-20T23:12:48|N/A|N/A||{reason}|nf"), ["25"])["25"]
    assert (status.answer, status.state, status.stuck) == (Answer.ALIVE, state, stuck)


@pytest.mark.parametrize(
    "records",
    [
        # sacct -D of one job: the failed start, then the one that waits.
        (
            "25|25|NODE_FAIL|2026-11-20T23:12:14|2026-11-20T23:12:14|2026-11-20T23:12:48|n2|0:0|nf_requeue",
            "25|25|PENDING|2026-11-20T23:12:48|Unknown|Unknown|None assigned|0:0|nf_requeue",
        ),
        (
            "25|25|REQUEUED|2026-11-20T23:18:10|2026-11-20T23:18:10|2026-11-20T23:18:10|n2|0:0|midrun",
            "25|25|PENDING|2026-11-20T23:18:10|Unknown|Unknown|None assigned|0:0|midrun",
        ),
        ("25|25|REQUEUED|2026-11-20T23:18:10|2026-11-20T23:18:10|2026-11-20T23:18:10|n2|0:0|midrun",),
    ],
)
def test_the_records_of_a_job_that_waits_to_start_again_are_no_end(records: tuple[str, ...]) -> None:
    status = Slurm().parse_history(past(*records), ["25"])["25"]
    assert (status.answer, status.end) == (Answer.ABSENT, None)


def test_an_id_that_was_given_to_another_job_says_that_job_s_name() -> None:
    records = past(
        "1435|1435|NODE_FAIL|2026-11-20T23:12:00|2026-11-20T23:12:14|2026-11-20T23:12:48|n2|0:0|t00001-aaaaaaaa",
        "1435|1435|COMPLETED|2026-11-20T23:18:00|2026-11-20T23:18:14|2026-11-20T23:18:48|n1|0:0|other",
    )
    status = Slurm().parse_history(records, ["1435"])["1435"]
    assert (status.name, status.restarts) == ("other", 0)


@pytest.mark.parametrize(
    ("state", "exit_code", "expected"),
    [
        ("FAILED", "3:0", (3, None)),
        ("FAILED", "0:9", (0, 9)),
        ("OUT_OF_MEMORY", "0:125", (0, None)),
        ("FAILED", "0:53", (0, None)),
    ],
)
def test_exit_codes_and_signals_are_told_apart_from_slurm_s_own(
    state: str, exit_code: str, expected: tuple[int, int | None]
) -> None:
    record = past(f"8|8|{state}|Unknown|Unknown|Unknown|n1|{exit_code}|x")
    end = Slurm().parse_history(record, ["8"])["8"].end
    assert end is not None
    assert (end.exit_code, end.signal) == expected


@pytest.mark.parametrize("job_id", ["1450", "1451"])
def test_a_job_whose_folder_or_output_could_not_be_opened_is_rejected_and_says_what_to_look_at(job_id: str) -> None:
    end = Slurm().parse_history(recorded_accounting(), [job_id])[job_id].end
    assert end is not None
    assert end.verdict is Verdict.REJECTED
    assert "folder" in end.reason


def test_a_job_that_slurm_gave_up_since_no_node_can_meet_it_is_rejected() -> None:
    listed = live("1441|1441|FAILED|2026-11-20T23:24:56|N/A|N/A||BadConstraints|wrap")
    end = Slurm().parse_query(listed, ["1441"])["1441"].end
    assert end is not None
    assert end.verdict is Verdict.REJECTED


def test_a_cluster_without_accounting_knows_no_past_and_can_be_trusted() -> None:
    assert Slurm().parse_history(NO_ACCOUNTING, ["5"])["5"].answer is Answer.ABSENT
    assert Slurm().parse_find([live(), NO_ACCOUNTING], ["t00001-aaaaaaaa"]).trusted
    without = Slurm(SchedulerOptions(history=False))
    assert without.history(["5"], 0.0) is None
    assert len(without.find(["t"], 0.0)) == 1


def test_the_controller_down_and_accounting_up_changes_nothing() -> None:
    down = dict(session("slurm/slurmctld_down.txt"))
    assert Slurm().parse_query(down["squeue -j 1434"], ["1434"])["1434"].answer is Answer.UNKNOWN
    assert (
        "Unable to contact slurm controller" in Slurm().parse_query(down["squeue -j 1434"], ["1434"])["1434"].evidence
    )


def test_queries_ask_for_utc_and_the_submit_leaves_the_job_s_environment_alone() -> None:
    slurm = Slurm(SchedulerOptions(commands={"squeue": "/opt/slurm/bin/squeue"}, extra={"user": "me"}))
    assert slurm.query(["1"]).argv[:6] == (
        "env",
        "LC_ALL=C",
        "TZ=UTC0",
        "SLURM_TIME_FORMAT=standard",
        "/opt/slurm/bin/squeue",
        "--user=me",
    )
    submit = slurm.submit(SubmitRequest(script="/w/job.sh", tag="t1", directory="/w"))
    assert submit.argv[0] == "sbatch"


def test_a_site_s_submit_options_and_array_come_before_the_script() -> None:
    slurm = Slurm(SchedulerOptions(submit_options=("--account=g1",)))
    argv = slurm.submit(SubmitRequest(script="/w/job.sh", tag="t1", directory="/w", array=4)).argv
    assert argv == ("sbatch", "--parsable", "--job-name=t1", "--array=0-3", "--account=g1", "/w/job.sh")


def test_history_is_asked_from_before_the_submit() -> None:
    command = Slurm().history(["12;c1", "13_2"], 1795217096.0)
    assert command is not None
    assert "--jobs=12,13_2" in command.argv
    assert "--starttime=2026-11-20T22:24:56" in command.argv


@pytest.mark.parametrize("completion", [NO_ANSWER, completed("", "slurm_load_jobs error: Invalid job id specified", 1)])
def test_invalid_job_id_is_a_failed_query_and_no_absence(completion: Completion) -> None:
    assert Slurm().parse_query(completion, ["5"])["5"].answer is Answer.UNKNOWN


def test_every_recorded_submit_is_either_taken_or_refused() -> None:
    recorded = [completion for words, completion in session("slurm/errors.txt") if words.startswith("sbatch")]
    kinds = [type(Slurm().parse_submit(completion)) for completion in recorded]
    assert set(kinds) == {Submitted, Refused}
    assert kinds.count(Submitted) == sum(completion.returncode == 0 for completion in recorded)


def test_the_recorded_accounting_is_read_with_its_arrays() -> None:
    found = Slurm().parse_history(recorded_accounting(), ["1450", "1455_0", "1455_1", "1455_4", "1457"])
    assert [one.answer for one in found.values()] == [
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ABSENT,  # its record was late
        Answer.ABSENT,  # RUNNING, which accounting cannot prove
    ]
    assert [one.end.verdict for one in found.values() if one.end is not None] == [
        Verdict.REJECTED,
        Verdict.SUCCEEDED,
        Verdict.FAILED,
    ]
