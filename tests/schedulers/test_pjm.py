"""PJM: outputs as Fujitsu's, Fugaku's, Wisteria's and Genkai's documents and their users print them."""

from __future__ import annotations

import pytest
from transcripts import SAMPLES

from orchestrator.model import Answer, JobEnd, JobState, Verdict
from orchestrator.schedulers.base import SchedulerOptions, SubmitRequest, Submitted, Unclear
from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
from orchestrator.schedulers.pjm import PJM, PJM_CODES
from orchestrator.transports.base import Completion

WRAPPED = SchedulerOptions(extra={"dialect": "wrapped"})
STOCK = SchedulerOptions(extra={"dialect": "stock"})
HEADER = "JOB_ID     ST  EC  PC  SN  JOB_NAME   REASON\n"


def listed(name: str, returncode: int = 0) -> Completion:
    return completed((SAMPLES / "pjm" / name).read_text(), returncode=returncode)


def refusal(text: str, returncode: int = 1) -> Completion:
    return completed(stderr=f"[ERR.] PJM {text}\n", returncode=returncode)


ACCEPTED = [
    (completed("[INFO] PJM 0000 pjsub Job 1334958 submitted.\n"), "1334958"),
    (completed("[INFO.] PJM 0000 pjsub Job 1334958 submitted.\n"), "1334958"),
    (completed("remaining budget: 1200 points\n[INFO] PJM 0000 pjsub Job 64856_0 submitted.\n"), "64856"),
]


class TestChooseContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        return Recorded(
            scheduler=PJM(),
            accepted=ACCEPTED,
            refused=[
                refusal("0057 pjsub node=32 is greater than the upper limit (24)."),
                refusal("0071 pjsub Group not authorized to submit a job: group(59999)"),
                refusal("0070 pjsub No execute permission: pjsub-bulk."),
                refusal("0007 pjsub Staging option error (3).", returncode=0),
                completed("[ERR.] PJM 0007 pjsub Resource group does not exist\n", returncode=0),
            ],
            later=[
                refusal("0063 pjsub The number of jobs exceeds ru-accept limit (50)."),
                refusal("0063 pjsub ru-accept limit", returncode=0),
            ],
            unclear=[
                refusal("0099 pjsub something that no table has"),
                completed("1334958\n"),
                completed("[INFO] PJM 0000 pjsub Job submitted.\n"),
                completed("[INFO] PJM 0081 .connected.\n"),
                completed("[INFO] PJM 0000 pjsub Job 1 submitted.\n", "[ERR.] PJM 0090 pjsub communication error\n", 0),
            ],
            live=listed("choose.txt"),
            alive={
                "48969023": JobState.RUNNING,
                "48969024": JobState.QUEUED,
                "48969025": JobState.HELD,
                "48969026": JobState.ENDING,
            },
            ended={
                "48969021": Verdict.SUCCEEDED,
                "48969022": Verdict.TIMEOUT,
                "48969027": Verdict.CANCELLED,
                "48969028": Verdict.REJECTED,
                "48969029": Verdict.FAILED,
                "48969030": Verdict.NODE_FAILURE,
                "48969031": Verdict.OUT_OF_MEMORY,
            },
            unlisted=["4896902", "1"],
            failed_queries=[
                refusal("0211 pjstat Invalid jobid: r1."),
                refusal("0299 pjstat Connection refused.", returncode=0),
                completed(HEADER + "[ERR.] PJM 0299 pjstat interrupted\n"),
                completed(HEADER, returncode=1),
            ],
            past=listed("choose.txt"),
            past_ended={"48969021": Verdict.SUCCEEDED, "48969022": Verdict.TIMEOUT},
            failed_histories=[refusal("0299 pjstat Connection refused.")],
            tag="t00007-aaaaaaaa",
            found="48969027",
            hit=[completed(HEADER), completed(HEADER + "48969027 CCL 0 1 0 t00007-aaa -\n")],
            miss=[completed(HEADER), completed(HEADER)],
            failed_finds=[[completed(HEADER), refusal("0299 pjstat Connection refused.", 0)]],
            cancelled=[
                completed("[INFO] PJM 0100 pjdel Accepted job 6291500.\n"),
                completed(stderr="[ERR.] PJM 0105 pjdel Job 1 does not exist.\n", returncode=1),
            ],
            not_cancelled=[refusal("0199 pjdel Connection refused.", 0), completed(returncode=1)],
        )


class TestWrappedContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        none = listed("wrapped_none.txt")
        return Recorded(
            scheduler=PJM(WRAPPED),
            accepted=ACCEPTED,
            refused=[refusal("0070 pjsub No execute permission: pjsub-bulk.")],
            later=[refusal("0063 pjsub ru-accept limit")],
            unclear=[],
            live=listed("wrapped.txt"),
            alive={"4757341": JobState.RUNNING, "4757342": JobState.QUEUED},
            unlisted=["4757343"],
            failed_queries=[completed("pjstat: internal error\n", returncode=1)],
            tag="t00001-k3j9x2q8",
            found="4757342",
            hit=[listed("wrapped.txt")],
            miss=[none],
            failed_finds=[[completed(returncode=1)]],
            cancelled=[completed("[INFO] PJM 0100 pjdel Accepted job 6291500.\n")],
            not_cancelled=[],
        )


class TestStockContract(SchedulerContract):
    @pytest.fixture
    def recorded(self) -> Recorded:
        header = completed((SAMPLES / "pjm" / "stock.txt").read_text().splitlines()[0] + "\n")
        return Recorded(
            scheduler=PJM(STOCK),
            accepted=ACCEPTED,
            refused=[],
            later=[],
            unclear=[],
            live=listed("stock.txt"),
            alive={
                "238": JobState.RUNNING,
                "239[1]": JobState.RUNNING,
                "239[2]": JobState.QUEUED,
                "239": JobState.RUNNING,
            },
            unlisted=["239[3]", "23"],
            failed_queries=[],
            # Columns beyond the dates cannot be told apart: ended, and not how.
            past=listed("stock_v.txt"),
            past_ended={"167687": None},
            tag="job.sh",
            found="238",
            hit=[listed("stock.txt"), header],
            miss=[header, header],
            failed_finds=[],
            cancelled=[],
            not_cancelled=[],
        )


def end(row: str) -> JobEnd:
    found = PJM().parse_query(completed(HEADER + row + "\n"), [row.split(maxsplit=1)[0]])[row.split(maxsplit=1)[0]]
    assert found.answer is Answer.ENDED
    assert found.end is not None
    return found.end


def test_a_job_that_ran_out_of_time_has_exit_code_0_and_did_not_succeed() -> None:
    found = end("5 EXT 0 11 24 x ELAPSE LIMIT EXC")
    assert (found.verdict, found.exit_code, found.signal) == (Verdict.TIMEOUT, None, 24)
    assert "ELAPSE LIMIT EXC" in found.reason


@pytest.mark.parametrize("code", sorted(PJM_CODES))
def test_each_code_of_the_job_manager_has_its_verdict(code: int) -> None:
    assert end(f"5 EXT 0 {code} 0 x -").verdict is PJM_CODES[code][0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("5 EXT 3 0 0 x -", (Verdict.FAILED, 3, None)),
        ("5 EXT 0 0 9 x -", (Verdict.FAILED, None, 9)),
        ("5 EXT 0 99 0 x -", (None, None, None)),
        ("5 EXT - - - x -", (None, None, None)),
    ],
)
def test_ext_is_success_only_where_all_three_numbers_are_0(
    row: str, expected: tuple[Verdict | None, int | None, int | None]
) -> None:
    found = end(row)
    assert (found.verdict, found.exit_code, found.signal) == expected


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [
        ("RSCGRP NOT EXIST", True),
        ("RSCUNIT NOT EXIST", True),
        ("RSCUNIT NOT EXIS", True),
        ("IMPOSSIBLE SCHED", True),
        ("NO CURRENT DIR", True),
        ("RUNLIMIT EXCEED", False),
        ("USELIMIT EXCEED", False),
        ("WAIT SCHED", False),
        ("INSUFF NODE", False),
        ("-", False),
    ],
)
def test_a_queued_job_is_stuck_where_its_reason_never_ends(reason: str, stuck: bool) -> None:
    found = PJM().parse_query(completed(f"{HEADER}5 QUE 0 0 0 x {reason}\n"), ["5"])["5"]
    assert found.stuck is stuck
    assert found.reason == ("" if reason == "-" else reason)


def test_columns_without_a_value_are_found_by_their_place() -> None:
    found = PJM().parse_query(listed("choose_blank.txt"), ["167728", "167730"])
    assert [one.state for one in found.values()] == [JobState.RUNNING, JobState.QUEUED]
    assert [one.name for one in found.values()] == ["test", "test2"]


