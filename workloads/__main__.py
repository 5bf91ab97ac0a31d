"""``python -m workloads``: list the tasks, make phantoms, split data into folds, run one trial, explain a network.

::

    python -m workloads list
    python -m workloads phantom aneurysm --out phantoms
    python -m workloads folds --data phantoms --folds 5
    python -m workloads aneurysm --data phantoms --set learning_rate=0.003
    python -m workloads explain integrated-gradients --model model.keras --image FILE --out maps
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workloads import tasks
from workloads.errors import WorkloadError
from workloads.parameters import parse_assignments

__all__ = ["main"]


def _list() -> None:
    for name in tasks.NAMES:
        task = tasks.load(name)
        print(f"{name}: {task.SUMMARY}")  # noqa: T201 - this verb's answer
        for parameter in task.PARAMETERS:
            range_ = f"{parameter.describe()}, default {parameter.default}"
            meaning = ", ".join(part for part in (parameter.meaning, parameter.condition()) if part)
            print(f"  {parameter.name:<16} {range_:<40} {meaning}")  # noqa: T201 - as above


def _phantom(arguments: Sequence[str]) -> None:
    makers = [name for name in tasks.NAMES if hasattr(tasks.load(name), "make_phantoms")]
    if not arguments or arguments[0].startswith("-"):
        raise WorkloadError("phantoms of which task?", hint="there is: " + ", ".join(makers))
    task = tasks.load(arguments[0])
    if arguments[0] not in makers:
        raise WorkloadError(f"{arguments[0]} needs no phantoms", hint="there is: " + ", ".join(makers))
    parser = argparse.ArgumentParser(prog=f"python -m workloads phantom {arguments[0]}", description=task.SUMMARY)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same data (default: %(default)s)")
    task.add_phantom_arguments(parser)
    task.make_phantoms(parser.parse_args(arguments[1:]))


def _folds(arguments: Sequence[str]) -> None:
    from workloads.data.dataset import open_dataset
    from workloads.data.pictures import FOLDER, open_pictures
    from workloads.data.splits import make_folds, read_patients, write_folds

    parser = argparse.ArgumentParser(prog="python -m workloads folds", description="Split data for a cross-validation.")
    parser.add_argument("--data", type=Path, required=True, help="folder with imagesTr, labelsTr, or classes")
    parser.add_argument("--folds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same folds (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a new file (default: folds.json of the data folder)")
    options = parser.parse_args(arguments)
    pictures = (options.data / FOLDER).is_dir()
    patients = read_patients(
        open_pictures(options.data).dataset if pictures else open_dataset(options.data, channels="all")
    )
    path = options.out or options.data / "folds.json"
    write_folds(path, make_folds(patients, options.folds, seed=options.seed))
    print(f"{path}: {len(patients)} cases of {len(set(patients.values()))} patients in {options.folds} folds")  # noqa: T201 - this verb's answer


def _run(name: str, arguments: Sequence[str]) -> None:
    from orchestrator import trial

    task = tasks.load(name)
    parser = argparse.ArgumentParser(prog=f"python -m workloads {name}", description=task.SUMMARY)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyperparameter, over what the survey asks for: " + ", ".join(each.name for each in task.PARAMETERS),
    )
    if "--fit" in arguments and hasattr(task, "step"):
        _fit(task, parser, arguments)
        return
    task.add_arguments(parser)
    if hasattr(task, "step"):
        parser.add_argument(
            "--fit", action="store_true", help="find the largest patch and batch; --fit --help says how"
        )
    options = parser.parse_args(arguments)
    task.run(options, {**trial.params(), **parse_assignments(options.set)})


def _fit(task: Any, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Find the largest patch and batch that a step of the task fits into this device."""
    from workloads.training import fit

    parser.add_argument("--fit", action="store_true", required=True, help="find the largest patch and batch")
    known, _ = parser.parse_known_args([each for each in arguments if each not in {"-h", "--help"}])
    step = task.step(parse_assignments(known.set))
    fit.add_arguments(parser, step)
    fit.run(parser.parse_args(arguments), step)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 2 for what the user must change."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not arguments or arguments[0] in {"-h", "--help"}:
            print(__doc__)  # noqa: T201 - help goes to stdout
        elif arguments[0] == "list":
            _list()
        elif arguments[0] == "phantom":
            _phantom(arguments[1:])
        elif arguments[0] == "folds":
            _folds(arguments[1:])
        elif arguments[0] == "explain":
            from workloads.explain.command import main as explain

            explain(arguments[1:])
        else:
            _run(arguments[0], arguments[1:])
    except WorkloadError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - errors of a command line
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
