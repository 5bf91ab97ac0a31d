"""``survey schema``: the JSON Schema of study.yaml, for editors and other programs."""

from __future__ import annotations

import json

import typer

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON Schema of study.yaml.

    Editors that know YAML check and complete a file that names it in its first line, as the one from
    `survey init` does.
    """
    from orchestrator.config.study import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
