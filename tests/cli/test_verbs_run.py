"""Running and resuming: what is told, in which form, and with which exit code."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from little_study import end, run, start, until, write_study
from survey_command import Survey, command


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_run_as_json_prints_one_document(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path)
    ran = survey("run", "study.yaml", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)["study"]
    assert (found["state"], len(found["trials"])) == ("done", 2)
    assert "[2/2]" in ran.err


def test_quiet_leaves_the_result_alone(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path)
    ran = survey("-q", "run", "study.yaml")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("toy: done, 2 complete")


def test_verbose_tells_parameters_and_jobs(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path, trials=1)
    ran = survey("-v", "run", "study.yaml")
    assert "trial 0: x=0." in ran.err
    assert "trial 0: submitted as local-" in ran.err


def test_a_study_grows_and_only_a_better_trial_is_called_the_best(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path, trials=1, space={"x": {"type": "float", "low": 0.25, "high": 1.0}})
    assert survey("run", "study.yaml").code == 0
    first = json.loads(survey("best", "--json").out)["best"][0]["values"][0]
    write_study(tmp_path, trials=4, parallel=1)
    ran = survey("resume", "toy")
    assert "4 trials" not in ran.err  # the folder keeps the study as it was run, not as the file now says
    ran = survey("resume", "study.yaml")
    assert ran.code == 0, ran.err
    assert "changed: trials: 1 -> 4" in ran.err
    assert "study: 4 trials, 1 done and 0 in flight before" in ran.err
    told = [line for line in ran.err.splitlines() if line.startswith("trial ")]
    assert len(told) == 3
    best = first
    for line in told:
        value = float(line.split()[3])
        assert ("(best)" in line) == (value < best)
        best = min(best, value)


def test_resume_takes_the_latest_study_and_its_own_site(survey: Survey, tmp_path: Path) -> None:
    site = tmp_path / "mine.yaml"
    site.write_text("name: mine\nscheduler: local\n", encoding="utf-8")
    write_study(tmp_path, "one.yaml", name="one", trials=1)
    write_study(tmp_path, "two.yaml", name="two", trials=1)
    assert survey("run", "one.yaml", "--site", str(site)).code == 0
    assert survey("run", "two.yaml").code == 0
    assert survey("resume").out.startswith("two: done")
    for name in ("one", "one.yaml", "runs/one"):
        assert survey("resume", name).code == 0
        assert survey("status", "one").out.startswith("one on mine: done")


def test_resume_of_nothing_says_so(survey: Survey) -> None:
    ran = survey("resume")
    assert ran.code == 2
    assert "no study below runs" in ran.err


@pytest.mark.parametrize("most", [0.0, 0.5, 1.0])
def test_too_many_failures_are_an_exit_code_after_the_result(survey: Survey, tmp_path: Path, most: float) -> None:
    line = 'if [ "$SURVEY_TRIAL" = 1 ]; then echo "no luck" >&2; exit 7; fi; '
    write_study(
        tmp_path,
        command=line + """echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT" """,
        failures={"most": most},
    )
    ran = survey("run", "study.yaml", "--json")
    assert ran.code == (3 if most == 0.0 else 0)
    assert ("1 of 2 trials failed" in ran.err) == (most == 0.0)
    assert [trial["state"] for trial in json.loads(ran.out)["study"]["trials"]] == ["complete", "failed"]
    assert "trial 1: failed: " in ran.err
    assert "exit code 7" in ran.err
    assert "trial 1 failed: failed: " in survey("status").out
    assert survey("logs", "1").out == "no luck\n"


def test_a_study_that_stops_after_failures_is_paused_and_says_how_to_go_on(survey: Survey, tmp_path: Path) -> None:
    write_study(tmp_path, trials=9, parallel=1, command="exit 3", failures={"stop_after": 2})
    ran = survey("run", "study.yaml")
    assert ran.code == 4
    assert "2 trials in a row failed" in ran.err
    assert ran.out.startswith("toy: paused, 2 failed, 9 planned")
    ran = survey("status")
    assert ran.out.startswith("toy on local: paused: 2 trials in a row failed")
    assert f"survey resume {tmp_path}/runs/toy goes on with it" in ran.err


def test_retries_are_told_and_their_attempts_are_kept(survey: Survey, tmp_path: Path) -> None:
    line = """echo "attempt $SURVEY_ATTEMPT"; [ "$SURVEY_ATTEMPT" = 2 ] || exit 1; """
    write_study(
        tmp_path,
        trials=1,
        command=line + """echo '{"metrics": {"loss": 1}}' > "$SURVEY_RESULT" """,
        retry={"failed": 1},
    )
    ran = survey("run", "study.yaml")
    assert ran.code == 0, ran.err
    assert "trial 0: again after failed: " in ran.err
    shown = survey("logs", "0")
    assert (shown.out, shown.err.splitlines()[0]) == ("attempt 2\n", "trial 0, attempt 2 of 2: succeeded")
    assert survey("logs", "0", "--attempt", "1").out == "attempt 1\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_in_order_and_resume_takes_up_what_ran(
    survey: Survey, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    gate = tmp_path / "gate"
    write_study(tmp_path, trials=3, environment={"GATE": str(gate)})
    driver = start(tmp_path, "run", "study.yaml")
    until(lambda: len(list((tmp_path / "runs").rglob("attempt-1/stderr"))) == 2, "the trials do not start")
    driver.send_signal(number)
    if number == signal.SIGINT:
        until(lambda: "draining" in (tmp_path / "runs/toy/events.jsonl").read_text("utf-8"), "no drain")
        driver.send_signal(number)
    ended = end(driver)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert ended.out.startswith("toy: interrupted, no trial finished, 3 planned")
    ran = survey("status")
    assert ran.out.startswith("toy on local: interrupted\n2 running")
    assert "survey resume" in ran.err
    gate.touch()
    done = run(tmp_path, "resume", "toy")
    assert done.code == 0, done.err
    assert "study: 3 trials, 0 done and 2 in flight before" in done.err
    assert done.out.startswith("toy: done, 3 complete")
    assert len(list((tmp_path / "runs/toy/ledger").rglob("attempt-*.json"))) == 3
