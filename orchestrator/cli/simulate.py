"""``survey simulate``: what a study would take and cost with N trials at a time, before it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.manners import hold_threads
from orchestrator.cli.output import emit_json, message, print_table
from orchestrator.cli.target import JsonOption, RootOption, load_target
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.simulate.answers import Answer
    from orchestrator.simulate.study_model import Arm, Machine, Way
    from orchestrator.simulate.surrogate import Neighbours
    from orchestrator.simulate.table import Table

__all__ = ["simulate"]

_FORMS = "30m, uniform:10m:1h, exponential:30m, lognormal:30m:1.2 (median, sigma) or recorded:STUDY_FOLDER"


def simulate(
    study: Annotated[str, typer.Argument(help="study.yaml, or a study's folder or name.")],
    table: Annotated[
        Path, typer.Option("--table", help="Measured configurations: CSV, JSON, JSON lines, or a study's folder.")
    ],
    root: RootOption = Path("runs"),
    parallel: Annotated[str, typer.Option("--parallel", help="Numbers of trials at a time.")] = "1,2,4,8,64",
    ways: Annotated[
        str,
        typer.Option(
            "--ways", help="asynchronous, batches (wait for all N, then ask for N), packed (several trials a job)."
        ),
    ] = "asynchronous,batches,packed",
    queue_wait: Annotated[str, typer.Option("--queue-wait", help=f"Of each job: {_FORMS}.")] = "0s",
    run_time: Annotated[
        str, typer.Option("--run-time", help="Of each trial: as --queue-wait, or table, or table:600 (times 600).")
    ] = "table",
    failures: Annotated[
        str, typer.Option("--failures", help="Chance that a trial fails, such as 0.05, or recorded:STUDY_FOLDER.")
    ] = "0",
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Nodes that the study can have; default: what N takes.")
    ] = None,
    pack: Annotated[int, typer.Option("--pack", min=1, help="Trials that a node carries side by side.")] = 4,
    submits: Annotated[float, typer.Option("--submits-per-minute", min=0.01, help="What the site bears.")] = 20.0,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="In place of the study's.")] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="In place of the study's.")] = "",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Simulated studies for each answer.")] = 3,
    target: Annotated[
        float | None, typer.Option("--target", help="Value to reach; default: what 9 of 10 simulated studies reach.")
    ] = None,
    seconds: Annotated[str, typer.Option("--seconds", help="The table's column of run times.")] = "seconds",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for figure and table; default: ROOT/simulated-STUDY.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study on a modelled machine in virtual time: what N takes, costs and leaves idle; nothing is submitted."""
    hold_threads()
    from orchestrator.simulate.answers import advice, answer, default_target
    from orchestrator.simulate.surrogate import Neighbours
    from orchestrator.simulate.table import read_table

    slots = _slots(parallel)
    chosen = _ways(ways)
    loaded = load_target(study, root)
    plan = _changed(loaded.study, trials, sampler, loaded.origin)
    if len(plan.targets) > 1:
        raise UsageError(f"study {plan.name} has {len(plan.targets)} objectives: simulate it with one of them")
    if plan.constraints:
        message("the model of the trials knows the objective alone: the study's constraints are left out")
        plan = plan.model_copy(update={"constraints": None})
    rows = read_table(table, plan, seconds=seconds)
    machine = _machine(rows, queue_wait, run_time, failures=failures, nodes=nodes, pack=pack, submits=submits)
    model = Neighbours(rows, plan.space, plan.targets[0].metric)
    _tell(rows, model)
    arms = _run(plan, model, machine, slots, chosen, repeats, rows)
    found = answer(arms, default_target(arms) if target is None else target)
    written = _write(out or root / f"simulated-{plan.name}", found, arms)
    if as_json:
        facts = {"study": plan.name, "sampler": plan.sampler.name, "trials": plan.trials, "fit": model.fit}
        emit_json({**facts, "answer": found.to_json(), "files": [str(path) for path in written]})
    else:
        print_table(found.header(), found.cells())
        typer.echo(f"\n{advice(found)}")
    for path in written:
        typer.echo(str(path), err=as_json)


