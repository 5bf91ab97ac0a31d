"""PBS: recorded answers of OpenPBS 23.06."""

from __future__ import annotations

import pytest
from transcripts import SAMPLES, answers, session

from orchestrator.model import Answer, JobEnd, JobState, JobStatus, Verdict
from orchestrator.schedulers import pbs_output
from orchestrator.schedulers.base import Refused, SchedulerOptions
from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
from orchestrator.schedulers.pbs import EXIT_STATUS, PBS
from orchestrator.transports.base import Completion

UNKNOWN_JOB = "qstat: Unknown Job Id 999999.pbsvm\n"
WRAPPED = SchedulerOptions(extra={"dialect": "wrapped"})


def sample(name: str) -> str:
    return (SAMPLES / "pbs" / name).read_text()


def listed(*names: str, stderr: str = "", returncode: int = 0) -> Completion:
    return completed("".join(sample(name) for name in names), stderr, returncode)


def status(name: str, job_id: str) -> JobStatus:
    return PBS().parse_history(listed(name), [job_id])[job_id]


def end(name: str, job_id: str) -> JobEnd:
    found = status(name, job_id)
    assert found.answer is Answer.ENDED
    assert found.end is not None
    return found.end


def qsub(words: str) -> Completion:
    return answers("pbs/errors.txt", f"qsub {words}")


class TestPBSContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        down = dict(session("pbs/server_down.txt"))
        refused_by_limit = next(
            completion for words, completion in session("pbs/errors.txt") if "per-user limit" in completion.stderr
        )
        return Recorded(
            scheduler=PBS(),
            accepted=[
                (completed("1.pbsvm\n"), "1"),
                (completed("1405000.reedbush-pbsadmin0\n"), "1405000"),
                (completed("16[].pbsvm\n"), "16[]"),
                (completed("*** group g01: 1200 of 5000 points used ***\n\n27.pbsvm\n"), "27"),
            ],
            refused=[
                qsub("-q nosuch"),
                qsub("-q debug -l walltime=01:00:00"),
                qsub("-l select=1:foo=1"),
                qsub("-l walltime=abc"),
                qsub("nofile.sh"),
                qsub("-J 5-1"),
                qsub("-J 0-9999"),
                qsub("-A x -W foo=bar"),
                qsub("-N this_name"),
                qsub("-N bad name"),
                completed(stderr="qsub: Bad UID for job execution\n", returncode=175),
                completed(stderr="qsub: Job rejected by all possible destinations\n", returncode=191),
            ],
            later=[
                qsub("-q shut"),
                refused_by_limit,
                down["qsub ok.sh"],
                completed(
                    stderr="qsub: would exceed queue small's per-user limit of jobs in 'Q' state\n", returncode=38
                ),
                completed(stderr="qsub: Maximum number of jobs already in queue\n", returncode=198),
            ],
            unclear=[
                completed(stderr="qsub: Premature end of message\n", returncode=1),
                completed(stderr="qsub: something new\n", returncode=162),
                completed("27.pbsvm\n28.pbsvm\n"),
                completed("job 27.pbsvm accepted?\n"),
            ],
            live=completed(
                sample("qstat_f_R.txt")
                + sample("qstat_f_Q_never.txt")
                + sample("qstat_f_H_dep.txt")
                + sample("qstat_f_W.txt"),
                UNKNOWN_JOB,
                153,
            ),
            alive={
                "9": JobState.RUNNING,
                "12.pbsvm": JobState.QUEUED,
                "18": JobState.HELD,
                "21": JobState.QUEUED,
            },
            unlisted=["999999"],
            failed_queries=[
                down["qstat -f -F json 1"],
                down["qstat"],
                completed('{"timestamp": 1, "pbs_version": "23.06.06", "pbs_server": "pbsvm"}\n'),
                completed(stderr="qstat: Unknown queue destination garbage\n", returncode=170),
                completed("Job Id: 9.pbsvm\n    job_st", returncode=15),
            ],
            past=listed(
                "qstat_xf_F_ok.txt",
                "qstat_xf_F_exit3.txt",
                "qstat_xf_F_walltime.txt",
                "qstat_xf_F_walltime_trapped_exit0.txt",
                "qstat_xf_F_deleted_queued.txt",
                "qstat_xf_F_deleted_running.txt",
                "qstat_xf_F_array.txt",
            ),
            past_ended={
                "34": Verdict.SUCCEEDED,
                "3": Verdict.FAILED,
                "7": Verdict.TIMEOUT,
                "8": Verdict.TIMEOUT,
                "14": Verdict.CANCELLED,
                "15": Verdict.CANCELLED,
                "16[]": Verdict.FAILED,
            },
            failed_histories=[down["qstat -f -F json 1"]],
            tag="t00007-k3j9x2q8",
            found="27",
            hit=[completed("27.pbsvm\n"), completed("27.pbsvm\n")],
            miss=[completed(), completed()],
            failed_finds=[
                [completed(stderr="Connection refused\n", returncode=162), completed()],
                [
                    completed(),
                    completed(stderr="qselect: cannot connect to server pbsvm (errno=15010)\n", returncode=162),
                ],
                [completed("27.pbsvm and more\n"), completed()],
            ],
            cancelled=[
                completed(),
                answers("pbs/errors.txt", "qdel 999999"),
                answers("pbs/errors.txt", "qdel 2.pbsvm"),
            ],
            not_cancelled=[down["qdel 1"], answers("pbs/errors.txt", "qdel garbage")],
        )


