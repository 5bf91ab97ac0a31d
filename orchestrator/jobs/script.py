"""From a placement to the text of a batch script, and what goes around a trial's command.

The agent runs on the batch node itself and keeps the walltime, the memory peak and the GPUs in
view; launcher and container go around the command that it starts (`wrap_command`), so that they are
in the agent's order and not in the script.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import resources as files
from orchestrator.config.units import format_hms
from orchestrator.errors import ConfigError, UsageError
from orchestrator.schedulers.base import SchedulerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import jinja2

    from orchestrator.config.site import BatchOptions, Site
    from orchestrator.jobs.placement import Placement
    from orchestrator.model import Resources

__all__ = ["ScriptRequest", "launcher_of", "render", "scheduler_options", "wrap_command"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_PATH = re.compile(r"[A-Za-z0-9_./@+=~-]+")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*")
_LAUNCHERS = {
    # A step of srun has one core of its own unless it is told otherwise (srun(1), --cpus-per-task, since 22.05).
    "srun": "srun --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={cpus} --kill-on-bad-exit=1",
    "mpirun": "mpirun -np {nodes} --map-by ppr:1:node",
}
# Not every launcher takes the environment to the other nodes (Open MPI over ssh does not), and they name their option
# for it differently: the agent writes its variables beside the order, and each process reads them.
_WITH_ENVIRONMENT = """/bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRequest:
    """What a script is for. All paths are absolute, on the site's side.

    Attributes
    ----------
    tag : str
        The job's name.
    directories : tuple of str
        Folders of the attempts: of a packed job several, of an array job ``pack`` for each element.
    agent : str
        Path of the staged agent.
    python : str
        The interpreter that runs it.
    output_dir : str
        Where the scheduler's own output goes.
    array : int or None
        Number of elements of an array job.
    """

    tag: str
    directories: tuple[str, ...]
    agent: str
    python: str
    study: str
    output_dir: str
    array: int | None = None


def render(site: Site, placement: Placement, batch: BatchOptions, request: ScriptRequest) -> str:
    """Text of the job script.

    Raises
    ------
    UsageError
        If the site takes no array jobs, or a value cannot stand in a script.
    ConfigError
        If the template is wrong; the message has its name and the line.
    """
    if request.array is not None and not site.array_allowed:
        raise UsageError(f"site {site.name} takes no array jobs")
    for name, value in asdict(request).items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and _CONTROL.search(text):
                raise UsageError(f"a job script cannot hold the {name} {text!r}: it has a control character")
    container = () if batch.container is None else site.container.modules
    directive = site.container.directive if batch.container is not None else None
    context: dict[str, Any] = {
        "site": site,
        "batch": batch,
        "placement": placement,
        "request": request,
        "ask": _requests(site, placement, batch),
        "modules": (*site.modules, *container, *batch.modules),
        "setup": (*site.setup, *batch.setup),
        "directives": (*site.directives, *((directive,) if directive else ()), *batch.directives),
        "elements": _elements(request),
    }
    return _rendered(batch.template or site.template_name, context)


def scheduler_options(site: Site, batch: BatchOptions, *, extra: Mapping[str, str] | None = None) -> SchedulerOptions:
    """Collect what the site says to its scheduler's adaptor; ``extra`` goes over the site's own ``adaptor`` values."""
    group = site.group_of(batch)
    options = list(site.submit_options)
    if group is not None and site.group_flag is not None and site.group_on == "command-line":
        options += [word.format(group=group) for word in shlex.split(site.group_flag)]
    return SchedulerOptions(
        commands=site.commands,
        submit_options=tuple(options),
        timeout=site.command_timeout,
        history=site.history,
        extra={**site.adaptor, **(extra or {})},
    )


def wrap_command(
    batch: BatchOptions,
    site: Site,
    command: tuple[str, ...] | str,
    resources: Resources | None = None,
    *,
    binds: Sequence[str] = (),
) -> tuple[str, ...] | str:
    """``command`` with the container around it, and the launcher around both.

    Parameters
    ----------
    resources : Resources, optional
        Of the attempt: with several nodes the site's launcher starts the command, unless
        ``batch.launcher`` says otherwise.
    binds : sequence of str
        Folders that the command needs and a container does not see by itself: work root, workdir.
    """
    wrapped: tuple[str, ...] | str = command
    if batch.container is not None:
        box = batch.container
        words = [box.runtime or site.container.runtime, "exec"]
        words += ["--nv"] if box.nv else []
        for bind in dict.fromkeys((*binds, *box.binds)):
            words += ["--bind", bind]
        inner = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        wrapped = (*words, box.image, *inner)
    nodes = 1 if resources is None else resources.nodes
    launcher = launcher_of(batch, site, resources)
    if launcher is None:
        return wrapped
    text = site.launchers.get(launcher) or _LAUNCHERS.get(launcher, launcher)
    numbers = {"nodes": nodes, "gpus": 0 if resources is None else resources.gpus}
    numbers["cpus"] = 1 if resources is None else resources.cpus
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    line = ("/bin/sh", "-c", wrapped) if isinstance(wrapped, str) else wrapped
    return f"{text} {_WITH_ENVIRONMENT} {shlex.join(line)}"


def launcher_of(batch: BatchOptions, site: Site, resources: Resources | None) -> str | None:
    """What starts the command on the nodes of a job, by name or as a line; None if the agent does."""
    several = resources is not None and resources.nodes > 1
    launcher = batch.launcher or (site.launcher if several else "none")
    return None if launcher == "none" else launcher


