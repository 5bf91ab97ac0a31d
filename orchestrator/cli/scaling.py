"""``survey scaling``: the same trials on more and more nodes, GPUs or threads, and what that gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.manners import be_nice, be_private, hold_threads
from orchestrator.cli.output import emit_json, message
from orchestrator.cli.run import YesOption, drive
from orchestrator.cli.target import JsonOption, RootOption
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.config.study import Study
    from orchestrator.store.record import StudyRecord

__all__ = ["scaling"]


def scaling(
    study: Annotated[Path, typer.Argument(help="study.yaml.")],
    counts: Annotated[list[int], typer.Argument(help="How many: 1 2 4 8; the smallest is what is compared with.")],
    over: Annotated[
        str, typer.Option("--over", help="What is counted: nodes, gpus, threads, or an environment variable.")
    ] = "nodes",
    trials: Annotated[int, typer.Option("--trials", "-n", min=1, help="Trials on each count, the same on all.")] = 3,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Fix a parameter; may be repeated.")
    ] = None,
    time: Annotated[str, typer.Option("--time", help="The metric that is a trial's time.")] = "train_seconds",
    root: RootOption = Path("runs"),
    site: Annotated[str, typer.Option("--site", help="A site's name or a site file.")] = "local",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Run nothing; draw what is there.")] = False,
    as_json: JsonOption = False,
    yes: YesOption = False,
) -> None:
    """Run what is left of a scaling study, then write speed-up, efficiency and quality as a table and a figure."""
    from orchestrator.config.study import Study
    from orchestrator.studies.scaling import arm_study, check_axis, folder_of, recorded

    check_axis(over, counts)
    definition = Study.load(study)
    if len(definition.targets) > 1:
        raise UsageError(
            f"a scaling study shows one objective, and study {definition.name} has {len(definition.targets)}",
            hint=f"name one of them as its objective: {', '.join(each.metric for each in definition.targets)}",
        )
    folder = folder_of(definition, over, root)
    counts = sorted(counts)
    if draw_only:
        results = recorded(over, counts, folder)
    else:
        from orchestrator.config.site import load_site

        alone = load_site(site).scheduler == "local"
        values = _values(settings or [])
        arms = {
            count: arm_study(definition, over, count, trials=trials, settings=values, alone=alone) for count in counts
        }
        results = _run(definition, arms, site, folder, origin=study.resolve().parent, ask=not yes)
    if not results:
        raise UsageError(
            f"study {definition.name!r} has not been scaled below {folder}", hint="run without --draw-only"
        )
    for path in _write(folder, results, over=over, time=time, as_json=as_json):
        typer.echo(str(path), err=as_json)


def _values(settings: Sequence[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting!r} is not of the form name=value")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            values[name] = text
        if isinstance(values[name], str):
            # YAML takes 1e-3 for text.
            try:
                values[name] = float(text)
            except ValueError:
                values[name] = text
    return values


def _run(
    study: Study, arms: Mapping[int, Study], site: str, folder: Path, *, origin: Path, ask: bool
) -> dict[int, StudyRecord]:
    """Drive what is left of ``arms``; ends the program where it was interrupted."""
    be_private()
    hold_threads()
    from orchestrator.cli.consent import announce
    from orchestrator.cli.hangup import Lasting
    from orchestrator.cli.tally import Tally
    from orchestrator.config.site import load_site
    from orchestrator.studies.forecast import forecast, total
    from orchestrator.studies.scaling import ScalingDriver

    profile = load_site(site)
    be_nice([profile])
    found = [forecast(arm, profile, root=folder, origin=origin) for arm in arms.values()]
    for one in found:
        one.refuse()
    if profile.scheduler != "local":
        cost, new = total([one.cost for one in found]), any(one.new for one in found)
        headline = f"{folder.name} on {profile.name}: {len(arms)} counts, {cost.trials} trials to come"
        announce([headline], cost, ask=new and ask)
    goal = study.targets[0]
    expected = {arm.name: arm.trials for arm in arms.values()}
    tally = Tally(goal.metric, maximize=goal.direction == "maximize", expected=expected)
    with Lasting(tally, log=folder / "driver.log") as display:
        driver = ScalingDriver(
            arms, profile, folder, origin=origin, on_event=lambda arm, event: display.show(event, arm=arm)
        )
        results, code = drive(driver, folder, on_hangup=display.hang_up)
    if code:
        message(f"{len(results)} of {len(arms)} counts have results; run it again, or draw them with --draw-only")
        raise typer.Exit(code)
    return results


def _write(folder: Path, results: Mapping[int, StudyRecord], *, over: str, time: str, as_json: bool) -> list[Path]:
    from orchestrator.reports.scaling import scaling as scaled
    from orchestrator.reports.scaling import scaling_figure

    result = scaled(results, over=over, time=time)
    if as_json:
        emit_json({"scaling": result.to_json()})
    else:
        typer.echo(result.to_markdown())
    table = folder / "scaling.md"
    table.write_text(result.to_markdown(), encoding="utf-8")
    return [*scaling_figure(result, folder / "scaling"), table]
