"""``survey doctor``: whether this installation, a site or a study is well, and what to do where it is not."""

from __future__ import annotations

import asyncio
import getpass
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.login import AcceptOption, accepting
from orchestrator.cli.output import emit_json, message, wants_color
from orchestrator.cli.target import JsonOption, RootOption, find_folder
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.site import BatchOptions, Site
    from orchestrator.doctor.findings import Finding

__all__ = ["doctor"]

_COLORS = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "ERROR": typer.colors.RED}
_WIDEST = 100
_SUBJECT = 14  # columns of the longest subject that the others are aligned with


def doctor(
    study: Annotated[str, typer.Argument(help="A study's folder, its name under the root, or its study.yaml.")] = "",
    root: RootOption = Path("runs"),
    site: Annotated[str, typer.Option("--site", help="Look at this site: a name or a site file.")] = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Submit a tiny job too, and look from a compute node.")
    ] = False,
    queue: Annotated[str, typer.Option("--queue", help="Queue of the probe; the cheapest that fits if left out.")] = "",
    group: Annotated[str, typer.Option("--group", help="Group, project or account that is charged.")] = "",
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs of the probe; by itself 1 where the queue has some.")] = -1,
    wait: Annotated[str, typer.Option("--probe-wait", help="How long the probe may take.")] = "10m",
    record: Annotated[
        Path | None, typer.Option("--record", help="Save the raw answers, without secrets, in this new folder.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make a study's lost or damaged database again from its attempt files.")
    ] = False,
    as_json: JsonOption = False,
    accept_host_key: AcceptOption = "",
) -> None:
    """Look at this installation, at a site (--site), or at a study; say what is not well and what to do."""
    if site and study:
        raise UsageError("one thing at a time: a study, or --site", hint="survey doctor --help")
    if not site and (probe or record or queue or group or gpus >= 0 or accept_host_key):
        raise UsageError(
            "--probe, --record, --queue, --group, --gpus and --accept-host-key go with --site", hint="Name a site."
        )
    if rebuild and not study:
        raise UsageError("--rebuild goes with a study", hint="survey doctor STUDY --rebuild")
    if site:
        from orchestrator.config.site import load_site

        subject, findings = _look_at_site(
            accepting(load_site(site), accept_host_key),
            root,
            probe=probe,
            batch=(queue, group),
            gpus=gpus,
            wait=wait,
            record=record,
        )
    elif study:
        from orchestrator.doctor.study import examine_study

        folder = find_folder(study, root)
        if rebuild:
            _rebuild(folder)
        subject, findings = f"study in {folder}", examine_study(folder, now=time.time())
    else:
        from orchestrator.doctor.installation import examine_installation

        subject, findings = "this installation", examine_installation(root)
    _show(subject, findings, as_json=as_json)


def _rebuild(folder: Path) -> None:
    """Make the study's database again, and say what became of it."""
    from orchestrator.doctor.mending import rebuild_study

    made = rebuild_study(folder, now=time.time())
    if made is None:
        message("nothing to rebuild: the database is whole and agrees with the attempt files")
        return
    shown = ", ".join(f"{count} {state}" for state, count in made.trials.items()) or "no trials"
    message(f"{made.place} was made again: {shown}")
    if made.unknown:
        message(f"nothing is known of trials {', '.join(map(str, made.unknown))}: they are asked for again")
    if made.kept:
        message(f"the old one is kept: {made.kept}")


def _look_at_site(
    profile: Site, root: Path, *, probe: bool, batch: tuple[str, str], gpus: int, wait: str, record: Path | None
) -> tuple[str, list[Finding]]:
    from pydantic import TypeAdapter, ValidationError

    from orchestrator.config.site import BatchOptions
    from orchestrator.config.units import Duration
    from orchestrator.doctor.record import check_folder

    queue, group = batch
    try:
        patience = TypeAdapter(Duration).validate_python(wait)
        options = BatchOptions(queue=queue or None, group=group or None)
    except ValidationError as failure:
        words = failure.errors()[0]
        raise UsageError(f"--probe-wait, --queue or --group: {words['msg']}, found {words['input']!r}") from failure
    if record is not None:
        check_folder(record)
    findings = asyncio.run(_ask(profile, root, options, probe=probe, gpus=gpus, patience=patience, record=record))
    kind = "" if profile.transport.kind == "local" else f", by {profile.transport.kind}"
    return f"site {profile.name} ({profile.scheduler}{kind})", findings


async def _ask(
    site: Site, root: Path, batch: BatchOptions, *, probe: bool, gpus: int, patience: float, record: Path | None
) -> list[Finding]:
    from orchestrator.clock import SystemClock
    from orchestrator.doctor.findings import error
    from orchestrator.doctor.site import SiteCheck

    message(f"asking {site.name}, which may take a minute ...")
    check = SiteCheck(site=site, root=root, batch=batch, clock=SystemClock(), record=record is not None)
    try:
        await check.run()
        if probe and check.usable:
            from orchestrator.doctor.probe import Probe, wanted_gpus

            message("waiting for the probe job ...")
            await Probe(check=check, gpus=gpus if gpus >= 0 else wanted_gpus(check), patience=patience).run()
        elif probe:
            check.findings.append(error("probe", "not submitted", "Mend what is wrong first."))
    finally:
        if check.transport is not None:
            await check.transport.close()
    if record is not None:
        from orchestrator.doctor.record import Redactor, write_record

        people = {
            getpass.getuser(),
            check.names.get("user", ""),
            site.transport.user or "",
            batch.group or "",
            site.group or "",
        }
        redact = Redactor(people=people, places={str(Path.home()), check.names.get("home", "")})
        count = write_record(record, site=site, findings=check.findings, answers=check.answers, redact=redact)
        message(f"{count} answers saved in {record}; read them before you send them to anybody")
    return check.findings


def _show(subject: str, findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings, on stdout; ends with the exit code that they mean."""
    from orchestrator.doctor.findings import Level, exit_code

    counts = {str(level): sum(finding.level is level for finding in findings) for level in Level}
    if as_json:
        lines = [
            {"level": str(line.level), "subject": line.subject, "text": line.text, "hint": line.hint}
            for line in findings
        ]
        emit_json({"looked_at": subject, "counts": counts, "findings": lines})
    else:
        typer.echo(subject)
        for line in _lines(findings, min(shutil.get_terminal_size().columns, _WIDEST)):
            typer.echo(line, color=True)
        message(", ".join(f"{count} {level}" for level, count in counts.items()))
    raise typer.Exit(exit_code(findings))


def _lines(findings: Sequence[Finding], columns: int) -> Iterable[str]:
    color = wants_color(sys.stdout)
    wide = min(max((len(finding.subject) for finding in findings), default=0), _SUBJECT)
    blank = " " * (len("  ERROR ") + wide + 2)
    for finding in findings:
        level = f"{finding.level:5}"
        level = typer.style(level, fg=_COLORS[finding.level], bold=finding.level != "OK" or None) if color else level
        text = _wrapped(finding.text, columns - len(blank))
        yield f"  {level} {finding.subject:{wide}}  {text[0]}"
        yield from (f"{blank}{line}" for line in text[1:])
        if finding.hint:
            hint = _wrapped(finding.hint, columns - len(blank) - 3)
            yield f"{blank}-> {hint[0]}"
            yield from (f"{blank}   {line}" for line in hint[1:])


def _wrapped(text: str, columns: int) -> list[str]:
    # Paths and commands stay in one piece: they are there to be copied.
    return textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False) or [""]
