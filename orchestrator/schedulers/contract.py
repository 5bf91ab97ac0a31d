"""What every scheduler adaptor must do, as one suite of tests over recorded outputs; anyone may run it on their own.

An adaptor passes it by a test module with a subclass whose name begins with ``Test`` and whose fixture ``recorded``
returns a `Recorded`::

    from orchestrator.schedulers.contract import Recorded, SchedulerContract, completed
    from orchestrator.schedulers.registry import make_scheduler

    class TestMine(SchedulerContract):
        @pytest.fixture
        def recorded(self) -> Recorded:
            return Recorded(scheduler=make_scheduler("mine"), accepted=[(completed("42"), "42")], ...)

The module needs pytest, which the extra ``contract`` brings.
"""

# ruff: noqa: D102 - a test's name is its sentence

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.model import Answer, JobState, Verdict
from orchestrator.schedulers.base import Refused, Scheduler, SubmitRequest, Submitted, Unclear
from orchestrator.transports.base import Command, Completion

__all__ = ["NO_ANSWER", "Recorded", "SchedulerContract", "completed"]

REQUEST = SubmitRequest(script="/work/study/trials/00007/attempt-1/job.sh", tag="t00007-k3j9x2q8", directory="/work")
SINCE = 1_795_000_000.0


def completed(stdout: str = "", stderr: str = "", returncode: int | None = 0) -> Completion:
    """A completion as a transport returns it."""
    return Completion(argv=("recorded",), returncode=returncode, stdout=stdout, stderr=stderr)


NO_ANSWER = completed(returncode=None)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """An adaptor and what its scheduler printed.

    Attributes
    ----------
    accepted : pairs of completion and job id
    refused, later, unclear : submit completions that are refusals for good, refusals for now, and neither
    live : the answer to one query that lists the jobs of ``alive`` (with their states) and of ``ended``
    unlisted : ids that ``live`` certainly does not have
    failed_queries : completions of a query that prove nothing of any job
    past : the answer to a history query that lists the jobs of ``past_ended``; None where there is no history
    failed_histories : completions of a history query that prove nothing
    hit, miss, failed_finds : completions of `Scheduler.find` for ``tag``; in ``hit`` its job is ``found``
    cancelled, not_cancelled : completions of the cancel command
    """

    scheduler: Scheduler
    accepted: Sequence[tuple[Completion, str]]
    refused: Sequence[Completion]
    later: Sequence[Completion]
    unclear: Sequence[Completion]
    live: Completion
    alive: Mapping[str, JobState]
    ended: Mapping[str, Verdict | None] = field(default_factory=dict)
    unlisted: Sequence[str]
    failed_queries: Sequence[Completion]
    past: Completion | None = None
    past_ended: Mapping[str, Verdict | None] = field(default_factory=dict)
    failed_histories: Sequence[Completion] = ()
    tag: str
    found: str
    hit: Sequence[Completion]
    miss: Sequence[Completion]
    failed_finds: Sequence[Sequence[Completion]]
    cancelled: Sequence[Completion]
    not_cancelled: Sequence[Completion]