class TestWrappedContract(SchedulerContract):
    """A site's own list of unfinished jobs in the place of qstat."""

    @pytest.fixture
    def recorded(self) -> Recorded:
        none = completed("Reedbush-H scheduled stop time: 2019/01/29(Tue) 09:00:00\n\nNo unfinished job found.\n")
        return Recorded(
            scheduler=PBS(WRAPPED),
            accepted=[(completed("1405000.reedbush-pbsadmin0\n"), "1405000")],
            refused=[qsub("-q nosuch")],
            later=[qsub("-q shut")],
            unclear=[],
            live=listed("rbstat.txt"),
            alive={"1405000": JobState.RUNNING},
            unlisted=["1405001", "140500"],
            failed_queries=[completed("rbstat: cannot connect\n", returncode=1), listed("rbstat.txt", returncode=2)],
            tag="job.sh",
            found="1405000",
            hit=[listed("rbstat.txt")],
            miss=[none],
            failed_finds=[[completed("Traceback (most recent call last):\n", returncode=1)]],
            cancelled=[completed()],
            not_cancelled=[],
        )


BOTH_FORMS = sorted(path.stem for path in (SAMPLES / "pbs").glob("qstat_*.json") if path.with_suffix(".txt").exists())


@pytest.mark.parametrize("name", BOTH_FORMS)
def test_the_plain_form_and_the_json_say_the_same(name: str) -> None:
    plain = pbs_output.jobs(sample(f"{name}.txt"))
    data = pbs_output.jobs(sample(f"{name}.json"))
    assert plain is not None
    assert data is not None
    assert plain.keys() == data.keys()
    for job_id in plain:
        for key in ("Job_Name", "job_state", "substate", "Exit_status", "comment", "ctime", "Resource_List.walltime"):
            assert plain[job_id].get(key) == data[job_id].get(key), key


@pytest.mark.parametrize(
    ("name", "job_id", "expected"),
    [
        ("qstat_xf_F_ok.txt", "34", (Verdict.SUCCEEDED, 0, None)),
        ("qstat_xf_F_exit3.txt", "3", (Verdict.FAILED, 3, None)),
        ("qstat_xf_F_exit300.txt", "6", (Verdict.FAILED, 44, None)),
        ("qstat_xf_F_kill9.txt", "4", (Verdict.FAILED, 137, None)),
        ("qstat_xf_F_segv.txt", "5", (Verdict.FAILED, 139, None)),
        ("qstat_xf_F_walltime.txt", "7", (Verdict.TIMEOUT, None, None)),
        ("qstat_xf_F_walltime_trapped_exit0.txt", "8", (Verdict.TIMEOUT, None, None)),
        ("qstat_xf_F_deleted_running.txt", "15", (Verdict.CANCELLED, None, 15)),
        ("qstat_xf_F_deleted_queued.txt", "14", (Verdict.CANCELLED, None, None)),
        ("qstat_xf_F_array.txt", "16[]", (Verdict.FAILED, None, None)),
        ("qstat_xtf_F_array_subjobs_bracket.txt", "16[2]", (Verdict.FAILED, 7, None)),
        ("qstat_xtf_F_array_subjobs.json", "16[0]", (Verdict.SUCCEEDED, 0, None)),
        ("qstat_xtf_F_array_subjobs.json", "16[2].pbsvm", (Verdict.FAILED, 7, None)),
    ],
)
def test_each_recorded_end_has_its_verdict(
    name: str, job_id: str, expected: tuple[Verdict, int | None, int | None]
) -> None:
    found = end(name, job_id)
    assert (found.verdict, found.exit_code, found.signal) == expected
    assert found.reason