def test_the_order_of_columns_is_the_header_s() -> None:
    text = "ST  JOB_ID  REASON  EC PC SN\nEXT 5 - 0 0 0\n"
    # A free text that is not last is one word here.
    found = PJM().parse_query(completed(text), ["5"])["5"]
    assert found.end is not None
    assert found.end.verdict is Verdict.SUCCEEDED


def test_an_unknown_state_is_not_known_and_quoted() -> None:
    found = PJM().parse_query(completed(f"{HEADER}5 XYZ 0 0 0 x -\n"), ["5"])["5"]
    assert found.answer is Answer.UNKNOWN
    assert "XYZ" in found.evidence


def test_genkai_s_list_is_read_too() -> None:
    found = PJM(WRAPPED).parse_query(listed("wrapped_genkai.txt"), ["51001"])["51001"]
    assert (found.state, found.name) == (JobState.RUNNING, "train")


def test_a_header_without_jobs_is_an_answer_and_silence_is_one_only_where_the_site_says_so() -> None:
    assert PJM().parse_query(completed(HEADER), ["5"])["5"].answer is Answer.ABSENT
    silent = PJM().parse_query(completed(), ["5"])["5"]
    assert silent.answer is Answer.UNKNOWN
    assert "empty: absent" in silent.evidence
    quiet = PJM(SchedulerOptions(extra={"empty": "absent"}))
    assert quiet.parse_query(completed(), ["5"])["5"].answer is Answer.ABSENT
    assert quiet.parse_query(completed(returncode=1), ["5"])["5"].answer is Answer.UNKNOWN


def test_a_name_that_is_cut_short_is_ours_only_where_nothing_else_could_be_meant() -> None:
    tags = ["t00001-k3j9x2q8", "t00001-k3j00000"]
    wrapped = PJM(WRAPPED)
    alone = wrapped.parse_find([listed("wrapped.txt")], tags[:1])
    assert [one.job_id for one in alone.jobs[tags[0]]] == ["4757342"]
    two_tags = wrapped.parse_find([listed("wrapped.txt")], tags)
    assert (dict(two_tags.jobs), two_tags.trusted) == ({}, False)
    again = (SAMPLES / "pjm" / "wrapped.txt").read_text().splitlines()[-1].replace("4757342", "4757343")
    two_jobs = wrapped.parse_find([completed(listed("wrapped.txt").stdout + again + "\n")], tags[:1])
    assert (dict(two_jobs.jobs), two_jobs.trusted) == ({}, False)


def test_a_filter_by_the_whole_name_leaves_nothing_open() -> None:
    tags = ["t00001-k3j9x2q8", "t00001-k3j00000"]
    rows = completed(f"{HEADER}7 RUN 0 0 0 t00001-k3j -\n8 RUN 0 0 0 t00001-k3j -\n")
    none = completed(HEADER)
    found = PJM().parse_find([rows, none, none, none], tags)
    assert [one.job_id for one in found.jobs[tags[0]]] == ["7", "8"]
    assert not found.jobs[tags[1]]
    assert found.trusted


def test_the_first_number_is_never_taken_for_an_id() -> None:
    assert isinstance(PJM().parse_submit(completed("[WARN] PJM 0000 pjsub Job 12 queued.\n")), Unclear)
    assert PJM().parse_submit(completed("[INFO] PJM 0000 pjsub Job 5[0-9] submitted.\n")) == Submitted(job_id="5")


def test_commands_are_asked_as_the_site_needs_them() -> None:
    assert PJM().query(["12", "13"]).argv[3:] == (
        "pjstat",
        "-v",
        "--choose",
        "jid,st,ec,pc,sn,jnam,ermsg",
        "--filter",
        "jid=12+13",
    )
    assert "-E" in PJM().query(["12[3]"]).argv
    assert PJM(WRAPPED).query(["12"]).argv[3:] == ("pjstat",)
    assert len(PJM().find(["a", "b"], 0.0)) == 4
    assert PJM(SchedulerOptions(history=False)).history(["1"], 0.0) is None
    past = PJM(STOCK).history(["1"], 0.0)
    assert past is not None
    assert past.argv[3:] == ("pjstat", "-H")
    bulk = PJM().submit(SubmitRequest(script="/w/job.sh", tag="t1", directory="/w", array=3))
    assert bulk.argv == ("pjsub", "-N", "t1", "--bulk", "--sparam", "0-2", "/w/job.sh")
