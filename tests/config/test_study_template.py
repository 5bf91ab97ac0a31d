from __future__ import annotations

import re
from pathlib import Path

import pytest
from study_files import Write, writer

from orchestrator.config.study import Study
from orchestrator.config.template_study import EXAMPLES, study_template
from orchestrator.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return writer(tmp_path, monkeypatch)


@pytest.mark.parametrize("example", ["", *EXAMPLES])
@pytest.mark.parametrize("name", ["my-study", "123", "true"])
def test_the_written_study_loads_and_has_its_name(write: Write, example: str, name: str) -> None:
    text = study_template(name, example=example)
    assert Study.load(write(text)).name == name
    assert text.startswith("# yaml-language-server: $schema=study.schema.json\n")


def test_what_is_commented_out_loads_too(write: Write) -> None:
    text = study_template("a")
    # Lines of prose have no colon after their first word; those of YAML have.
    text = re.sub(r"^# ((?:- |  )?\s*[a-z]+:(?: |$))", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"^#   (- |queue|group|modules|setup)", r"  \1", text, flags=re.MULTILINE)
    text = text.replace("  - {metric: accuracy, j", "#").replace("  - {metric: accuracy, c", "#")
    found = Study.load(write(text))
    assert found.batch.queue == "gpu"
    assert found.failures.stop_after == 5
    assert found.read[0].stdout is not None
    assert found.storage is not None
    assert found.metrics == ("train_seconds",)


def test_an_unknown_example_is_answered_with_the_near_one() -> None:
    with pytest.raises(UsageError, match=r'no example "digts"\n  did you mean "digits"\?'):
        study_template("a", example="digts")


def test_a_bad_name_is_refused_before_anything_is_written() -> None:
    with pytest.raises(UsageError, match="the study's name must be 1 to 64"):
        study_template("../x")


def test_the_digits_example_asks_for_parameters_that_the_workload_knows(write: Write) -> None:
    source = (ROOT / "workloads" / "tasks" / "digits.py").read_text(encoding="utf-8")
    known = set(re.findall(r'Parameter\(name="(\w+)"', source))
    space = Study.load(write(study_template("a", example="digits"))).space
    assert set(space) <= known
    assert known


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/study.yaml")), ids=lambda path: path.parent.name)
def test_every_example_study_loads(path: Path) -> None:
    assert Study.load(path).trials > 0
