"""What the packages import is what pyproject.toml declares."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = {"orchestrator", "workloads"}
# Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "keras": "tensorflow",
    # What a dependency is made of and shows in its own interface; its version is that dependency's to say.
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
    "sqlalchemy": "optuna",
    "optuna_dashboard": "optuna-dashboard",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "yaml": "pyyaml",
}
# Imported by tests of adaptors, by nothing of ours: it needs the extra `contract`.
SUITE = "orchestrator/schedulers/contract.py"


def declared() -> tuple[set[str], set[str]]:
    """Distributions of the core, and those of the extras that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0].lower() for line in lines}

    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "dev"}
    return names(project["dependencies"]), {each for lines in extras.values() for each in names(lines)}


def imports(node: ast.AST, *, late: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Each import below ``node``: module, whether it happens late (in a function) or never at run time, line."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, late, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module, late, child.lineno
        else:
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, late=late or typing_only or function)


@functools.cache
def foreign(package: str) -> tuple[tuple[str, bool, str], ...]:
    """Imports of ``package`` that are neither ours nor Python's: distribution, whether late, where."""
    return tuple(_foreign(package))


def _foreign(package: str) -> Iterator[tuple[str, bool, str]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        for module, late, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top not in OWN and top not in sys.stdlib_module_names:
                yield DISTRIBUTIONS.get(top, top), late, f"{path.relative_to(ROOT)}:{line}"


def test_what_the_orchestrator_imports_at_once_is_a_dependency_of_its_core() -> None:
    core, _ = declared()
    missing = [
        f"{where} imports {name}"
        for name, late, where in foreign("orchestrator")
        if not late and name not in core and where.partition(":")[0] != SUITE
    ]
    assert missing == []


@pytest.mark.parametrize("package", sorted(OWN))
def test_whatever_is_imported_is_a_dependency_or_an_extra(package: str) -> None:
    core, extras = declared()
    missing = [f"{where} imports {name}" for name, _, where in foreign(package) if name not in core | extras]
    assert missing == []


def test_what_goes_to_the_compute_nodes_imports_nothing_foreign() -> None:
    staged = {"orchestrator/agent.py", "orchestrator/trial.py", "orchestrator/localq.py"}
    assert [where for _, _, where in foreign("orchestrator") if where.partition(":")[0] in staged] == []
