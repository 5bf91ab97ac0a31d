"""Whole studies through a real sshd: what they cost in requests, what is brought here on request, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from login_node import LoginNode
from login_place import Place
from slurm_cluster import Cluster
from ssh_server import free_port, make_key
from ssh_study import SECOND_WAY_SLOW, FarStudy, MakeStudy
from survey_command import Ran

from orchestrator.studies.reader import read_study

pytest_plugins = ("slurm_fixtures",)
pytestmark = pytest.mark.system

Survey = Callable[..., Ran]


# --- a real Slurm behind it ---------------------------------------------------------------------------------------


async def test_eight_slots_on_a_real_slurm_cost_an_exec_a_cycle_and_one_a_submit(
    cluster: Cluster, make_study: MakeStudy
) -> None:
    study, node = make_study(cluster.environment, trials=16, parallel=8, seconds="0.5", batch={"array": False})
    assert (await study.drive()).state == "done"
    study.assert_each_trial_ran_once(16)
    assert node.requests("submit") == 16
    begin = node.requests("hello") + node.requests("get") + node.requests("put")
    assert begin == 4  # the greeting, and the library: is it there, its files, the mark that it is whole
    assert node.requests("run") == 0  # each query of the scheduler went with a look
    assert node.execs == begin + 16 + node.requests("look") + node.requests("remove")
    assert node.requests("remove") <= 1
    assert node.logins == 1


@SECOND_WAY_SLOW
def test_a_driver_that_is_killed_finds_its_jobs_again_on_a_real_slurm(cluster: Cluster, make_study: MakeStudy) -> None:
    study, _ = make_study(cluster.environment, trials=8, parallel=3, seconds="0.5")
    for kill in range(2):
        driver = study.driver()
        study.wait_for_executions(3 * kill + 1)
        driver.kill()
        driver.wait()
    assert study.run() == 0, study.said
    study.assert_each_trial_ran_once(8)


async def test_a_real_slurm_takes_no_job_twice_though_submits_and_polls_are_cut(
    cluster: Cluster, make_study: MakeStudy
) -> None:
    study, node = make_study(cluster.environment, trials=6, parallel=3, seconds="0.5")
    cuts = [("submit", 1, "during"), ("submit", 3, "after"), ("look", 4, "half"), ("submit", 5, "before")]
    node.cut_at(*[(kind, number, when) for kind, number, when in cuts])
    assert (await study.drive()).state == "done"
    study.assert_each_trial_ran_once(6)


# --- what is brought here on request ------------------------------------------------------------------------------

_MODEL = """
import os, sys
from orchestrator import trial
from pathlib import Path
print("this is trial", os.environ["SURVEY_TRIAL"])
Path(os.environ["SURVEY_ARTIFACTS"], "cases").mkdir()
Path(os.environ["SURVEY_ARTIFACTS"], "cases", "1.json").write_text("{}")
Path(os.environ["SURVEY_ARTIFACTS"], "model").write_bytes(bytes(1 << 20))
trial.finish(loss=trial.params()["x"])
"""


def test_logs_and_the_best_model_come_from_a_site_whose_files_cannot_be_seen_here(
    make_study: MakeStudy, emulated_environment: dict[str, str], survey: Survey
) -> None:
    study, node = make_study(emulated_environment, trials=3, parallel=3, keep={"best": 1})
    (study.root / "program.py").write_text(_MODEL)
    done = run(survey, study)
    assert done.code == 0, done.err
    # Nothing of the site is to be seen here any more but through its login node.
    hidden = study.root / "elsewhere"
    (study.root / "work root").rename(hidden)
    record = read_study(study.root / "runs" / "toy")
    best, other = record.best(3)[0], record.best(3)[1]
    assert survey(study, "logs", str(best.number)).out == ""
    hidden.rename(study.root / "work root")
    before = node.execs
    logs = survey(study, "logs", str(other.number))
    assert (logs.code, logs.out) == (0, f"this is trial {other.number}\n")
    assert node.execs - before == 2
    assert f"127.0.0.1:{other.directory}/stdout" in logs.err
    exported = survey(study, "best", "--count", "2", "--export", "best")
    assert exported.code == 0, exported.err
    first, second = sorted((study.root / "best").iterdir())
    assert (first / "artifacts" / "model").stat().st_size == 1 << 20
    assert (first / "artifacts" / "cases" / "1.json").read_text() == "{}"
    assert not (second / "artifacts").exists()
    assert f"trial {other.number} kept no artefacts" in exported.err


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(done: Ran, code: int, *words: str) -> None:
    said = " ".join(done.err.split())
    assert done.code == code, said
    for word in words:
        assert word in said
    assert "Traceback" not in said


def run(survey: Survey, study: FarStudy, *words: str) -> Ran:
    return survey(study, "run", str(study.study), "--site", str(study.site), *words)


@pytest.fixture
def far(make_study: MakeStudy, emulated_environment: dict[str, str]) -> tuple[FarStudy, LoginNode]:
    return make_study(emulated_environment, trials=2, parallel=2)


def change(study: FarStudy, **transport: object) -> None:
    """Change the transport of the site file, or its work root."""
    site = yaml.safe_load(study.site.read_text())
    site["work_root"] = transport.pop("work_root", site["work_root"])
    site["transport"] |= transport
    study.site.write_text(yaml.safe_dump(site))


def test_a_mistake_on_the_way_is_named_and_once_it_is_mended_the_study_runs(
    far: tuple[FarStudy, LoginNode], kind: str, tmp_path: Path, survey: Survey
) -> None:
    study, _ = far
    whole = study.site.read_text()
    make_key(tmp_path / "stranger")
    login = "ssh-add" if kind == "paramiko" else "survey login --site"
    mistakes: Sequence[tuple[dict[str, object], int, Sequence[str]]] = (
        ({"host": "no-such-host.invalid"}, 2, ("no host 'no-such-host.invalid'", "transport.host")),
        ({"port": free_port()}, 4, ("refused", "network")),
        ({"identity_file": str(tmp_path / "stranger")}, 4, (login,)),
        ({"identity_file": str(tmp_path / "nowhere")}, 2 if kind == "paramiko" else 4, ()),
        ({"jump": ["nobody@no-such-jump.invalid"]}, 2, ("no-such-jump.invalid",)),
        # From here on there is a connection, and a master that stays.
        ({"work_root": f"{study.root}/program.py/work"}, 2, ("work_root", "a part of the path is a file")),
        ({"work_root": "/proc/nowhere"}, 2, ("/proc/nowhere", "work_root")),
        ({"python": "no-such-python"}, 4, ("no no-such-python", "transport: python:")),
    )
    for changes, code, words in mistakes:
        change(study, **changes)
        refused(run(survey, study), code, *words)
        assert not study.events.exists()
        study.site.write_text(whole)
    done = run(survey, study)
    assert done.code == 0, done.err
    study.assert_each_trial_ran_once(2)
    assert (study.root / "work root").is_dir(), "a path with a space is a path"


@pytest.mark.parametrize("kind", ["paramiko"], indirect=True)
def test_an_unknown_host_s_key_is_taken_by_its_name_and_only_by_that(
    far: tuple[FarStudy, LoginNode], place: Place, survey: Survey
) -> None:
    study, node = far
    place.know()
    shown = node.sshd.fingerprint
    refused(run(survey, study), 4, "is not known", f"--accept-host-key {shown}")
    refused(run(survey, study, "--accept-host-key", "SHA256:" + "A" * 43), 4, "is not known", shown)
    assert place.known_hosts.read_text() == ""
    login = survey(study, "login", "--site", str(study.site), "--accept-host-key", shown)
    assert login.code == 0, login.err
    assert place.known_hosts.read_text() == node.sshd.known_hosts_line
    place.know()
    assert run(survey, study, "--accept-host-key", shown).code == 0
    study.assert_each_trial_ran_once(2)


# --- the doctor ---------------------------------------------------------------------------------------------------


def test_the_doctor_looks_at_a_site_through_its_login_node_and_from_a_job_there(
    far: tuple[FarStudy, LoginNode], survey: Survey, kind: str, tmp_path: Path
) -> None:
    study, node = far
    ran = survey(study, "doctor", "--site", str(study.site), "--probe", "--record", str(tmp_path / "record"))
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.splitlines()[0] == f"site tests (slurm, by {kind})"
    assert node.execs > 0
    assert "OK    connection" in ran.out
    assert "OK    probe" in ran.out
    assert len(os.listdir(tmp_path / "record")) > 2
    whole = study.site.read_text()
    change(study, python="no-such-python")
    ran = survey(study, "doctor", "--site", str(study.site))
    assert ran.code == 4
    assert "ERROR connection" in ran.out
    assert "transport: python:" in " ".join(ran.out.split())
    study.site.write_text(whole)
