"""Grid Engine: recorded answers of Son of Grid Engine 8.1.9."""

from __future__ import annotations

import pytest
from transcripts import answers, session

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers.base import Refused, SchedulerOptions, SubmitRequest
from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
from orchestrator.schedulers.gridengine import FAILED, GridEngine
from orchestrator.transports.base import Completion

COMMLIB = 'error: commlib error: got select error (Connection refused)\nerror: unable to contact qmaster using port 6444 on host "m"\n'
EMPTY = completed(
    "<?xml version='1.0'?>\n<job_info>\n  <queue_info>\n  </queue_info>\n  <job_info>\n  </job_info>\n</job_info>\n"
)


DOWN = dict(session("gridengine/qmaster_down.txt"))
REFUSALS = {words: said for words, said in session("gridengine/refusals.txt") if words.startswith("qsub")}


def real(command: str) -> Completion:
    """What was recorded beside a qstat of jobs in every state."""
    return answers("gridengine/ends.txt", command)


def qacct(words: str) -> Completion:
    return answers("gridengine/qacct.txt", f"qacct -j {words}")


def listed(state: str, **more: str) -> Completion:
    fields = {"JB_job_number": "7", "JB_name": "t00007-k3j9x2q8", "state": state, **more}
    cells = "".join(f"<{tag}>{text}</{tag}>" for tag, text in fields.items())
    return completed(f"<?xml version='1.0'?><job_info><queue_info><job_list>{cells}</job_list></queue_info></job_info>")


def record(**more: str) -> Completion:
    fields = {"jobname": "t00007-k3j9x2q8", "jobnumber": "7", "taskid": "undefined", **more}
    return completed("=" * 62 + "\n" + "".join(f"{key:<13}{text}\n" for key, text in fields.items()))


def status(completion: Completion) -> JobStatus:
    return GridEngine().parse_query(completion, ["7"])["7"]


def end(completion: Completion, job_id: str = "7") -> JobEnd:
    found = GridEngine().parse_history(completion, [job_id])[job_id]
    assert found.answer is Answer.ENDED
    assert found.end is not None
    return found.end


class TestGridEngineContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        not_found = completed(stderr="error: job name t00007-k3j9x2q8 not found\n", returncode=1)
        return Recorded(
            scheduler=GridEngine(),
            accepted=[
                (answers("gridengine/basics.txt", "qsub -terse g.sh"), "1"),
                (answers("gridengine/basics.txt", "qsub -terse -t 1-4:2"), "2"),
                (completed('Your job 123 ("t00007-k3j9x2q8") has been submitted\n'), "123"),
                (completed('Your job-array 124.1-4:1 ("x") has been submitted\n'), "124"),
                (completed("trial execution: 3 minutes at most\n125\n"), "125"),
            ],
            refused=[
                answers("gridengine/basics.txt", "qsub -cwd -q nosuch.q"),
                answers("gridengine/basics.txt", "qsub -l foo=1"),
                completed(stderr="qsub: Unknown option -zz\n", returncode=1),
                *(said for said in REFUSALS.values() if said.returncode != 25),
            ],
            later=[
                *(said for said in REFUSALS.values() if said.returncode == 25),
                DOWN["qsub -terse -N t-four s.sh"],
                completed(
                    stderr="Unable to run job: job rejected: only 1000 jobs are allowed per user "
                    "(current job count: 1000)\nExiting.\n",
                    returncode=25,
                ),
                completed(stderr=f"Unable to run job: {COMMLIB}Exiting.\n", returncode=1),
            ],
            unclear=[
                completed(
                    stderr="Unable to run job: failed receiving gdi request response for mid=1 "
                    "(got syncron message receive timeout error).\nExiting.\n",
                    returncode=1,
                ),
                completed("1\n2\n"),
                completed("Your job is important to us\n"),
            ],
            live=answers("gridengine/basics.txt", "qstat -xml"),
            alive={"1": JobState.QUEUED, "5": JobState.HELD, "2": JobState.QUEUED, "2.3": JobState.QUEUED},
            unlisted=["999999", "2.2"],
            failed_queries=[
                completed(stderr=COMMLIB, returncode=1),
                DOWN["qstat -s prsz -xml"],
                completed("<?xml version='1.0'?>\n<job_info><queue_info>"),
                completed("<?xml version='1.0'?>\n<error>no</error>"),
                answers("gridengine/basics.txt", "qstat -s z"),
            ],
            past=completed("".join(qacct(words).stdout for words in ("1", "2", "6"))),
            past_ended={
                "1": Verdict.FAILED,
                "2.1": Verdict.FAILED,
                "2.3": Verdict.FAILED,
                "2": Verdict.FAILED,
                "6": Verdict.TIMEOUT,
            },
            failed_histories=[completed(stderr="qacct: Permission denied\n", returncode=1), completed()],
            tag="gj",
            found="1",
            hit=[EMPTY, qacct("1")],
            miss=[EMPTY, not_found],
            failed_finds=[
                [completed(stderr=COMMLIB, returncode=1), not_found],
                [EMPTY, completed(stderr="qacct: Permission denied\n", returncode=1)],
            ],
            cancelled=[
                completed("tester has registered the job 1 for deletion\n"),
                answers("gridengine/basics.txt", "qdel 999999"),
                answers("gridengine/refusals.txt", "qdel 19 19 999999"),
            ],
            not_cancelled=[completed(stderr=COMMLIB, returncode=1), DOWN["qdel 1"]],
        )


