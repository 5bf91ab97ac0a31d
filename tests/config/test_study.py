from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_files import Load, Write, loader, writer

from orchestrator.config.study import Study, json_schema
from orchestrator.errors import ConfigError, UsageError
from orchestrator.model import Verdict

FULL = """\
description: all there is
metrics: [pauc_10]
sampler: {name: bo, seed: 7, startup_trials: 5, options: {candidates: null, tail: "1e-4"}}
parallel: 4
workdir: code
resources: {gpus: 1, cpus: 4, memory: 16GB, walltime: "01:30:00", nodes: 2}
environment: {OMP_NUM_THREADS: 4, CODE: "012"}
batch: {queue: small, group: gr1, modules: [cuda], setup: "a\\nb", pack: auto, container: {image: x.sif}}
retry: {timeout: 1, node-failure: 0}
failures: {stop_after: 3, most: 0.25}
keep: {best: 1}
storage: postgresql://me:${PW}@host/db?sslpassword=${PW}
read: [{metric: pauc, stdout: 'x=(.*)'}, {metric: pauc_10, json: "o.json:a.b"}, {metric: pauc_10, csv: "C:/x.csv:v"}]
"""

SPACE = """\
lr: {type: float, low: 0, high: 1e-1}
n: {type: int, low: 1, high: 9, step: 2}
o: {type: categorical, choices: [sgd, "no", "1e-3", true, 3, 0.5]}
m: {type: float, low: 0.0, high: 0.9, step: 0.1, when: {o: [sgd, "no"], n: 3}}
zero: 0
off: false
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return writer(tmp_path, monkeypatch)


@pytest.fixture
def study(write: Write) -> Load:
    return loader(write)


def test_a_short_study_has_defaults(study: Load) -> None:
    found = study()
    assert found.sampler.name == "bo"
    assert (found.sampler.seed, found.sampler.startup_trials) == (0, 3)
    assert (found.parallel, found.keep.best, found.failures.most) == (1, 3, 0.5)
    assert found.workdir is None
    assert found.command == ("python", "train.py")
    assert found.batch.queue is None


def test_a_full_study_is_written_and_read_back_the_same(study: Load, write: Write) -> None:
    first = study(FULL, space=SPACE)
    second = Study.load(write(first.to_yaml()))
    assert second == first
    assert second.to_yaml() == first.to_yaml()
    assert second.sampler.options == {"candidates": None, "tail": "1e-4"}


def test_units_and_numbers_become_plain(study: Load) -> None:
    found = study(FULL)
    assert (found.resources.memory, found.resources.walltime) == (16384, 5400)
    assert found.environment == {"OMP_NUM_THREADS": "4", "CODE": "012"}
    assert found.read[1].json_ == "o.json:a.b"


def test_a_command_may_be_one_line_and_its_numbers_bare(study: Load, write: Write) -> None:
    text = study().to_yaml().replace("command:\n- python\n- train.py\n", "command: COMMAND\n")
    assert Study.load(write(text.replace("COMMAND", "[python, t.py, --epochs, 5]"))).command[-1] == "5"
    assert Study.load(write(text.replace("COMMAND", "python t.py | tee log"))).command == "python t.py | tee log"
    with pytest.raises(ConfigError, match=r"command\[1\]: expected text, found the number 0\.1; put it in quotes"):
        Study.load(write(text.replace("COMMAND", "[x, 0.10]")))
    with pytest.raises(ConfigError, match=r"command: expected a list or text, found the number 5\.5"):
        Study.load(write(text.replace("COMMAND", "5.5")))
    with pytest.raises(ConfigError, match=r"command: must not be empty"):
        Study.load(write(text.replace("COMMAND", "[]")))


def test_a_sampler_may_be_its_name(study: Load) -> None:
    assert study("sampler: random\n").sampler.name == "random"


def test_several_objectives_are_targets_in_their_order(study: Load, write: Write) -> None:
    text = study().to_yaml().replace("objective:\n  metric: pauc\n  direction: maximize\n", "")
    both = "objectives: [{metric: pauc, direction: maximize}, {metric: time, direction: minimize}]\n"
    assert [item.metric for item in Study.load(write(text + both)).targets] == ["pauc", "time"]
    with pytest.raises(ConfigError, match=r'study\.yaml: needs "objective" or "objectives"$'):
        Study.load(write(text))
    with pytest.raises(ConfigError, match=r"objectives: two objectives have the same metric"):
        Study.load(write(text + both.replace("time", "pauc")))


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ("trails: 5\n", r'study\.yaml:8: trails: unknown key; did you mean "trials"\?'),
        ("zzzzzz: 5\n", r"zzzzzz: unknown key; the keys are schema_version, name"),
        ("parallel: true\n", r"parallel: expected a whole number, found true"),
        ("parallel: 0\n", r"parallel: must be at least 1, found 0"),
        ('parallel: "2"\n', r'parallel: expected a whole number, found the text "2"'),
        ("sampler: {nmae: bo}\n", r'sampler\.nmae: unknown key; did you mean "name"\?'),
        ("sampler: 3\n", r"sampler: expected a mapping"),
        ("retry: {node-falure: 3}\n", r'retry\.node-falure: unknown key; did you mean "node-failure"\?'),
        ("retry: {memory-factor: 1}\n", r"retry\.memory-factor: must be more than 1"),
        ("walltime_warning: {signal: SIGKILL}\n", r"walltime_warning\.signal: .*SIGUSR1"),
        (
            "walltime_warning: {ahead: 10m}\nresources: {walltime: 600}\n",
            r"walltime_warning\.ahead: 600 s are not less than the walltime of 600 s",
        ),
        ("objectives: []\n", r"objectives: must not be empty"),
        ("objectives: [{metric: a, direction: minimize}]\n", r':3: objective: needs "objective" or .*, not both'),
        ("metrics: pauc\n", r"metrics: expected a list, found the text"),
        ("environment: {A: 1.5}\n", r"environment\.A: expected text, found the number 1\.5; put it in quotes"),
        ("environment: {A: true}\n", r"environment\.A: expected text, found true; put it in quotes"),
        ("environment: {1A: x}\n", r"environment\.1A: not a name for an environment variable"),
        ("environment: {SURVEY_DIR: x}\n", r"environment\.SURVEY_DIR: .*the orchestrator's own"),
        ("repeats: 0\n", r"repeats: .*at least 1|repeats: .*greater than or equal to 1"),
        ("read: [{metric: pauc}]\n", r"read\[0\]: needs exactly one of stdout, json, csv"),
        ("read: [{metric: pauc, csv: 'a:b', json: 'a:b'}]\n", r"read\[0\]: needs exactly one"),
        ("read: [{metric: pauc, stdout: 'x'}]\n", r"read\[0\]\.stdout: .* needs a group"),
        ("read: [{metric: pauc, stdout: '(x'}]\n", r"read\[0\]\.stdout: not a regular expression"),
        ("read: [{metric: pauc, json: out.json}]\n", r"read\[0\]\.json: expected file:dotted\.path"),
        ("read: [{metric: pauk, stdout: '(x)'}]\n", r'read\[0\]\.metric: "pauk" is neither .*"pauc"\?'),
        ("resources: {memory: 5XB}\n", r"resources\.memory: expected a memory size"),
        ("resources: {walltime: 1:99}\n", r"resources\.walltime: expected a duration"),
        ("resources: {cpu: 2}\n", r'resources\.cpu: unknown key; did you mean "cpus"\?'),
        ("failures: {most: 1.5}\n", r"failures\.most: must be at most 1"),
        ("storage: postgresql://me:secret@h/d\n", r"storage: no password in a file"),
        ("storage: postgresql://me@h/d?sslpassword=secret\n", r"storage: no password in a file"),
        ('batch: {group: "a\\n#PBS -l x"}\n', r"batch\.group: "),
        ('workdir: "a\\nb"\n', r"workdir: must be one line"),
    ],
)
def test_a_mistake_is_told_with_line_and_key(study: Load, further: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        study(further)
    assert "secret" not in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["../x", "-x", "a b", "", "x" * 65, "a/b", ".hidden", "é"])
def test_a_name_that_is_no_folder_name_is_refused(study: Load, write: Write, name: str) -> None:
    text = study().to_yaml().replace("name: aneurysm", f"name: {json.dumps(name)}")
    with pytest.raises(ConfigError, match=r"name: must be 1 to 64 letters"):
        Study.load(write(text))


def test_a_later_format_is_refused(study: Load, write: Write) -> None:
    with pytest.raises(ConfigError, match=r":1: schema_version: expected 1, found the number 2"):
        Study.load(write(study().to_yaml().replace("schema_version: 1", "schema_version: 2")))


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file_on_one_screen(study: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        study("".join(f"key{n}: 1\n" for n in range(9)) + "parallel: 0\n")
    lines = str(raised.value).splitlines()
    assert [line.split(":")[1] for line in lines[:8]] == [str(n) for n in range(8, 16)]
    assert lines[8:] == ["... and 2 more"]


def test_a_missing_key_is_told(write: Write) -> None:
    with pytest.raises(ConfigError) as raised:
        Study.load(write("name: a\nspace: {a: 1}\n"))
    assert 'missing key "objective"' not in str(raised.value), "either of two keys may be there"
    assert 'missing key "trials"' in str(raised.value)
    assert 'missing key "command"' in str(raised.value)


def test_retries_are_counted_by_verdict(study: Load) -> None:
    limits = study("retry: {timeout: 1, node-failure: 0}\n").retry.limits()
    assert limits[Verdict.TIMEOUT] == 1
    assert limits[Verdict.NODE_FAILURE] == 0
    assert (limits[Verdict.PREEMPTED], limits[Verdict.LOST], limits[Verdict.FAILED]) == (5, 2, 0)
    assert study("retry: {memory-factor: 1.5, out-of-memory: 1}\n").retry.memory_factor == 1.5
    assert limits.keys() == set(Verdict) - {Verdict.SUCCEEDED, Verdict.STOPPED, Verdict.PAUSED}


def test_the_program_s_warning_has_a_lead_time_and_perhaps_a_signal(study: Load) -> None:
    warning = study("walltime_warning: {ahead: 5m, signal: SIGUSR1}\n").walltime_warning
    assert (warning.ahead, warning.signal) == (300.0, "SIGUSR1")
    assert (study().walltime_warning.ahead, study().walltime_warning.signal) == (None, None)


def test_failures_in_a_row_that_never_pause_stay_so_when_the_study_is_written_down(study: Load, tmp_path: Path) -> None:
    never = study("failures: {failed_submits: 0, instant_deaths: 0}\n")
    (tmp_path / "again.yaml").write_text(never.to_yaml())
    assert Study.load(tmp_path / "again.yaml").failures == never.failures


def test_a_password_comes_from_the_environment_and_stays_out_of_the_file(study: Load) -> None:
    found = study(FULL)
    assert found.storage_url({"PW": "s3cret"}) == "postgresql://me:s3cret@host/db?sslpassword=s3cret"
    assert "s3cret" not in found.to_yaml()
    with pytest.raises(UsageError, match="environment variable PW is not set"):
        found.storage_url({})
    assert study().storage_url({}) is None


def test_a_study_does_not_change(study: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        study().trials = 5


def test_the_record_of_the_space_has_only_keys_that_apply(study: Load) -> None:
    space = study(space=SPACE).frozen()["space"]
    assert space["lr"] == {"type": "float", "low": 0.0, "high": 0.1}
    assert space["n"] == {"type": "int", "low": 1, "high": 9, "step": 2}
    assert space["off"] == {"type": "fixed", "value": False}
    assert space["m"]["when"] == {"o": ["sgd", "no"], "n": [3]}
    json.dumps(space)


def test_every_key_is_described_in_the_json_schema() -> None:
    schema = json_schema()
    for model in (schema, *schema["$defs"].values()):
        undescribed = [key for key, field in model["properties"].items() if not field.keys() & {"description", "$ref"}]
        assert set(undescribed) <= {"type", "image", "container"}, model["title"]
    assert schema["additionalProperties"] is False
    assert {"name", "space", "trials", "command"} <= set(schema["required"])
    below = json.dumps(schema["properties"]["space"])
    assert '"boolean"' in below, "a bare value is a fixed parameter to editors too"
