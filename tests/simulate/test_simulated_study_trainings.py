"""The committed tables of real trainings, and the maker of them: one design, shards, and a stop at any moment."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.config.study import Study
from orchestrator.search.space import validate
from orchestrator.simulate.table import read_table

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "benchmarks" / "tables"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = importlib.util.spec_from_file_location("make_tables", TABLES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["aneurysm", "metastasis"])
def test_every_row_of_a_table_is_the_configuration_of_its_number(make: ModuleType, task: str) -> None:
    study = Study.load(ROOT / "examples" / task / "study.yaml")
    seen = set()
    for path in TABLES.glob(f"{task}-*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "about" in row:
                assert row["about"]["objective"] == study.targets[0].metric
                continue
            planned = make.configuration(study.space, row["configuration"])
            numbers = {name: value for name, value in planned.items() if not isinstance(value, str)}
            # The last digit of a logarithm is the machine's own.
            assert row["params"] == {**planned, **{name: pytest.approx(numbers[name], rel=1e-12) for name in numbers}}
            seen.add((row["configuration"], row["seed"]))
    assert seen
    rows = [row for path in TABLES.glob(f"{task}-*.jsonl") for row in read_table(path, study).rows]
    assert len(rows) == len(seen)


def test_every_point_of_a_design_lies_in_its_space(make: ModuleType) -> None:
    space = Study.model_validate(
        {
            "name": "conditional",
            "objective": {"metric": "m", "direction": "minimize"},
            "space": {
                "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
                "depth": {"type": "int", "low": 1, "high": 64, "log": True},
                "step": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
                "width": {"type": "int", "low": 2, "high": 11, "step": 3, "when": {"kind": ["a", "b"]}},
                "rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
                "constant": 7,
            },
            "trials": 1,
            "command": ["train"],
        }
    ).space
    points = [make.configuration(space, number) for number in range(64)]
    for point in points:
        validate(space, point)
    assert {point["kind"] for point in points} == {"a", "b", "c"}
    assert {point["step"] for point in points} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {point["width"] for point in points if "width" in point} == {2, 5, 8, 11}
    assert make.configuration(space, 17) == points[17]


def test_shards_share_all_trainings_out_and_the_first_seed_comes_first(make: ModuleType) -> None:
    shards = [list(make.tasks(10, 2, shard, 3)) for shard in (1, 2, 3)]
    whole = [each for shard in shards for each in shard]
    assert sorted(whole) == [(number, seed) for number in range(10) for seed in (1, 2)]
    for shard in shards:
        assert [seed for _, seed in shard] == sorted(seed for _, seed in shard)


def test_what_a_killed_maker_has_half_written_is_made_again(make: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "task-1-of-1.jsonl"
    for number in range(3):
        make.append(path, {"configuration": number, "seed": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"configuration": 3, "se')
    assert make.done([path]) == {(0, 1), (1, 1), (2, 1)}
    make.append(path, {"configuration": 3, "seed": 1})
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["configuration"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
