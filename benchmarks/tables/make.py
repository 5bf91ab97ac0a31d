"""Make a table of real trainings of a study's workload, by shards that can be stopped and started again.

::

    python benchmarks/tables/make.py aneurysm --configurations 400 --seeds 2
    python benchmarks/tables/make.py aneurysm --configurations 400 --seeds 2 --shard 3/8    # one of eight machines

Configurations are the points of one scrambled Sobol sequence over the space of ``examples/TASK/study.yaml``:
number 17 is the same configuration in every run, and 800 of them begin with the same 400. All are trained with the
first seed before the second begins. Each training appends one line to ``TASK-I-of-N.jsonl`` beside this file;
what any of these files holds is not trained again. One process at a time, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DESIGN_SEED = 20180309  # of the sequence's scrambling

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def configuration(space: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Point ``number`` of the design, as parameters; what is inactive is left out."""
    from scipy.stats.qmc import Sobol

    from orchestrator.config.parameters import FixedParameter, in_order
    from orchestrator.search.space import is_active

    order = in_order(space)
    sequence = Sobol(len(order), scramble=True, seed=DESIGN_SEED)
    if number:
        sequence.fast_forward(number)
    coordinates = sequence.random(1)[0]
    found: dict[str, Any] = {}
    for name, coordinate in zip(order, coordinates.tolist(), strict=True):
        parameter = space[name]
        if is_active(parameter, found):
            found[name] = parameter.value if isinstance(parameter, FixedParameter) else value_at(parameter, coordinate)
    return found


def value_at(parameter: Any, coordinate: float) -> Any:
    """Value of ``parameter`` at a coordinate in [0, 1): the distribution from which a random search draws."""
    if hasattr(parameter, "choices"):
        return parameter.choices[int(coordinate * len(parameter.choices))]
    whole = parameter.type == "int"
    step = (parameter.step or 1) if whole else (parameter.step or 0)
    half = step / 2 if whole or parameter.step else 0
    low, high = parameter.low - half, parameter.high + half
    if parameter.log:
        value = math.exp(math.log(low) + coordinate * (math.log(high) - math.log(low)))
    else:
        value = low + coordinate * (high - low)
    if step:
        value = parameter.low + round((value - parameter.low) / step) * step
    value = min(max(value, parameter.low), parameter.high)
    return int(value) if whole else value


def tasks(configurations: int, seeds: int, shard: int, shards: int) -> Iterator[tuple[int, int]]:
    """The trainings of a shard, as configuration and seed: the first seed of all before the second of any."""
    for seed in range(1, seeds + 1):
        for number in range(configurations):
            if number % shards == shard - 1:
                yield number, seed


def done(files: Iterable[Path]) -> set[tuple[int, int]]:
    """Trainings that ``files`` hold; the half line of a killed run counts as none."""
    found = set()
    for path in files:
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "configuration" in row:
                found.add((row["configuration"], row["seed"]))
    return found


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add ``row`` as one line, on disk before this returns; the half line of a killed run goes."""
    with path.open("ab+") as stream:
        stream.seek(0)
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
        stream.write(json.dumps(row).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def train(task: str, data: Path, params: Mapping[str, Any], seed: int, options: Iterable[str]) -> dict[str, Any]:
    """Train once, in a process of its own that has TensorFlow loaded already.

    TensorFlow starts its threads at the first operation and not when it is imported, so that a
    child may be forked before it; each child begins from the same state, as a new process does.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "params.json").write_text(json.dumps(params), encoding="utf-8")
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(_in_child(task, place, data, seed, options))
        _, status = os.waitpid(child, 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        row: dict[str, Any] = {
            "seconds": round(time.monotonic() - begun, 2),
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        }
        result = place / "result.json"
        if status or not result.exists():
            lines = (place / "output").read_text(encoding="utf-8", errors="replace").splitlines()
            return row | {"failed": f"{os.waitstatus_to_exitcode(status)}: {lines[-1] if lines else ''}"}
        answer = json.loads(result.read_text(encoding="utf-8"))
        progress = place / "progress.jsonl"
        reports = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
        return row | {
            "metrics": {name: float(f"{value:.6g}") for name, value in answer["metrics"].items()},
            "progress": [[each["step"], float(f"{each['value']:.6g}")] for each in map(json.loads, reports)],
            "diverged": bool(answer["info"].get("diverged", False)),
            "info": answer["info"],
        }


def _in_child(task: str, place: Path, data: Path, seed: int, options: Iterable[str]) -> int:
    output = os.open(place / "output", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(place)
    names = {"PARAMS": "params.json", "RESULT": "result.json", "PROGRESS": "progress.jsonl", "ARTIFACTS": "artifacts"}
    os.environ.update({f"SURVEY_{name}": str(place / file) for name, file in names.items()})
    os.environ["SURVEY_SEED"] = str(seed)
    try:
        from workloads.__main__ import main as workload

        return workload([task, "--data", str(data), "--threads", "1", *options])
    except BaseException:  # the parent reads the last line, whatever went wrong
        import traceback

        traceback.print_exc()
        return 1


def main() -> None:
    parser = argparse.ArgumentParser(description="A table of real trainings, made by resumable shards.")
    parser.add_argument("task", help="a task of workloads/ with phantoms and a study in examples/")
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each configuration")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th configuration, from the I-th")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables (default: beside this file)")
    arguments = parser.parse_args()
    shard, _, shards = arguments.shard.partition("/")
    if not (shard.isdigit() and shards.isdigit() and 1 <= int(shard) <= int(shards)):
        parser.error(f"--shard {arguments.shard}: write I/N, as in 3/8")

    sys.path.insert(0, str(HERE.parents[1]))
    from orchestrator.config.study import Study

    study = Study.load(HERE.parents[1] / "examples" / arguments.task / "study.yaml")
    path = arguments.out / f"{arguments.task}-{shard}-of-{shards}.jsonl"
    finished = done(arguments.out.glob(f"{arguments.task}-*-of-*.jsonl"))
    wanted = [
        each
        for each in tasks(arguments.configurations, arguments.seeds, int(shard), int(shards))
        if each not in finished
    ]
    print(f"{path.name}: {len(wanted)} trainings to do, {len(finished)} done", flush=True)
    if not wanted:
        return

    import tensorflow  # noqa: F401, ICN001 - loaded once, before the children are forked

    from workloads.__main__ import main as workload

    options = ["--no-predictions"]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        workload(["phantom", arguments.task, "--out", str(data)])
        told = path.exists()
        for count, (number, seed) in enumerate(wanted, start=1):
            params = configuration(study.space, number)
            row = train(arguments.task, data, params, seed, options)
            info = row.pop("info", {})
            if not told and info:
                about = {
                    "task": arguments.task,
                    "study": f"examples/{arguments.task}/study.yaml",
                    "objective": study.targets[0].metric,
                    "direction": study.targets[0].direction,
                    "design": f"scrambled Sobol sequence, seed {DESIGN_SEED}",
                    "options": options,
                    "data": info.get("data"),
                    "cases": info.get("cases"),
                    "matching": info.get("matching"),
                    "versions": info.get("versions"),
                    "seconds": "of one training with one thread, TensorFlow loaded; other programs shared the machine",
                }
                append(path, {"about": about})
                told = True
            append(path, {"configuration": number, "seed": seed, "params": params, **row})
            told_value = row.get("metrics", {}).get(study.targets[0].metric, row.get("failed"))
            print(f"{count}/{len(wanted)}  {number} seed {seed}  {told_value}  {row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