@pytest.mark.parametrize(
    ("word", "state", "stuck"),
    [
        ("qw", JobState.QUEUED, False),
        ("hqw", JobState.HELD, True),
        ("hRwq", JobState.HELD, True),
        ("Eqw", JobState.HELD, True),
        ("r", JobState.RUNNING, False),
        ("hr", JobState.RUNNING, False),
        ("t", JobState.RUNNING, False),
        ("Rr", JobState.RUNNING, False),
        ("s", JobState.SUSPENDED, False),
        ("S", JobState.SUSPENDED, False),
        ("T", JobState.SUSPENDED, False),
        ("dr", JobState.ENDING, False),
    ],
)
def test_each_state_word_has_its_state(word: str, state: JobState, stuck: bool) -> None:
    found = status(listed(word))
    assert (found.answer, found.state, found.stuck) == (Answer.ALIVE, state, stuck)


@pytest.mark.parametrize("word", ["Q!", "", "r?"])
def test_an_unknown_state_is_not_known_and_quoted(word: str) -> None:
    found = status(listed(word))
    assert found.answer is Answer.UNKNOWN
    assert repr(word) in found.evidence


def test_names_are_whole_and_times_are_told() -> None:
    found = status(listed("r", JB_submission_time="2026-11-20T23:30:18", JAT_start_time="2026-11-20T23:30:26"))
    assert (found.name, found.submitted, found.started) == ("t00007-k3j9x2q8", 1795217418.0, 1795217426.0)


def test_accounting_that_is_not_written_yet_knows_no_past() -> None:
    early = answers("gridengine/basics.txt", "qacct -j 999999")
    assert GridEngine().parse_history(early, ["999999"])["999999"].answer is Answer.ABSENT
    missing = completed(stderr="error: job id 7 not found\n", returncode=1)
    assert GridEngine().parse_history(missing, ["7"])["7"].answer is Answer.ABSENT


def test_a_span_without_records_knows_none_of_them() -> None:
    empty = completed(
        "Total System Usage\n    WALLCLOCK         UTIME\n================\n            0         0.000\n"
    )
    assert GridEngine().parse_history(empty, ["7", "8"])["7"].answer is Answer.ABSENT


def test_a_job_killed_at_its_time_limit_timed_out() -> None:
    found = end(qacct("6"), "6")
    assert (found.verdict, found.signal) == (Verdict.TIMEOUT, 9)
    assert "37" in found.reason


