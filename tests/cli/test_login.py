"""``survey login`` where there is nothing to log in to, and host keys that cannot be taken by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from little_study import write_study
from survey_command import Survey, command


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    return command(capsys)


def test_a_site_on_this_machine_needs_no_login_and_says_so(survey: Survey) -> None:
    ran = survey("login", "--site", "local")
    assert ran.code == 2
    assert "transport local" in ran.err
    assert "openssh" in ran.err


@pytest.mark.parametrize(
    ("kind", "key", "words"),
    [
        ("paramiko", "SHA256:short", "no fingerprint"),
        ("openssh", "SHA256:" + "A" * 43, "survey login --site far"),
        ("local", "SHA256:" + "A" * 43, "shows no key"),
    ],
)
@pytest.mark.parametrize("verb", ["login", "run", "resume", "doctor"])
def test_a_host_key_that_cannot_be_taken_is_refused_with_what_to_do(
    survey: Survey, tmp_path: Path, kind: str, key: str, words: str, verb: str
) -> None:
    transport = "{kind: local}" if kind == "local" else f"{{kind: {kind}, host: nowhere.invalid}}"
    site = tmp_path / "far.yaml"
    site.write_text(f"name: far\nscheduler: slurm\nwork_root: /tmp/w\ntransport: {transport}\n")
    study = [str(write_study(tmp_path))] if verb in {"run", "resume"} else []
    ran = survey(verb, *study, "--site", str(site), "--accept-host-key", key)
    assert ran.code == 2
    assert words in " ".join(ran.err.split())
    assert not list(tmp_path.rglob("study.db"))


def test_the_doctor_takes_a_host_key_for_a_site_only(survey: Survey) -> None:
    ran = survey("doctor", "--accept-host-key", "SHA256:" + "A" * 43)
    assert ran.code == 2
    assert "go with --site" in " ".join(ran.err.split())
