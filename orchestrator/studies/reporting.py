"""Whether the program of a study's trials can be seen to report nothing, so that its pruner would have nothing to judge."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.config.study import Study

__all__ = ["why_mute"]

_REPORTS = re.compile(r"report\(|import report|SURVEY_PROGRESS|progress\.jsonl|checkpoint_callback")
_LARGEST = 1 << 20


def why_mute(study: Study, workdir: Path) -> str:
    """Why the study's pruner will find no reports, as far as the program's own files tell; empty if they do not."""
    if study.pruner is None:
        return ""
    name = study.pruner.name
    if any(rule.metric == target.metric for rule in study.read for target in study.targets):
        return (
            f"pruner {name} judges trials by what they report on the way; of a program whose objective is read from its"
            " output (`read`) nothing is known before its end, unless it appends to $SURVEY_PROGRESS"
        )
    files = [path for path in _files(study, workdir) if path.is_file() and path.stat().st_size <= _LARGEST]
    if not files or any(_REPORTS.search(path.read_text("utf-8", "replace")) for path in files):
        return ""
    named = ", ".join(path.name for path in files)
    return (
        f"pruner {name} judges trials by what they report on the way, and nothing in {named} does"
        " (trial.report, or lines in $SURVEY_PROGRESS), unless something that it calls does"
    )


def _files(study: Study, workdir: Path) -> list[Path]:
    """Files below the working folder that the command names, as words or as Python modules."""
    try:
        words = shlex.split(study.command) if isinstance(study.command, str) else list(study.command)
    except ValueError:  # a line for the shell with a quote that is none to it
        return []
    names = [word.partition(":")[0].replace(".", "/") + ".py" for word in words if ":" in word]
    return [workdir / name for name in (*words, *names) if name.endswith((".py", ".sh", ".R", ".jl", ".pl"))]
