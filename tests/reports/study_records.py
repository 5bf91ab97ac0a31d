"""Study records for the tests of the reports."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from orchestrator.store.record import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

START = 1_700_000_000.0

SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "layers": {"type": "int", "low": 1, "high": 6},
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "rmsprop"]},
    "momentum": {"type": "float", "low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}},
    "dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "augment": {"type": "categorical", "choices": [True, False]},
    "epochs": {"type": "fixed", "value": 30},
}


def study(trials: Sequence[TrialRecord] = (), **changes: Any) -> StudyRecord:
    """A study that maximises ``pauc``, finished, unless told otherwise."""
    fields: dict[str, Any] = {
        "name": "aneurysm",
        "objectives": ("pauc",),
        "directions": ("maximize",),
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "bo", "seed": 7},
        "planned": len(trials),
        "parallel": 2,
        "site": "reedbush-h",
        "state": "done",
        "updated": START + 10_000.0,
        "trials": tuple(trials),
    }
    return StudyRecord(**{**fields, **changes})


def trial(number: int, value: float | None, *, ended: float | None = None, **changes: Any) -> TrialRecord:
    """A trial that ran for 60 s until ``ended`` (seconds since the start); failed if it has no value."""
    end = 100.0 * (number + 1) if ended is None else ended
    fields: dict[str, Any] = {
        "number": number,
        "state": "failed" if value is None else "complete",
        "params": {"x": (number % 10) / 10},
        "values": None if value is None else (value,),
        "metrics": {} if value is None else {"pauc": value},
        "verdict": "failed" if value is None else "succeeded",
        "reason": "exit code 1" if value is None else "",
        "attempts": 1,
        "created": START + end - 80.0,
        "submitted": START + end - 80.0,
        "started": START + end - 60.0,
        "ended": START + end,
    }
    return TrialRecord(**{**fields, **changes})


def from_values(values: Sequence[float | None], **changes: Any) -> StudyRecord:
    """A study whose trials ended one after the other with these values; None failed."""
    return study([trial(number, value) for number, value in enumerate(values)], **changes)


def training_like(count: int, *, parallel: int = 4, seed: int = 0, direction: str = "maximize") -> StudyRecord:
    """A study with log, integer, categorical and conditional parameters, failures and queue waits."""
    rng = random.Random(seed)
    free = [0.0] * parallel
    trials = []
    for number in range(count):
        slot = min(range(parallel), key=lambda index: free[index])
        params: dict[str, Any] = {
            "learning_rate": 10 ** rng.uniform(-5, -1),
            "layers": rng.randint(1, 6),
            "optimizer": rng.choice(["sgd", "adam", "rmsprop"]),
            "dropout": rng.uniform(0, 0.6),
            "augment": rng.random() < 0.5,
            "epochs": 30,
        }
        if params["optimizer"] == "sgd":
            params["momentum"] = rng.uniform(0, 0.99)
        quality = math.exp(-((math.log10(params["learning_rate"]) + 3) ** 2)) * (1 - params["dropout"] / 2)
        value: float | None = 0.4 + 0.5 * quality + rng.gauss(0, 0.02)
        if direction == "minimize":
            value = 1 - (value or 0.0)
        if rng.random() < 0.12:
            value = None
        submitted = START + free[slot] + 2
        started = submitted + rng.expovariate(1 / 40)
        ended = started + rng.lognormvariate(6, 0.5)
        free[slot] = ended - START
        trials.append(
            trial(
                number,
                value,
                params=params,
                metrics={} if value is None else {"pauc": value, "train_seconds": ended - started},
                verdict="succeeded" if value is not None else rng.choice(["out-of-memory", "failed", "timeout"]),
                reason="" if value is not None else "ValueError: cannot read '/data/patient_0012/scan.nii.gz'",
                host=f"a{slot:03d}",
                gpus=("0",),
                job_id=str(4000 + number),
                created=submitted - 2,
                submitted=submitted,
                started=started,
                ended=ended - START,
            )
        )
    return study(
        trials,
        space=SPACE,
        parallel=parallel,
        directions=(direction,),
        planned=max(count, 1),
        provenance={
            "time": START,
            "argv": ["survey", "run", "/home/someone/study.yaml"],
            "git": {"commit": "945c785", "branch": "main", "dirty": False, "diff": "secret-diff"},
            "python": {"version": "3.11.2", "executable": "/home/someone/venv/bin/python"},
            "packages": {"numpy": "2.4.6", "optuna": "5.0.0"},
            "user": "someone",
            "files": {"/data/patient_0012/dataset.json": {"sha256": "0" * 64}},
        },
    )
