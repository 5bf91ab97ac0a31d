"""The look at this installation: what it is made of, what is set up, and what this machine lets it do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import resources
from orchestrator.config.site import load_site
from orchestrator.doctor.far_side import ask, examine_folder, within
from orchestrator.doctor.findings import Finding, Level, error, of_error, ok, some, warn
from orchestrator.doctor.folders import judge_folder
from orchestrator.errors import SurveyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["EXTRAS", "examine_installation"]

_PACKAGE = "survey-orchestrator"
_PYTHON = (3, 11)

EXTRAS: Mapping[str, str] = {
    "workloads": "the workloads that ship",
    "workloads-cpu": "the workloads, on machines without a GPU",
    "workloads-gpu": "the workloads, with CUDA's libraries",
    "skopt": "the sampler skopt",
    "cmaes": "the sampler cmaes",
    "gp": "Optuna's own GP sampler",
    "report": "figures and the HTML report",
    "dashboard": "looking at a study in optuna-dashboard",
    "postgres": "a study database on PostgreSQL",
    "mysql": "a study database on MySQL or MariaDB",
    "contract": "the tests of a scheduler adaptor of your own",
    "dev": "the tests",
}
"""What each extra is for."""

_HUNG = 30.0  # seconds that a file system may take
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_SCHEDULERS: Mapping[str, str] = {
    "sbatch": "slurm",
    "pjsub": "pjm",
    "qselect": "pbs",
    "qacct": "gridengine",
    "qsub": "",
}


def examine_installation(root: Path) -> list[Finding]:
    """Look at everything but sites and studies; ``root`` is where studies would go."""
    return [
        *_python(),
        *_packages(),
        *_data(),
        *_threads(),
        *_state(root),
        *_ssh(),
        *_schedulers(),
    ]


def _python() -> list[Finding]:
    version = platform.python_version()
    if sys.version_info < _PYTHON:
        return [error("Python", f"{version} is too old", f"Install Python {_PYTHON[0]}.{_PYTHON[1]} or newer.")]
    return [ok("Python", f"{version} ({sys.executable})")]


def _packages() -> list[Finding]:
    try:
        version, asked = importlib.metadata.version(_PACKAGE), importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return [
            warn(
                "package",
                f"{_PACKAGE} runs from its source and is not installed",
                "`pip install -e .` lets its dependencies and extras be checked.",
            )
        ]
    lines = [ok("package", f"{_PACKAGE} {version} ({Path(__file__).parent.parent})")]
    by_extra: dict[str, list[str]] = {}
    for line in asked:
        need, _, marker = line.partition(";")
        marked = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        by_extra.setdefault(marked[1] if marked else "", []).append(need.strip())
    for extra, needs in by_extra.items():
        have, lack = _installed(needs)
        if not extra:
            lines.append(ok("dependencies", ", ".join(have)) if not lack else _lacking(lack))
        elif not lack:
            lines.append(ok("extra", f"{extra}, for {_purpose(extra)}: {some(have, 3)}"))
        else:
            how = f"pip install '{_PACKAGE}[{extra}]'"
            lines.append(ok("extra", f"{extra}, for {_purpose(extra)}: not installed ({some(lack, 3)}); {how}"))
    return lines


def _purpose(extra: str) -> str:
    return EXTRAS.get(extra, "what its package says")


def _lacking(lack: list[str]) -> Finding:
    return error("dependencies", f"missing or too old: {', '.join(lack)}", f"pip install --upgrade {_PACKAGE}")


def _installed(needs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which of ``needs`` are there in a version that will do, and which are not."""
    have, lack = [], []
    for need in needs:
        name = re.match(r"[\w.-]+", need)
        least = re.search(r">=\s*([\d.]+)", need)
        assert name is not None
        try:
            version = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            lack.append(name[0])
            continue
        if least is not None and _numbers(version) < _numbers(least[1]):
            lack.append(f"{name[0]} {version}, needs {least[1]}")
        else:
            have.append(f"{name[0]} {version}")
    return have, lack


def _numbers(version: str) -> tuple[int, ...]:
    parts = re.match(r"[\d.]+", version)
    return tuple(int(part) for part in parts[0].split(".") if part) if parts else ()