def _slots(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise UsageError(f"--parallel {text!r}: write whole numbers from 1, as in 1,2,4,8,64")
    return list(dict.fromkeys(int(word) for word in words))


def _ways(text: str) -> list[Way]:
    from orchestrator.config.loading import did_you_mean
    from orchestrator.simulate.study_model import WAYS

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words or [text]:
        if word not in WAYS:
            raise UsageError(f"--ways: there is no way {word!r}", hint=did_you_mean(word, WAYS) or ", ".join(WAYS))
    return [way for way in WAYS if way in words]


def _changed(study: Study, trials: int | None, sampler: str, origin: Path) -> Study:
    changes: dict[str, object] = {} if trials is None else {"trials": trials}
    if study.warm_start is not None:
        changes["warm_start"] = study.warm_start.below(origin)
    if sampler and sampler != study.sampler.name:
        # Options are the old sampler's own words.
        changes["sampler"] = study.sampler.model_copy(update={"name": sampler, "options": {}})
    return study.model_copy(update=changes)


def _machine(
    table: Table, queue_wait: str, run_time: str, *, failures: str, nodes: int | None, pack: int, submits: float
) -> Machine:
    from orchestrator.simulate.study_model import Machine
    from orchestrator.simulate.times import parse_times

    kind, _, factor = run_time.partition(":")
    stretch, times = 1.0, None
    if kind != "table":
        times = parse_times(run_time, "run", "--run-time")
    else:
        try:
            stretch = float(factor) if factor else 1.0
        except ValueError:
            stretch = 0.0
        if not 0.0 < stretch < float("inf"):
            raise UsageError(f"--run-time {run_time!r}: the factor must be a number above 0, as in table:600")
        if not table.timed:
            raise UsageError(
                f"{table.place}: not every row says how long it took",
                hint="name the column with --seconds, or set --run-time",
            )
    return Machine(
        queue_wait=parse_times(queue_wait, "wait", "--queue-wait"),
        run_time=times,
        stretch=stretch,
        failures=_chance(failures),
        nodes=nodes,
        pack=pack,
        submits_per_minute=submits,
    )


def _chance(text: str) -> float:
    if text.startswith("recorded:"):
        from orchestrator.studies.reader import read_study

        ended = read_study(Path(text.removeprefix("recorded:"))).finished
        return sum(trial.state == "failed" for trial in ended) / max(1, len(ended))
    try:
        chance = float(text)
    except ValueError:
        chance = -1.0
    if not 0.0 <= chance <= 1.0:
        raise UsageError(f"--failures {text!r}: write a number from 0 to 1, or recorded:STUDY_FOLDER")
    return chance


def _tell(table: Table, model: Neighbours) -> None:
    left = f"; {table.left_out} rows are no points of the space" if table.left_out else ""
    message(f"{table.place}: {len(table.rows)} trainings{left}")
    if math.isfinite(model.fit):
        message(f"left-out configurations are predicted with a rank correlation of {model.fit:.2f}")


def _run(
    study: Study,
    model: Neighbours,
    machine: Machine,
    slots: list[int],
    ways: list[Way],
    repeats: int,
    table: Table,
) -> list[Arm]:
    from orchestrator.simulate.study_model import simulate_arm

    took = sorted(row.seconds for row in table.rows if row.seconds is not None)
    if machine.run_time is not None:
        typical = machine.run_time.typical
    else:
        typical = took[len(took) // 2] * machine.stretch if took else 0.0
    # With one slot there is nothing to wait for and nobody to share a job with.
    plan = [(way, each) for each in slots for way in ways if each > 1 or way == "asynchronous"]
    if not plan:
        raise UsageError("--parallel 1 has no batches and nothing to pack", hint="add asynchronous to --ways")
    arms: list[Arm] = []
    for way, each in plan:
        arms.extend(
            simulate_arm(study, model.expect, machine, way=way, parallel=each, repeat=repeat, typical=typical)
            for repeat in range(1, repeats + 1)
        )
        message(f"{way}, N = {each}: {repeats} simulated", verbosity=1)
    return arms


def _write(folder: Path, found: Answer, arms: list[Arm]) -> list[Path]:
    from orchestrator.simulate.answer_figure import answer_figure

    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "simulate.md"
    page.write_text(found.to_markdown(), encoding="utf-8")
    return [*answer_figure(found, arms, folder / "simulate"), page]
