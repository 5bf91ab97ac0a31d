"""The record of a look: what a stranger may read, and what never gets into it."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path

import pytest
import yaml
from looks import emulated, look
from test_doctor_site import site_of

from orchestrator.cli.app import main
from orchestrator.doctor.record import Redactor, write_record
from orchestrator.transports.base import Command
from orchestrator.transports.local import LocalTransport

PASSWORD = "hunter2-is-my-password"
SECRETS = {
    "url": f"postgresql://alice:{PASSWORD}@db.example.org:5432/optuna",
    "login": "alice@login.example.org",
    "password": f"PGPASSWORD={PASSWORD}",
    "token": "Authorization: Bearer abcdefghijklmnop",
    "github": "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "huggingface": "hf_AbCdEfGhIjKlMnOpQr",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "wandb": "0123456789abcdef0123456789abcdef01234567",
    "json": '{"api_key": "swordfish77"}',
    "key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----",
}
NEVER = [
    "alice",
    PASSWORD,
    "abcdefghijklmnop",
    "AbCdEfGhIjKlMnOp",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJzdWIi",
    "0123456789abcdef",
    "swordfish77",
    "b3BlbnNzaC1rZXk",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_replaced_wherever_it_stands(name: str) -> None:
    text = Redactor(people=["alice"])(f"before {SECRETS[name]} after\n")
    assert not [word for word in NEVER if word in text], text
    assert text.startswith("before ")
    assert text.rstrip().endswith("after") or name == "token"


@pytest.mark.parametrize(
    "line",
    [
        "JOB_ID     JOB_NAME   MD ST  USER     START_DATE      ELAPSE_LIM NODE_REQUIRE    VNODE  CORE V_MEM",
        "48969021   EXT 0   0",
        "[ERR.] PJM 0071 pjstat Group not authorized: group(59999)",
        "JOBID|ARRAY_JOB_ID|STATE|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|REASON|NAME",
        "    Resource_List.walltime = 01:00:00",
        "regular-a  ru-accept  unlimited  0   2026/01/02 03:04:05",
        "/opt/pbs/bin/qstat: MaxArraySize = 1001",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    ],
)
def test_what_a_dialect_is_made_of_stays_as_it_is(line: str) -> None:
    assert Redactor(people=["alice"], places=["/home/alice"])(line) == line


def test_a_jobs_environment_goes_as_a_whole_in_every_form() -> None:
    redact = Redactor()
    plain = (
        "Job Id: 1.pbs\n    Job_Name = brain-of-mr-smith\n    Variable_List = PBS_O_HOME=/home/alice,\n\t"
        "MY_CANARY=tweet,PBS_O_PATH=/bin\n    ctime = Fri Nov 20\n"
    )
    assert "tweet" not in redact(plain)
    assert "    ctime = Fri Nov 20" in redact(plain)
    document = json.dumps({"Jobs": {"1": {"Variable_List": {"MY_CANARY": "tweet"}, "ctime": "x"}}}, indent=4)
    assert "tweet" not in redact(document)
    assert json.loads(redact(document))["Jobs"]["1"]["ctime"] == "x"
    xml = "<JB_owner>alice</JB_owner><JB_name>smith</JB_name><state>qw</state>"
    assert redact(xml) == "<JB_owner>someone</JB_owner><JB_name>someone</JB_name><state>qw</state>"
    row = "7|7|RUNNING|N/A|N/A|N/A|n1|None|brain|of|smith\n"
    assert redact(row) == "7|7|RUNNING|N/A|N/A|N/A|n1|None|<name>\n"


@pytest.mark.parametrize("kind", ["slurm", "pbs", "pbs-json", "pjm-stock", "gridengine"])
async def test_a_record_holds_every_answer_and_no_canary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    user = getpass.getuser()
    monkeypatch.setenv("CANARY_TOKEN", "tweet-tweet-tweet")
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsleep 30\n")
    with emulated(tmp_path, monkeypatch, kind, user=user) as cluster:
        submit = {"slurm": "sbatch", "pjm-stock": "pjsub"}.get(kind, "qsub")
        sent = await LocalTransport().run(Command(argv=(str(cluster.bin / submit), str(script))))
        assert sent.returncode == 0, sent.stderr
        site = site_of(kind, notes=f"db: {SECRETS['url']}", environment_policy="inherit")
        check = await look(site, tmp_path / "runs", record=True)
    folder = tmp_path / "record"
    count = write_record(
        folder, site=site, findings=check.findings, answers=check.answers, redact=Redactor(people=[user, "alice"])
    )
    files = {path.name: path.read_text() for path in folder.iterdir()}
    everything = "\n".join(files.values())
    assert count == len(check.answers)
    assert {"README.txt", "findings.txt", "site.yaml", "query.txt"} <= set(files)
    assert "[return code" in files["query.txt"]
    for canary in ("tweet-tweet", PASSWORD, "alice"):
        assert canary not in everything
    assert yaml.safe_load(files["site.yaml"])["scheduler"] == site.scheduler
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


async def test_an_unknown_pjstat_is_recorded_in_the_forms_in_which_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "odd.yaml"
    site.write_text("name: odd\nextends: pjm\nscheduler: pjm\ncommand_timeout: 10s\n")
    with emulated(tmp_path, monkeypatch, "pjm") as cluster:
        (cluster.bin / "pjstat").write_text('#!/bin/sh\necho "Auftrag Zustand ($*)"\n')
        code = await _main("doctor", "--site", str(site), "--record", str(tmp_path / "record"))
    assert code == 4
    assert "cannot be read" in " ".join(capsys.readouterr().out.split())
    assert "Auftrag Zustand (-v --choose" in (tmp_path / "record" / "query.txt").read_text()
    assert "Auftrag Zustand (-H -v)" in (tmp_path / "record" / "raw-pjstat-h-v.txt").read_text()


async def _main(*words: str) -> int:
    return await asyncio.to_thread(main, list(words))


def test_records_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("")
    assert main(["doctor", "--site", "local", "--record", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