def test_the_same_code_means_memory_where_memory_was_limited_and_time_was_left() -> None:
    limits = {"failed": "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "exit_status": "137"}
    asked = "-l h_rt=3600,h_vmem=4G"
    assert end(record(**limits, category=asked, ru_wallclock="100s")).verdict is Verdict.OUT_OF_MEMORY
    assert end(record(**limits, category=asked, ru_wallclock="3605s")).verdict is Verdict.TIMEOUT


@pytest.mark.parametrize("code", sorted(FAILED))
def test_each_failure_code_has_its_verdict(code: int) -> None:
    assert end(record(failed=f"{code}  : words", exit_status="0")).verdict is FAILED[code][0]


@pytest.mark.parametrize(
    ("failed", "exit_status", "expected"),
    [
        ("0", "0", (Verdict.SUCCEEDED, 0, None)),
        ("0", "3", (Verdict.FAILED, 3, None)),
        ("0", "137", (Verdict.FAILED, None, 9)),  # the script's own word of a program that was killed
        ("100 : assumedly after job", "139                  (Segmentation fault)", (Verdict.FAILED, None, 11)),
        ("15  : in epilog", "0", (Verdict.SUCCEEDED, 0, None)),
    ],
)
def test_exit_codes_and_signals_are_told_apart(
    failed: str, exit_status: str, expected: tuple[Verdict, int | None, int | None]
) -> None:
    found = end(record(failed=failed, exit_status=exit_status))
    assert (found.verdict, found.exit_code, found.signal) == expected


def test_a_deleted_job_was_cancelled_where_the_record_says_by_whom() -> None:
    found = end(record(failed="100 : assumedly after job", exit_status="137", deleted_by="someone@login1"))
    assert found.verdict is Verdict.CANCELLED
    assert "someone" in found.reason


@pytest.mark.parametrize(("job_id", "signal"), [("4", 9), ("13", 15)])
def test_a_running_job_that_qdel_ended_was_cancelled_though_the_record_does_not_say_by_whom(
    job_id: str, signal: int
) -> None:
    found = end(real(f"qacct -j {job_id}"), job_id)
    assert (found.verdict, found.exit_code, found.signal) == (Verdict.CANCELLED, None, signal)
    assert "qdel" in found.reason


def test_where_records_say_who_deleted_a_job_a_kill_without_a_name_is_a_failure() -> None:
    found = end(record(failed="100 : assumedly after job", exit_status="137", deleted_by="NONE"))
    assert (found.verdict, found.signal) == (Verdict.FAILED, 9)


def test_a_job_that_was_warned_at_its_soft_limit_and_died_of_it_timed_out() -> None:
    found = end(real("qacct -j 8"), "8")
    assert (found.verdict, found.signal) == (Verdict.TIMEOUT, 10)
    assert "s_rt" in found.reason


def test_a_signal_of_its_own_is_a_failure() -> None:
    assert end(record(failed="100 : assumedly after job", exit_status="138")).verdict is Verdict.FAILED


def test_a_job_that_waits_in_an_error_state_is_stuck_and_once_deleted_says_what_it_could_not_open() -> None:
    found = GridEngine().parse_query(listed("Eqw"), ["7"])["7"]
    assert (found.state, found.stuck, found.reason) == (JobState.HELD, True, "error state: see qstat -j")
    deleted = end(real("qacct -j 9"), "9")
    assert deleted.verdict is Verdict.REJECTED
    assert "output file" in deleted.reason


def test_a_job_that_was_deleted_while_it_waited_has_ended_and_is_not_merely_absent() -> None:
    asked = ["3", "11", "4", "9", "18.1", "18.2", "19", "2", "999999"]
    found = GridEngine().parse_query(real("qstat -s prsz -xml"), asked)
    assert [found[job_id].answer for job_id in asked] == [
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ENDED,
        Answer.ALIVE,
        Answer.ENDED,
        Answer.ABSENT,
    ]
    waited = found["11"].end
    assert waited is not None
    # It never ran, so accounting knows nothing of it: that it was deleted is all that can be said.
    assert waited.verdict is None
    assert "deleted" in waited.reason
    assert GridEngine().parse_history(real("qacct -j 11"), ["11"])["11"].answer is Answer.ABSENT


def test_a_user_without_records_has_none_and_that_is_an_answer() -> None:
    found = GridEngine().parse_history(real("qacct -o nobody"), ["7", "8"])
    assert [one.answer for one in found.values()] == [Answer.ABSENT, Answer.ABSENT]


def test_an_id_that_was_given_to_another_job_says_that_job_s_name_and_counts_no_restart() -> None:
    old = record(jobname="t00001-aaaaaaaa", qsub_time="Fri Nov 20 23:30:18 2025", failed="0", exit_status="0")
    new = record(jobname="other", qsub_time="Fri Nov 20 23:30:18 2026", failed="0", exit_status="3")
    found = GridEngine().parse_history(completed(old.stdout + new.stdout), ["7"])["7"]
    assert (found.name, found.restarts) == ("other", 0)


@pytest.mark.parametrize("words", REFUSALS)
def test_each_recorded_refusal_is_certain(words: str) -> None:
    assert isinstance(GridEngine().parse_submit(REFUSALS[words]), Refused)


def test_a_job_that_was_run_again_has_the_end_of_its_last_start() -> None:
    both = record(failed="25  : rescheduling", exit_status="0").stdout + record(failed="0", exit_status="0").stdout
    found = GridEngine().parse_history(completed(both), ["7"])["7"]
    assert found.end is not None
    assert (found.end.verdict, found.restarts) == (Verdict.SUCCEEDED, 1)


def test_altair_s_times_with_thousandths_are_read() -> None:
    found = GridEngine().parse_history(record(failed="0", exit_status="0", end_time="11/20/2026 23:30:28.123"), ["7"])[
        "7"
    ]
    assert found.ended == 1795217428.0


def test_an_array_that_is_found_by_name_is_one_job() -> None:
    found = GridEngine().parse_find([EMPTY, qacct("2")], ["gj"])
    assert [one.job_id for one in found.jobs["gj"]] == ["2"]


def test_commands_are_asked_as_the_site_needs_them() -> None:
    mine = GridEngine(SchedulerOptions(extra={"user": "me"}, submit_options=("-g", "tga-x")))
    assert mine.query(["1"]).argv == ("env", "LC_ALL=C", "TZ=UTC0", "qstat", "-u", "me", "-s", "prsz", "-xml")
    one, many = mine.history(["7.3"], 1795217418.0), mine.history(["7", "8"], 1795217418.0)
    assert one is not None
    assert many is not None
    assert one.argv[3:] == ("qacct", "-j", "7")
    assert many.argv[3:] == ("qacct", "-o", "me", "-b", "202611192330", "-j")
    assert GridEngine(SchedulerOptions(history=False)).history(["7"], 0.0) is None
    request = SubmitRequest(script="/w/job.sh", tag="t1", directory="/w", array=3)
    assert mine.submit(request).argv == ("qsub", "-terse", "-N", "t1", "-t", "1-3", "-g", "tga-x", "/w/job.sh")
