"""``survey compare``: several samplers and parallelisms on one study, and the figure for the paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.manners import be_nice, be_private, hold_threads
from orchestrator.cli.output import emit_json, message
from orchestrator.cli.run import YesOption, drive
from orchestrator.cli.target import JsonOption, RootOption
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.comparison import Arm
    from orchestrator.reports.compare import Arm as ReportArm
    from orchestrator.store.record import StudyRecord

__all__ = ["compare"]


def compare(
    comparison: Annotated[Path, typer.Argument(help="comparison.yaml.")],
    root: RootOption = Path("runs"),
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file.")] = "local",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Run nothing; draw what is there.")] = False,
    as_json: JsonOption = False,
    yes: YesOption = False,
) -> None:
    """Run what is left of a comparison, then write its figure (PNG, SVG), table and HTML report."""
    from orchestrator.config.comparison import Comparison
    from orchestrator.config.site import load_site
    from orchestrator.config.study import Study
    from orchestrator.studies.comparison import ComparisonDriver, arm_study, recorded

    plan = Comparison.load(comparison)
    origin = comparison.resolve().parent
    study_path = origin / plan.study
    study = Study.load(study_path)
    if len(study.targets) > 1:
        raise UsageError(
            f"a comparison compares one objective, and study {study.name} has {len(study.targets)}",
            hint=f"name one of them as its objective: {', '.join(each.metric for each in study.targets)}",
        )
    folder = (root / plan.name).resolve()
    if draw_only:
        results = recorded(plan, folder)
    else:
        be_private()
        hold_threads()
        from orchestrator.cli.consent import announce
        from orchestrator.cli.hangup import Lasting
        from orchestrator.cli.tally import Tally
        from orchestrator.studies.forecast import forecast, total

        profile = load_site(site)
        be_nice([profile])
        found = [forecast(arm_study(study, arm), profile, root=folder, origin=study_path.parent) for arm in plan.arms()]
        for one in found:
            one.refuse()
        if profile.scheduler != "local":
            cost, new = total([one.cost for one in found]), any(one.new for one in found)
            headline = f"{plan.name} on {profile.name}: {len(found)} arms, {cost.trials} trials to come"
            announce([headline], cost, ask=new and not yes)
        goal = study.targets[0]
        expected = {arm.label: arm.trials for arm in plan.arms()}
        tally = Tally(goal.metric, maximize=goal.direction == "maximize", expected=expected)
        with Lasting(tally, log=folder / "driver.log") as display:
            driver = ComparisonDriver(
                plan,
                study,
                profile,
                root,
                origin=study_path.parent,
                on_event=lambda arm, event: display.show(event, arm=arm),
            )
            results, code = drive(driver, folder, on_hangup=display.hang_up)
        if code:
            message(
                f"{len(results)} of {len(plan.arms())} arms have results; run it again, or draw them with --draw-only"
            )
            raise typer.Exit(code)
    if not results:
        raise UsageError(f"comparison {plan.name!r} has no results below {folder}", hint="run it without --draw-only")
    written = _write(folder, results, as_json=as_json)
    for path in written:
        typer.echo(str(path), err=as_json)


def _write(folder: Path, results: Sequence[tuple[Arm, StudyRecord]], *, as_json: bool) -> list[Path]:
    from orchestrator.reports.compare import Arm as Entry
    from orchestrator.reports.compare import compare as compared
    from orchestrator.reports.figures import comparison_figure
    from orchestrator.reports.html import write_report

    arms = [
        Entry(label=arm.label, sampler=arm.series, parallel=arm.parallel, repeat=arm.repeat, record=record)
        for arm, record in results
    ]
    result = compared(arms)
    if as_json:
        emit_json({"comparison": result.to_json()})
    else:
        typer.echo(result.to_markdown())
    table = folder / "comparison.md"
    table.write_text(result.to_markdown(), encoding="utf-8")
    figures = comparison_figure(result, folder / "comparison")
    report = folder / "report.html"
    write_report(_best_arm(arms).record, report, comparison=result)
    return [*figures, table, report]


def _best_arm(arms: Sequence[ReportArm]) -> ReportArm:
    """The arm with the best trial: the one that a report shows in full."""
    sign = -1.0 if arms[0].record.directions[0] == "maximize" else 1.0

    def rank(arm: ReportArm) -> float:
        best = arm.record.best()
        return sign * best[0].values[0] if best and best[0].values else float("inf")

    return min(arms, key=rank)