def finished(**attributes: str) -> JobEnd:
    lines = {"job_state": "F", **attributes}
    text = "Job Id: 5.srv\n" + "".join(f"    {key.replace('__', '.')} = {value}\n" for key, value in lines.items())
    found = PBS().parse_history(completed(text), ["5"])["5"].end
    assert found is not None
    return found


@pytest.mark.parametrize("code", sorted(EXIT_STATUS))
def test_a_negative_exit_status_is_pbs_s_own_word(code: int) -> None:
    found = finished(Exit_status=str(code), substate="93")
    assert (found.verdict, found.exit_code) == (EXIT_STATUS[code][0], None)


def test_an_unknown_negative_exit_status_is_an_end_that_is_not_explained() -> None:
    found = finished(Exit_status="-77", substate="93")
    assert found.verdict is None
    assert "-77" in found.reason


def test_old_servers_report_a_walltime_kill_as_sigterm_and_the_clock_tells() -> None:
    limits = {"Resource_List__walltime": "01:00:00", "Exit_status": "271", "substate": "93"}
    assert finished(resources_used__walltime="01:00:12", **limits).verdict is Verdict.TIMEOUT
    assert finished(resources_used__walltime="00:10:12", **limits).verdict is Verdict.FAILED


def test_memory_beyond_the_limit_is_told_by_the_comment() -> None:
    found = finished(Exit_status="137", comment="Job run at ... on (n1:ncpus=1) and exceeded resource mem")
    assert found.verdict is Verdict.OUT_OF_MEMORY


def test_a_finished_job_without_history_has_ended_somehow() -> None:
    message = completed("", sample("qstat_finished_without_x.txt").splitlines()[0] + "\n", 35)
    without = PBS(SchedulerOptions(history=False)).parse_query(message, ["34"])["34"]
    assert without.answer is Answer.ENDED
    assert without.end is not None
    assert without.end.verdict is None
    # With history the live queue no longer has it, and history is asked how it ended.
    assert PBS().parse_query(message, ["34"])["34"].answer is Answer.ABSENT


def test_a_job_that_has_moved_to_another_server_is_not_known_and_not_gone() -> None:
    moved = completed("Job Id: 5.srv\n    Job_Name = x\n    job_state = M\n    substate = 94\n")
    found = PBS().parse_history(moved, ["5"])["5"]
    assert found.answer is Answer.UNKNOWN
    assert "'M'" in found.evidence


def test_a_server_without_history_knows_no_past() -> None:
    refusal = completed("PBS is not configured to maintain job history\n")
    assert PBS().parse_history(refusal, ["5"])["5"].answer is Answer.ABSENT
    refused = completed(stderr="qselect: job_history_enable is set to false\n", returncode=36)
    assert PBS().parse_find([completed(), refused], ["t00001-aaaaaaaa"]).trusted
    assert PBS(SchedulerOptions(history=False)).history(["5"], 0.0) is None


def test_silence_about_a_job_is_no_absence() -> None:
    found = PBS().parse_query(listed("qstat_f_R.txt"), ["9", "10"])
    assert [one.answer for one in found.values()] == [Answer.ALIVE, Answer.UNKNOWN]


def test_another_job_s_message_is_not_this_job_s() -> None:
    message = completed(
        stderr="qstat: Unknown Job Id 19.pbsvm\nqstat: 29.pbsvm Job has finished, use -x\n", returncode=35
    )
    assert PBS().parse_query(message, ["9"])["9"].answer is Answer.UNKNOWN


def test_a_job_that_can_never_run_is_stuck_and_says_why() -> None:
    found = status("qstat_f_Q_never.txt", "12")
    assert (found.answer, found.stuck) == (Answer.ALIVE, True)
    assert "Can Never Run" in found.reason


def test_a_held_job_is_stuck_and_names_its_dependency() -> None:
    found = status("qstat_f_H_dep.json", "18")
    assert (found.state, found.stuck) == (JobState.HELD, True)
    assert "afterok:3" in found.reason


