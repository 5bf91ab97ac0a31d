"""What a training step costs beside the plainest Keras `fit` of the same net and batch, what its input costs, and what a trial takes.

    python benchmarks/training.py [--tasks aneurysm covid-2d ...] [--rounds 7] [--trials]

Each task is measured on its own phantoms, with its default settings, in a process of its own: its trial runs until it
would train, and what it would train is trained by us and by `fit`, in rounds that alternate. The figures are medians of
ratios within a round, in CPU seconds of all threads, so that other programs on the machine do not count. The input is
timed alone: drawn, cut into batches and handed out. With ``--trials`` a whole trial is run instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from workloads import tasks
from workloads.__main__ import main as workloads
from workloads.trials import classification, patches

TASKS = (  # those that train through `workloads.training.loop`
    "aneurysm",
    "covid-2d",
    "covid-3d",
    "covid-typicality",
    "gram-stain",
    "head-ct-anomaly",
    "laparoscopy",
    "liver-nodules",
    "lung-field",
    "metastasis",
)
IN_A_ROW = 3  # epochs of input, as they follow each other in a training


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads: other programs on the machine do not count."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Caught(Exception):
    """What a trial would train."""

    def __init__(self, model: Any, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.arguments = model, arguments


def phantoms(name: str, folder: Path) -> Path:
    """The task's own, as many as it makes by default."""
    if workloads(["phantom", name, "--out", str(folder)]):
        raise SystemExit(f"no phantoms of {name} could be made")
    return folder


def caught(name: str, data: Path) -> Caught:
    """Run a trial until it would train."""

    def instead(model: Any, **arguments: Any) -> NoReturn:
        raise Caught(model, arguments)

    with patch.object(patches, "train", instead), patch.object(classification, "train", instead):
        try:
            workloads([name, "--data", str(data), "--threads", "1", "--seed", "0"])
        except Caught as found:
            return found
    raise SystemExit(f"{name} trained nothing")


def step_of(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Figures of the steps of one task, and of its input."""
    found = caught(name, phantoms(name, folder / "data"))
    from tensorflow import keras

    from workloads.training.batches import epochs_ahead
    from workloads.training.loop import train

    model, given = found.model, found.arguments
    draw, batch, loss = given["epoch_data"], given["batch_size"], given["loss"]
    inputs, targets = draw(1)
    steps = -(-len(inputs) // batch)

    plain = keras.models.clone_model(model)
    optimizer = type(given["optimizer"]).from_config(given["optimizer"].get_config())
    # With XLA, which `compile` would choose by itself, 3D convolutions take several times longer on a CPU.
    plain.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    plain.fit(inputs, targets, batch_size=batch, epochs=2, verbose=0)

    fitted: list[float] = []
    drawn: list[float] = []
    marks: list[float] = []

    def input_alone() -> None:
        for epoch in epochs_ahead(draw, first=1, last=IN_A_ROW, batch_size=batch, generators={}):
            for _ in epoch.batches:
                pass

    def after_epoch(_epoch: int, _loss: float) -> bool:
        marks.append(time.process_time())
        drawn.append(seconds(input_alone) / IN_A_ROW)
        fitted.append(seconds(lambda: plain.fit(inputs, targets, batch_size=batch, epochs=1, verbose=0)))
        marks.append(time.process_time())
        return False

    train(
        model,
        optimizer=given["optimizer"],
        loss=loss,
        epoch_data=lambda _epoch: (inputs, targets),
        epochs=rounds + 1,
        batch_size=batch,
        after_epoch=after_epoch,
    )
    # Between the end of one epoch's other work and the end of the next epoch lies our epoch; the first one traces.
    ours = [end - begin for begin, end in zip(marks[1::2], marks[2::2], strict=False)]
    ratios = [mine / theirs for mine, theirs in zip(ours, fitted[1:], strict=True)]
    return {
        "task": name,
        "batch": batch,
        "ms_a_step": round(1e3 * statistics.median(ours) / steps, 2),
        "ms_a_step_of_fit": round(1e3 * statistics.median(fitted[1:]) / steps, 2),
        "over_fit": round(statistics.median(ratios), 3),
        "input_over_step": round(statistics.median(ours) / statistics.median(drawn[1:]), 2),
    }


def trial_of(name: str, folder: Path) -> dict[str, Any]:
    """What a whole trial of one task takes."""
    data, result = phantoms(name, folder / "data"), folder / "result.json"
    command = [sys.executable, "-m", "workloads", name, "--data", str(data), "--threads", "1", "--seed", "0"]
    own = {"SURVEY_RESULT": str(result), "SURVEY_ARTIFACTS": str(folder / "artifacts")}
    subprocess.run(command, env={**os.environ, **own}, check=True, capture_output=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "task": name,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_mib": round(json.loads(result.read_text(encoding="utf-8"))["info"]["peak_memory_mib"]),
    }


def main() -> None:
    """Measure and print, a JSON line a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trials", action="store_true", help="run whole trials instead")
    options = parser.parse_args()
    if len(options.tasks) > 1:
        more = ["--rounds", str(options.rounds), *(["--trials"] if options.trials else [])]
        for name in options.tasks:
            subprocess.run([sys.executable, __file__, "--tasks", name, *more], check=True)
        return
    with tempfile.TemporaryDirectory() as place:
        name, folder = options.tasks[0], Path(place)
        found = trial_of(name, folder) if options.trials else step_of(name, options.rounds, folder)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
