"""What a trial's life costs in the study database: CPU and wall milliseconds, at a short and a long history.

    python benchmarks/store.py [--folder DIR] [--histories 25 500] [--trials 40]

A life is: ask (random sampler, nine mixed parameters, one transaction), two notes, tell with outcome,
metrics and info (four transactions). ``publish`` is a snapshot of the whole history. Wall time has the
disk's syncs in it: use a folder on the file system that you want to know about.

``loop`` is the CPU time of ten million additions: on an idle core of 2020's about 0.5 s. Where it is
larger, the machine is shared, and the CPU columns are larger by about as much.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.samplers import RandomSampler

from orchestrator.store.record import StudyRecord
from orchestrator.store.snapshot import publish
from orchestrator.store.studydb import StudyDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna import Trial

T = TypeVar("T")

OUTCOME = {
    "verdict": "succeeded", "reason": "", "host": "node0123", "started": 1.8e9, "ended": 1.8e9, "attempts": 1,
    "max_rss": 10240.5, "gpus": ["0"], "gpu_memory": 30000.0, "queue_wait": 12.5, "directory": "/scratch/s/trials/00007/attempt-1",
}  # fmt: skip


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        "decay": trial.suggest_float("decay", 1e-6, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "momentum": trial.suggest_float("momentum", 0.8, 0.99),
        "layers": trial.suggest_int("layers", 2, 6),
        "filters": trial.suggest_int("filters", 8, 64, log=True),
        "batch": trial.suggest_int("batch", 4, 32, step=4),
        "norm": trial.suggest_categorical("norm", ["batch", "instance", "none"]),
        "loss": trial.suggest_categorical("loss", ["dice", "focal"]),
    }


class Costs:
    """Adds up CPU and wall time by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """Do ``work`` and add up what it costs."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.spent[name][0] += time.process_time() - cpu
        self.spent[name][1] += time.perf_counter() - wall
        return result


def live(study: StudyDatabase, costs: Costs) -> None:
    number, _ = costs("ask", lambda: study.ask(RandomSampler(seed=study.next_number), suggest, {"phase": "random"}))
    costs("note", lambda: study.note(number, "job", {"job_id": "1234567", "submitted": 1.8e9}))
    costs("note", lambda: study.note(number, "job", {"job_id": "1234567", "submitted": 1.8e9, "started": 1.8e9}))
    end: dict[str, Any] = {"outcome": OUTCOME, "metrics": {"pauc": 0.81, "dice": 0.7}, "info": {"epochs": 120}}
    costs("tell", lambda: study.tell(number, "complete", [0.81], end))


def record_of(study: StudyDatabase) -> StudyRecord:
    return StudyRecord(
        name="s", objectives=("pauc",), directions=("maximize",), space={}, sampler={}, planned=1000, parallel=8,
        site="local", state="running", trials=study.record(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the database goes (default: the temporary folder)"
    )
    parser.add_argument("--histories", type=int, nargs="+", default=[25, 500], help="trials before the measurement")
    parser.add_argument("--trials", type=int, default=40, help="trials measured")
    parser.add_argument("--url", default=None, help="another database, such as journal:study.log")
    options = parser.parse_args()
    begun = time.process_time()
    total = 0
    for number in range(10_000_000):
        total += number
    print(f"loop {time.process_time() - begun:.2f} s")
    print(f"{'trials':>7} {'what':>8} {'CPU ms':>8} {'wall ms':>8}")
    for history in sorted(options.histories):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            root = Path(folder)
            settings: dict[str, Any] = {"name": "s", "directions": ["maximize"], "url": options.url, "definition": {}}
            with StudyDatabase.open(root, **settings) as study:
                for _ in range(history):
                    live(study, Costs())
            costs = Costs()
            study = costs("open", lambda: StudyDatabase.open(root, **settings))  # noqa: B023 - called at once
            costs.spent["open"] = [each * options.trials for each in costs.spent["open"]]  # once, not per trial
            with study:
                live(study, Costs())
                for _ in range(options.trials):
                    live(study, costs)
                    costs("publish", lambda: publish(root, record_of(study)))  # noqa: B023 - called at once
            spent = {name: [1e3 * each / options.trials for each in both] for name, both in costs.spent.items()}
            spent["life"] = [sum(spent[name][column] for name in ("ask", "note", "tell")) for column in (0, 1)]
            for name, (cpu, wall) in spent.items():
                print(f"{history:>7} {name:>8} {cpu:>8.2f} {wall:>8.2f}")


if __name__ == "__main__":
    main()