def test_an_array_that_runs_and_its_elements_are_alive_each_in_its_state() -> None:
    asked = ["16[]", "16[0]", "16[2]", "16[3]", "16[4]"]
    found = PBS().parse_query(listed("qstat_J_array_running.json"), asked)
    assert [one.state for one in found.values()] == [
        JobState.RUNNING,
        JobState.RUNNING,
        JobState.RUNNING,
        JobState.QUEUED,
        JobState.QUEUED,
    ]
    assert status("qstat_f_array_held.txt", "17[]").stuck


def test_a_finished_job_without_an_exit_status_that_nobody_deleted_is_not_explained() -> None:
    found = end("qstat_dep_on_unknown_job.json", "27")
    assert found.verdict is None
    assert "substate 92" in found.reason


def test_every_state_that_a_job_passes_through_is_known() -> None:
    for line in sample("state_sequence_ok.txt").splitlines():
        word = line.split('"')[3]
        found = PBS().parse_query(completed(f"Job Id: 5.srv\n    Job_Name = x\n    job_state = {word}\n"), ["5"])["5"]
        assert found.answer in {Answer.ALIVE, Answer.ENDED}, line


def test_qdel_never_erases_the_history() -> None:
    assert PBS().cancel(["1", "16[2]"]).argv == ("qdel", "1", "16[2]")


def test_the_end_of_an_element_is_its_own_and_not_the_array_s() -> None:
    found = PBS().parse_history(listed("qstat_xf_subjob_failed.txt"), ["16[2]"])["16[2]"]
    assert found.end is not None
    assert (found.end.verdict, found.end.exit_code) == (Verdict.FAILED, 7)


def test_ending_and_begun_arrays_are_alive() -> None:
    assert (status("qstat_f_E.json", "95").answer, status("qstat_f_E.json", "95").state) == (
        Answer.ALIVE,
        JobState.ENDING,
    )
    assert status("qstat_f_array_parent.json", "16[]").answer is Answer.ALIVE


def test_times_names_and_restarts_are_told() -> None:
    found = status("qstat_xf_F_walltime.txt", "7")
    assert (found.name, found.submitted, found.ended, found.restarts) == ("wall", 1795216976.0, 1795217003.0, 0)


def test_a_long_value_is_put_together_again() -> None:
    assert end("qstat_xf_F_walltime.txt", "7").reason.endswith("and exceeded resource walltime")


@pytest.mark.parametrize(
    "variable",
    [
        '"foo": 005',
        '"foo": "it\\\'s"',
        '"foo": "a\\,b"',
        '"foo": "tab\there"',
        '"foo": "bell\x07"',
        '"foo": "new\nline"',
        '"foo": "\\u12"',
        '"foo": 0x1F',
        '"foo": -.5',
        '"foo": +5',
        '"foo": inf',
    ],
)
def test_json_that_deployed_versions_break_is_read_all_the_same(variable: str) -> None:
    text = '{"Jobs": {"9.srv": {"job_state": "R", "Variable_List": {' + variable + '}, "Job_Name": "x"}}}'
    found = PBS().parse_query(completed(f"warning: banner\n{text}\n"), ["9"])["9"]
    assert (found.answer, found.name) == (Answer.ALIVE, "x")


def test_escapes_that_are_right_stay_as_they_are_beside_one_that_is_not() -> None:
    values = r'{"path": "C:\\x", "tab": "\t", "letter": "\u00e9", "cut": "\u12", "odd": "\,"}'
    read = pbs_output.jobs('{"Jobs": {"9.srv": {"job_state": "R", "V": ' + values + "}}}")
    assert read is not None
    assert {name.removeprefix("V."): value for name, value in read["9"].items() if name.startswith("V.")} == {
        "path": r"C:\x",
        "tab": "\t",
        "letter": "é",
        "cut": r"\u12",
        "odd": r"\,",
    }


@pytest.mark.parametrize(
    "document",
    [
        # A variable of the user's with quotes and braces in it: well-formed, and a lie.
        '"9.srv": {"job_state": "R", "Variable_List": {"x": "y"}, "job_state": "F", "Exit_status": 0}',
        '"9.srv": {"job_state": "R"}, "9.srv": {"job_state": "F", "Exit_status": 0}',
    ],
)
def test_json_that_says_two_things_of_one_job_says_nothing_of_it(document: str) -> None:
    text = f'{{"Jobs": {{{document}, "10.srv": {{"job_state": "Q"}}, "10.srv": {{"job_state": "Q"}}}}}}'
    found = PBS().parse_query(completed(text), ["9", "10"])
    assert [one.answer for one in found.values()] == [Answer.UNKNOWN, Answer.ALIVE]