def _data() -> list[Finding]:
    """Templates and sites: the ones that ship, and whether a user's and the system's can be read."""
    lines: list[Finding] = []
    for kind, suffix in (("sites", ".yaml"), ("templates", ".sh.j2")):
        *own, shipped = resources.folders(kind)
        if not any(shipped.glob(f"*{suffix}")):
            lines.append(error(kind, f"none ship in {shipped}", f"Install the package again: pip install {_PACKAGE}"))
            continue
        found = [path for folder in own if folder.is_dir() for path in sorted(folder.glob(f"*{suffix}"))]
        lines.append(
            ok(kind, f"{len(resources.names(kind, suffix))}, of which {len(found)} of your own or the system's")
        )
        for path in found:
            try:
                if kind == "sites":
                    load_site(path)
                else:
                    _parse(path)
            except SurveyError as failure:
                lines.append(of_error(kind, failure, f"Mend {path}, or move it away."))
            except OSError as failure:
                lines.append(error(kind, f"{path} cannot be read: {failure.strerror}", "Mend its permissions."))
    return lines


def _parse(path: Path) -> None:
    import jinja2

    try:
        jinja2.Environment(autoescape=False).parse(path.read_text(encoding="utf-8"))  # noqa: S701 - shell, never rendered
    except jinja2.TemplateSyntaxError as failure:
        raise SurveyError(f"{path}:{failure.lineno}: {failure.message}") from failure
    except UnicodeDecodeError as failure:
        raise SurveyError(f"{path} is not UTF-8: {failure}") from failure


def _threads() -> list[Finding]:
    cpus = len(os.sched_getaffinity(0))
    told = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    mine = f"{cpus} CPUs; the driver holds its linear algebra to 1 thread"
    return [
        ok("threads", f"{mine}, jobs get {', '.join(told)} of this shell" if told else f"{mine}, jobs have their own")
    ]


def _state(root: Path) -> list[Finding]:
    """The folder of studies, and the one where a user's drivers share their limits: room, rename, locks."""
    import platformdirs

    lines: list[Finding] = []
    state = Path(platformdirs.user_state_dir(resources.APP))
    for subject, folder in (("studies", root.resolve()), ("state", state)):
        facts: dict[str, Any] | None = within(_HUNG, {"facts": _examining(folder)})["facts"]
        found = judge_folder(facts, site="local", batch=False, database=True)
        wrong = [line for line in found if line.level is not Level.OK]
        if facts is not None and not wrong:
            room = next(line.text for line in found if line.subject == "space")
            where = f"{folder} on {facts['mount']['kind'] or 'a file system of unknown kind'}"
            lines.append(ok(subject, f"{where}: rename and locks work; {room}"))
            lines += [ok(subject, f"quota: {line.text}") for line in found if line.subject == "quota"]
        for line in wrong:
            text = line.text.removeprefix("site local: ")
            what = "" if line.subject == "work root" else f"{folder}: {line.subject}: "
            lines.append(Finding(level=line.level, subject=subject, text=what + text, hint=_here(line.hint, subject)))
    return lines


def _examining(folder: Path) -> Callable[[], Any]:
    return lambda: examine_folder(str(folder))


def _here(hint: str, subject: str) -> str:
    """The hint for a folder of this machine: no site file names it."""
    if "work_root" not in hint:
        return hint
    return (
        "Name another folder: --root."
        if subject == "studies"
        else "Set XDG_STATE_HOME to a folder that can be written."
    )


def _ssh() -> list[Finding]:
    if shutil.which("ssh") is None:
        return [warn("ssh", "not found", "Remote sites need it (kind: openssh); `kind: paramiko` goes without.")]
    answer = ask(["ssh", "-V"], 10.0)
    version = (answer["stderr"] + answer["stdout"]).strip().splitlines()
    if answer["returncode"] != 0 or not version:
        return [warn("ssh", "`ssh -V` does not answer", "Try it by hand; remote sites need it (kind: openssh).")]
    return [ok("ssh", version[0])]


def _schedulers() -> list[Finding]:
    seen = [name for name in _SCHEDULERS if shutil.which(name)]
    if not seen:
        return [ok("schedulers", "none on PATH; studies run on this machine (--site local) or on a remote site")]
    sites = list(dict.fromkeys(_SCHEDULERS[name] for name in seen if _SCHEDULERS[name])) or ["pbs", "gridengine"]
    how = f"`survey doctor --site {sites[0]}`" + "".join(f", or {site}" for site in sites[1:])
    return [ok("schedulers", f"{', '.join(seen)} on PATH; see `survey sites`, then {how}")]