def _requests(site: Site, placement: Placement, batch: BatchOptions) -> dict[str, str]:
    """Put what is asked of the scheduler in the site's own syntax; empty where nothing is to be asked."""
    group = site.group_of(batch)
    on_script = group is not None and site.group_on == "directive"
    return {
        "queue": site.queue_flag.format(queue=placement.queue, units=placement.units)
        if site.queue_flag and placement.queue
        else "",
        "group": site.group_flag.format(group=group) if site.group_flag and on_script else "",
        "gpus": site.gpu_syntax.format(gpus=placement.gpus) if site.gpu_syntax and placement.gpus else "",
        "cpus": site.cpu_syntax.format(cpus=placement.cpus) if site.cpu_syntax else "",
        "memory": site.memory_syntax.format(memory=placement.memory)
        if site.memory_syntax and placement.memory is not None
        else "",
        "walltime": "" if placement.walltime is None else format_hms(placement.walltime),
    }


def _elements(request: ScriptRequest) -> list[tuple[str, ...]]:
    """Attempt folders of each element of an array job."""
    if request.array is None:
        return []
    each, rest = divmod(len(request.directories), request.array)
    if rest or not each:
        raise UsageError(f"{len(request.directories)} attempts cannot be dealt out to {request.array} array elements")
    return [request.directories[start : start + each] for start in range(0, len(request.directories), each)]


def _directive(value: object, prefix: str = "") -> str:
    """Filter: text that stays one directive; ``prefix`` goes in front where the text does not bring its own.

    Another scheduler's directive is refused: it would be a comment here, and nobody would notice.
    """
    text = str(value)
    if match := _CONTROL.search(text):
        raise UsageError(f"a directive cannot hold the control character {match[0]!r}: {text!r}")
    if not prefix or text.split(None, 1)[:1] == [prefix]:
        return text
    if text.startswith("#"):
        hint = "Directives of a site and of a study may be written without their prefix."
        raise UsageError(f"this scheduler reads {prefix} lines, not {text!r}", hint=hint)
    return f"{prefix} {text}"


def _word(value: object) -> str:
    """Filter: a name that no scheduler takes apart."""
    text = str(value)
    if not _WORD.fullmatch(text):
        raise UsageError(f"a directive cannot hold the name {text!r}", hint="Letters, digits and . _ + @ - only.")
    return text


def _path(folder: object, name: str = "", *, blanks: bool = True) -> str:
    """Filter: the path of ``name`` (which may hold the scheduler's own signs) in ``folder``.

    No shell reads a directive, and each scheduler has signs of its own there (``%``, ``:``, ``,``,
    ``$``), so that a folder with one of them is refused rather than quoted in four ways.
    """
    text = str(folder)
    if not _PATH.fullmatch(text.replace(" ", "_" if blanks else "\0")):
        raise UsageError(
            f"a directive cannot hold the path {text!r}",
            hint=f"Use a folder whose path has only letters, digits{', blanks' if blanks else ''} and . _ + @ = ~ -.",
        )
    return f'"{text}{name}"' if " " in text else f"{text}{name}"


def _environment() -> jinja2.Environment:
    """Give the one environment of this process: compiling a template costs more than all else that a submit does."""
    return _environment_for(os.environ.get("HOME"), os.environ.get("XDG_CONFIG_HOME"))


@functools.lru_cache(maxsize=1)
def _environment_for(*_where_own_templates_lie: str | None) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  the output is shell, not HTML: `q` quotes
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(q=lambda value: shlex.quote(str(value)), directive=_directive, word=_word, path=_path)
    return environment


def _source(name: str) -> tuple[str, str, Callable[[], bool]] | None:
    """Read a template by name, by path, or as ``shipped/NAME`` past a user's file of the same name."""
    candidates = _candidates(name)
    place = next((place for place, path in enumerate(candidates) if os.path.isfile(path)), None)
    if place is None:
        return None
    path, before = candidates[place], candidates[:place]
    seen = os.stat(path).st_mtime_ns
    text = Path(path).read_text(encoding="utf-8")

    def unchanged() -> bool:
        # Asked for every script that is made: one stat a file, and no pathlib.
        return _changed_at(path) == seen and all(_changed_at(other) is None for other in before)

    return text, path, unchanged


def _candidates(name: str) -> tuple[str, ...]:
    """Paths that a template may have, the first that exists wins."""
    if name.startswith("shipped/"):
        return (str(files.folders("templates")[-1] / name.removeprefix("shipped/")),)
    if "/" in name:
        return (str(Path(name).expanduser()),)
    return tuple(str(folder / name) for folder in files.folders("templates"))


def _changed_at(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def _rendered(name: str, context: Mapping[str, Any]) -> str:
    import jinja2

    environment = _environment()
    try:
        return environment.get_template(name).render(context)
    except jinja2.TemplateNotFound as error:
        known = ", ".join(files.names("templates", ".sh.j2"))
        raise ConfigError(
            f"there is no template {error.name}" + ("" if error.name == name else f", which {name} extends"),
            hint=f"Templates by name: {known}. A path names a file of your own.",
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{error.filename or error.name}:{error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        hint = f"A template sees {', '.join(sorted(context))}."
        raise ConfigError(f"{_line_of(error, environment, name)}: {error.message}", hint=hint) from error
    except UsageError as error:
        raise ConfigError(f"{_line_of(error, environment, name)}: {error.message}", hint=error.hint) from error
    except Exception as error:  # a user's template can raise whatever Python can
        raise ConfigError(f"{_line_of(error, environment, name)}: {type(error).__name__}: {error}") from error


def _line_of(error: BaseException, environment: jinja2.Environment, name: str) -> str:
    """``file:line`` of the innermost template line that ``error`` came through."""
    templates = {template.filename for template in environment.cache.values()} if environment.cache else set()
    place, step = name, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in templates:
            place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return place
