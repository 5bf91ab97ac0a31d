"""Verdicts from what an attempt left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.errors import ResultError
from orchestrator.jobs.collect import Remains, judge, parse_result
from orchestrator.model import Attempt, Job, JobEnd, Outcome, Verdict

TAG = "t00007-k3j9x2q8"


def report(**fields: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "tag": TAG,
        "exit_code": 0,
        "signal": None,
        "host": "n1",
        "started": 100.0,
        "ended": 160.0,
        "max_rss": 512.0,
        "gpus": ["V100"],
        "gpu_memory": 1024.0,
        "cause": "",
        "message": "",
        "job_id": "41",
        **fields,
    }


def outcome(
    result: object = None, *, text: str | None = None, metrics: tuple[str, ...] = ("pauc",), **remains: Any
) -> Outcome:
    body = text if text is not None else (None if result is None else json.dumps(result))
    job = Job(key="00007", command=("true",), metrics=metrics)
    attempt = Attempt(key="00007", number=2, tag=TAG, fence="1", planned=80.0, job_id="41", submitted=90.0)
    remains.setdefault("report", report())
    remains.setdefault("claimed", True)
    return judge(job, attempt, Remains(result=body, **remains), directory="/w/trials/00007/attempt-2", now=200.0)


def test_a_whole_result_and_exit_code_0_is_a_success() -> None:
    ended = outcome({"tag": TAG, "metrics": {"pauc": 0.5, "dice": 0.25}, "info": {"n": 3}})
    assert ended.verdict is Verdict.SUCCEEDED
    assert ended.metrics == {"pauc": 0.5, "dice": 0.25}
    assert ended.info == {"n": 3}
    assert (ended.host, ended.started, ended.ended, ended.queue_wait) == ("n1", 100.0, 160.0, 10.0)
    assert (ended.max_rss, ended.gpus, ended.gpu_memory, ended.attempts) == (512.0, ("V100",), 1024.0, 2)


def test_a_program_that_knows_nothing_of_tags_may_leave_its_tag_out() -> None:
    assert outcome({"metrics": {"pauc": 1}}).metrics == {"pauc": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_never_becomes_a_success(value: float) -> None:
    ended = outcome({"tag": TAG, "metrics": {"pauc": value, "dice": 0.5}})
    assert ended.verdict is Verdict.FAILED
    assert "'pauc' is" in ended.reason
    assert str(value) in ended.reason
    assert ended.metrics == {"dice": 0.5}


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], {"mean": 0.5}])
def test_a_value_that_is_not_a_number_never_becomes_a_success(value: object) -> None:
    ended = outcome({"tag": TAG, "metrics": {"pauc": value}})
    assert ended.verdict is Verdict.FAILED
    assert "not a finite number" in ended.reason


def test_a_side_metric_that_is_nan_does_not_spoil_the_trial() -> None:
    ended = outcome({"tag": TAG, "metrics": {"pauc": 0.5, "hd95": float("nan")}})
    assert ended.verdict is Verdict.SUCCEEDED
    assert ended.metrics == {"pauc": 0.5}
    assert ended.info == {"hd95": "nan"}


def test_a_missing_metric_is_named_together_with_those_that_are_there() -> None:
    ended = outcome({"tag": TAG, "metrics": {"loss": 0.1, "dice": 0.5}})
    assert ended.verdict is Verdict.FAILED
    assert "no metric 'pauc'" in ended.reason
    assert "dice, loss" in ended.reason


@pytest.mark.parametrize("length", range(1, 39))
def test_a_torn_result_never_becomes_a_value(length: int) -> None:
    whole = json.dumps({"tag": TAG, "metrics": {"pauc": 0.5}})
    ended = outcome(text=whole[:length])
    assert ended.verdict is Verdict.FAILED
    assert "not whole JSON" in ended.reason


def test_an_empty_result_is_a_failure_that_says_so() -> None:
    assert "empty" in outcome(text="").reason


def test_the_result_of_another_attempt_is_worth_nothing() -> None:
    ended = outcome({"tag": "t00007-another0", "metrics": {"pauc": 0.9}})
    assert ended.verdict is Verdict.FAILED
    assert "another attempt" in ended.reason
    assert ended.metrics == {}


def test_exit_code_0_without_a_result_is_a_failure() -> None:
    ended = outcome()
    assert ended.verdict is Verdict.FAILED
    assert "exit code 0, but the program wrote no result.json" in ended.reason


def test_a_crash_after_a_whole_result_is_a_success_that_says_so() -> None:
    ended = outcome({"tag": TAG, "metrics": {"pauc": 0.5}}, report=report(exit_code=None, signal=11))
    assert ended.verdict is Verdict.SUCCEEDED
    assert "killed by signal 11" in ended.reason


@pytest.mark.parametrize(
    ("fields", "verdict", "words"),
    [
        ({"exit_code": 3}, Verdict.FAILED, "exit code 3"),
        ({"exit_code": None, "signal": 9}, Verdict.FAILED, "killed by signal 9"),
        ({"cause": "timeout", "exit_code": None, "signal": 15}, Verdict.TIMEOUT, "walltime"),
        ({"cause": "out-of-memory", "exit_code": None, "signal": 9}, Verdict.OUT_OF_MEMORY, "out-of-memory"),
        ({"cause": "no-gpu", "exit_code": None, "message": "no GPU is visible"}, Verdict.FAILED, "no GPU is visible"),
        ({"cause": "cannot-start", "exit_code": 127, "message": "no such command"}, Verdict.FAILED, "no such command"),
        ({"exit_code": 85}, Verdict.REQUEUE_REQUESTED, "asked to be run again"),
        ({"cause": "signalled", "exit_code": None, "signal": 15}, Verdict.CANCELLED, "ended from outside"),
    ],
)
def test_the_agents_report_decides_where_there_is_no_result(
    fields: dict[str, Any], verdict: Verdict, words: str
) -> None:
    ended = outcome(report=report(**fields))
    assert ended.verdict is verdict
    assert words in ended.reason


def test_the_schedulers_word_refines_an_end_from_outside() -> None:
    end = JobEnd(verdict=Verdict.PREEMPTED, reason="PREEMPTED")
    assert outcome(report=report(cause="signalled", signal=15), end=end).verdict is Verdict.PREEMPTED


def test_a_report_of_another_attempt_is_not_looked_at() -> None:
    ended = outcome(report=report(tag="t00007-another0", exit_code=3))
    assert ended.verdict is Verdict.LOST


@pytest.mark.parametrize(
    ("end", "claimed", "verdict", "words"),
    [
        (None, True, Verdict.LOST, "neither a result nor a report"),
        (JobEnd(verdict=Verdict.NODE_FAILURE, reason="NODE_FAIL"), True, Verdict.NODE_FAILURE, "NODE_FAIL"),
        (JobEnd(verdict=Verdict.SUCCEEDED), True, Verdict.LOST, "ended without a report"),
        (JobEnd(verdict=Verdict.SUCCEEDED), False, Verdict.FAILED, "before its agent started"),
        (JobEnd(), False, Verdict.FAILED, "job.log"),
    ],
)
def test_without_a_report_the_scheduler_says_why_or_the_attempt_is_lost(
    end: JobEnd | None, claimed: bool, verdict: Verdict, words: str
) -> None:
    ended = outcome(report=None, end=end, claimed=claimed)
    assert ended.verdict is verdict
    assert words in ended.reason


def test_a_result_that_came_without_a_report_still_counts() -> None:
    assert outcome({"tag": TAG, "metrics": {"pauc": 0.5}}, report=None, end=None).verdict is Verdict.SUCCEEDED


def test_metrics_that_the_agent_read_stand_in_for_a_result_file() -> None:
    assert outcome(report=report(metrics={"pauc": 0.75})).metrics == {"pauc": 0.75}


def test_a_program_that_was_asked_to_stop_and_left_a_result_is_stopped_not_complete() -> None:
    assert outcome({"tag": TAG, "metrics": {"pauc": 0.5}}, stopped=True).verdict is Verdict.STOPPED


def test_a_program_that_had_ended_before_it_was_asked_to_stop_is_complete() -> None:
    result = {"tag": TAG, "metrics": {"pauc": 0.5}, "stopped": False}
    assert outcome(result, stopped=True).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", '{"pauc": 1}', '{"metrics": [1]}'])
def test_json_of_another_shape_is_refused_with_words(text: str) -> None:
    with pytest.raises(ResultError, match=r"result\.json"):
        parse_result(text, TAG)