class SchedulerContract:
    """Subclass it and override the fixture `recorded`."""

    @pytest.fixture
    def recorded(self) -> Recorded:
        raise NotImplementedError

    # Submit

    def test_an_accepted_job_has_the_scheduler_s_own_id(self, recorded: Recorded) -> None:
        for completion, job_id in recorded.accepted:
            assert recorded.scheduler.parse_submit(completion) == Submitted(job_id=job_id), completion

    def test_a_refusal_for_good_is_not_asked_again(self, recorded: Recorded) -> None:
        for completion in recorded.refused:
            answer = recorded.scheduler.parse_submit(completion)
            assert isinstance(answer, Refused), completion
            assert not answer.later, completion
            assert answer.reason, completion

    def test_a_refusal_for_now_may_be_asked_again(self, recorded: Recorded) -> None:
        for completion in recorded.later:
            answer = recorded.scheduler.parse_submit(completion)
            assert isinstance(answer, Refused), completion
            assert answer.later, completion

    def test_an_unclear_submit_is_neither_taken_nor_refused(self, recorded: Recorded) -> None:
        rc_0_and_nothing, garbage = completed(), completed("\x00%&! Segmentation fault (core dumped)\n", returncode=139)
        for completion in (*recorded.unclear, NO_ANSWER, rc_0_and_nothing, garbage):
            assert isinstance(recorded.scheduler.parse_submit(completion), Unclear), completion

    def test_an_id_beside_an_error_is_not_believed(self, recorded: Recorded) -> None:
        completion, _job_id = recorded.accepted[0]
        failed = dataclasses.replace(completion, returncode=1)
        assert isinstance(recorded.scheduler.parse_submit(failed), Unclear)

    def test_a_missing_submit_command_is_a_refusal_for_good(self, recorded: Recorded) -> None:
        answer = recorded.scheduler.parse_submit(completed(stderr="submit: command not found", returncode=127))
        assert isinstance(answer, Refused)
        assert not answer.later

    def test_the_submit_command_carries_the_tag_and_the_script_whole(self, recorded: Recorded) -> None:
        command = recorded.scheduler.submit(REQUEST)
        assert REQUEST.script in command.argv
        assert any(REQUEST.tag in word for word in command.argv)

    # Query

    def test_each_id_that_was_asked_for_has_an_answer_under_that_id(self, recorded: Recorded) -> None:
        ids = [*recorded.alive, *recorded.ended, *recorded.unlisted]
        answers = recorded.scheduler.parse_query(recorded.live, ids)
        assert list(answers) == ids
        assert {job_id: status.job_id for job_id, status in answers.items()} == {job_id: job_id for job_id in ids}

    def test_a_listed_job_is_alive_in_its_state(self, recorded: Recorded) -> None:
        answers = recorded.scheduler.parse_query(recorded.live, list(recorded.alive))
        assert {job_id: status.answer for job_id, status in answers.items()} == dict.fromkeys(
            recorded.alive, Answer.ALIVE
        )
        assert {job_id: status.state for job_id, status in answers.items()} == dict(recorded.alive)

    def test_a_job_that_is_listed_as_ended_says_how(self, recorded: Recorded) -> None:
        for job_id, status in recorded.scheduler.parse_query(recorded.live, list(recorded.ended)).items():
            assert status.answer is Answer.ENDED, job_id
            assert status.state is JobState.ENDED, job_id
            assert status.end is not None
            assert status.end.verdict is recorded.ended[job_id], job_id

    def test_a_job_that_the_query_does_not_know_is_absent(self, recorded: Recorded) -> None:
        answers = recorded.scheduler.parse_query(recorded.live, list(recorded.unlisted))
        assert {status.answer for status in answers.values()} == {Answer.ABSENT}

    def test_a_query_that_failed_proves_nothing_of_any_job(self, recorded: Recorded) -> None:
        ids = [*recorded.alive, *recorded.unlisted]
        for completion in (*recorded.failed_queries, NO_ANSWER, completed("@@ garbage @@\n"), completed()):
            for status in recorded.scheduler.parse_query(completion, ids).values():
                assert status.answer is Answer.UNKNOWN, completion
                assert status.evidence, completion

    def test_a_cut_list_never_makes_a_job_absent(self, recorded: Recorded) -> None:
        cut = dataclasses.replace(recorded.live, returncode=None, stdout=recorded.live.stdout[:40])
        answers = recorded.scheduler.parse_query(cut, [*recorded.alive, *recorded.unlisted])
        assert {status.answer for status in answers.values()} == {Answer.UNKNOWN}

    def test_many_jobs_are_one_query(self, recorded: Recorded) -> None:
        ids = [*recorded.alive, *recorded.unlisted]
        assert isinstance(recorded.scheduler.query(ids), Command)

    # History

    def test_history_says_how_each_job_ended(self, recorded: Recorded) -> None:
        if recorded.past is None:
            assert recorded.scheduler.history(["1"], SINCE) is None
            return
        answers = recorded.scheduler.parse_history(recorded.past, list(recorded.past_ended))
        for job_id, verdict in recorded.past_ended.items():
            assert answers[job_id].answer is Answer.ENDED, job_id
            end = answers[job_id].end
            assert end is not None
            assert end.verdict is verdict, job_id

    def test_a_history_that_failed_proves_nothing(self, recorded: Recorded) -> None:
        for completion in (*recorded.failed_histories, NO_ANSWER, completed("@@ garbage @@\n", returncode=3)):
            answers = recorded.scheduler.parse_history(completion, list(recorded.past_ended))
            assert {status.answer for status in answers.values()} <= {Answer.UNKNOWN}, completion

    # Find

    def test_a_job_is_found_by_its_tag_once(self, recorded: Recorded) -> None:
        found = recorded.scheduler.parse_find(recorded.hit, [recorded.tag])
        assert [status.job_id for status in found.jobs[recorded.tag]] == [recorded.found]
        assert found.trusted

    def test_a_tag_that_nothing_has_is_not_found_and_that_is_trusted(self, recorded: Recorded) -> None:
        found = recorded.scheduler.parse_find(recorded.miss, [recorded.tag])
        assert not found.jobs.get(recorded.tag)
        assert found.trusted

    def test_a_look_up_that_failed_is_not_trusted(self, recorded: Recorded) -> None:
        commands = recorded.scheduler.find([recorded.tag], SINCE)
        silent: Sequence[Completion] = [NO_ANSWER] * len(commands)
        for completions in (*recorded.failed_finds, silent):
            found = recorded.scheduler.parse_find(completions, [recorded.tag])
            assert not found.trusted, completions

    def test_a_look_up_asks_the_live_queue_first(self, recorded: Recorded) -> None:
        commands = recorded.scheduler.find([recorded.tag], SINCE)
        assert len(commands) == len(recorded.hit) == len(recorded.miss)

    # Cancel, and the rest

    def test_cancelling_what_has_ended_does_no_harm(self, recorded: Recorded) -> None:
        for completion in recorded.cancelled:
            assert recorded.scheduler.cancelled(completion), completion

    def test_a_cancel_that_did_not_arrive_is_told(self, recorded: Recorded) -> None:
        for completion in (*recorded.not_cancelled, NO_ANSWER):
            assert not recorded.scheduler.cancelled(completion), completion

    def test_every_command_has_the_site_s_time_limit(self, recorded: Recorded) -> None:
        scheduler = recorded.scheduler
        ids = [*recorded.alive, *recorded.unlisted]
        commands = [
            scheduler.submit(REQUEST),
            scheduler.query(ids),
            scheduler.history(ids, SINCE),
            scheduler.cancel(ids),
            *scheduler.find([recorded.tag], SINCE),
            scheduler.limits(),
            scheduler.version(),
        ]
        for command in commands:
            assert command is None or command.timeout == scheduler.options.timeout
            assert command is None or all(isinstance(word, str) and word for word in command.argv)