@pytest.mark.parametrize(
    "spoilt",
    [
        '{"Jobs": {"9.pbsvm": {"job_state": "R", "x": "a"b"}}}',
        '{"Jobs": {"9.pbsvm": {"job_state": "R", "job_state": "F"}}}',
        '{"timestamp": 1, "pbs_version": "23.06.06", "pbs_server": "pbsvm"}',
    ],
)
def test_after_json_that_cannot_be_believed_the_next_query_asks_for_the_plain_form_and_reads_it(spoilt: str) -> None:
    pbs = PBS(SchedulerOptions(extra={"format": "json"}))
    assert "json" in pbs.query(["9"]).argv
    assert pbs.parse_query(completed(spoilt), ["9"])["9"].answer is Answer.UNKNOWN
    assert "json" not in pbs.query(["9"]).argv
    past = pbs.history(["9"], 0.0)
    assert past is not None
    assert "json" not in past.argv
    assert pbs.parse_query(listed("qstat_f_R.txt"), ["9"])["9"].answer is Answer.ALIVE


def test_json_is_asked_for_as_long_as_it_can_be_read() -> None:
    pbs = PBS(SchedulerOptions(extra={"format": "json"}))
    assert pbs.parse_query(listed("qstat_f_R.json"), ["9"])["9"].answer is Answer.ALIVE
    assert pbs.parse_query(answers("pbs/server_down.txt", "qstat -f -F json 1"), ["9"])["9"].answer is Answer.UNKNOWN
    assert "json" in pbs.query(["9"]).argv


def test_a_variable_that_looks_like_an_attribute_does_not_become_one() -> None:
    text = "Job Id: 9.srv\n    job_state = R\n    Variable_List = A=1\n    job_state = F\n    Exit_status = 0\n"
    assert PBS().parse_query(completed(text), ["9"])["9"].answer is Answer.UNKNOWN


def test_the_return_code_counts_for_more_than_a_stale_message() -> None:
    # qsub's background process answered with the message of the call before.
    answer = PBS().parse_submit(qsub("-A x -W foo=bar"))
    assert isinstance(answer, Refused)
    assert "154" in answer.reason


def test_commands_are_asked_as_the_site_needs_them() -> None:
    plain = PBS(SchedulerOptions(commands={"qstat": "/opt/pbs/bin/qstat"}))
    assert plain.query(["1", "16[2]"]).argv == ("env", "LC_ALL=C", "TZ=UTC0", "/opt/pbs/bin/qstat", "-f", "1", "16[2]")
    data = PBS(SchedulerOptions(extra={"format": "json"}))
    history = data.history(["1"], 0.0)
    assert history is not None
    assert history.argv[3:] == ("qstat", "-f", "-F", "json", "-x", "1")
    assert PBS(WRAPPED).query(["1"]).argv == ("qstat",)
    assert [command.argv[3:] for command in plain.find(["a", "b"], 0.0)] == [
        ("qselect", "-N", "a"),
        ("qselect", "-N", "b"),
        ("qselect", "-x", "-N", "a"),
        ("qselect", "-x", "-N", "b"),
    ]


def test_qselect_s_whole_list_is_read() -> None:
    found = PBS(SchedulerOptions(history=False)).parse_find([completed(sample("qselect.txt"))], ["t"])
    assert len(found.jobs["t"]) == 17
    assert found.trusted


def test_a_whole_server_s_list_has_only_states_that_we_know() -> None:
    listed_jobs = pbs_output.jobs(sample("qstat_f_all.json"))
    assert listed_jobs is not None
    found = PBS().parse_query(listed("qstat_f_all.json"), list(listed_jobs))
    assert {one.answer for one in found.values()} == {Answer.ALIVE}


def test_json_without_jobs_leaves_it_to_the_message() -> None:
    gone = completed(sample("qstat_f_E_or_gone.json"), sample("qstat_f_E_or_gone.json.stderr"), 35)
    found = PBS(SchedulerOptions(history=False)).parse_query(gone, ["2", "3"])
    assert [one.answer for one in found.values()] == [Answer.ENDED, Answer.UNKNOWN]


def test_a_running_job_in_the_history_is_alive() -> None:
    found = status("qstat_xf_rerun.txt", "20")
    assert (found.answer, found.restarts) == (Answer.ALIVE, 0)
