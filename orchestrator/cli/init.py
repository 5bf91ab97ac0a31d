"""``survey init``: a study.yaml to begin with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import message
from orchestrator.errors import UsageError

__all__ = ["init"]


def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or a folder for it.")] = Path("study.yaml"),
    example: Annotated[str, typer.Option("--example", help="A study that runs as it is: digits.")] = "",
    name: Annotated[str, typer.Option("--name", help="The study's name; the example's or the folder's.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a commented study.yaml to begin with, and the JSON Schema that editors check it against."""
    from orchestrator.config.study import Study, json_schema
    from orchestrator.config.template_study import SCHEMA_FILE, study_template

    target = path if path.suffix in {".yaml", ".yml"} and not path.is_dir() else path / "study.yaml"
    text = study_template(name or example or _named_after(target.resolve().parent), example=example)
    _write(target, text, force=force)
    schema = target.parent / SCHEMA_FILE
    # Ours to refresh: it says what this version reads.
    _write(schema, json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", force=True)
    study = Study.load(target)
    message(f"wrote {target} (study {study.name}) and {schema}")
    message(f"next: survey check {target}" if example else f"next: edit {target}, then survey check {target}")


def _named_after(folder: Path) -> str:
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")
    return word[:64] or "my-study"


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        if not force and path.exists():
            raise UsageError(f"{path} exists already", hint="name another file, or overwrite it with --force")
        path.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise UsageError(f"{path} cannot be written: {failure.strerror or failure}") from failure
