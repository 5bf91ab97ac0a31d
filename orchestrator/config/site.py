"""A site: a cluster as data, and what one study may say about its batch jobs.

``sites/*.yaml`` are instances of `Site`; a user's file with ``extends: NAME`` changes single keys of
another. `BatchOptions` is the ``batch:`` part of study.yaml. Whatever becomes a directive is refused
here already if it holds a line break or another control character.
"""

from __future__ import annotations

import getpass
import re
import string
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from orchestrator import resources
from orchestrator.config.loading import did_you_mean, load_data
from orchestrator.config.overlay import merge
from orchestrator.config.units import Duration, MemorySize, Walltime
from orchestrator.errors import ConfigError, UsageError

__all__ = [
    "BatchContainer",
    "BatchOptions",
    "Limits",
    "Poll",
    "Queue",
    "Site",
    "SiteContainer",
    "Transport",
    "load_site",
]

# Tabs are welcome in shell, not in directives.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _one_line(text: str) -> str:
    if match := _CONTROL.search(text):
        raise ValueError(f"must be one line without control characters, found {match[0]!r} in {text!r}")
    return text


def _shell(text: str) -> str:
    _one_line(text.replace("\t", " "))
    return text


def _lines(value: object) -> object:
    """Split a block of shell into its lines, so that each can be written on a line of its own."""
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, list):
        return [line for item in value for line in (item.splitlines() if isinstance(item, str) else [item])]
    return value


Line: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@:-]*$", max_length=128)]
Lines: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(_shell)], ...], BeforeValidator(_lines)]
Evidence: TypeAlias = Literal["documented", "assumed", "own"]


def _syntax(*names: str) -> AfterValidator:
    """Check that a piece of directive holds the first of ``names`` in braces, and no placeholder but them."""

    def check(text: str) -> str:
        found = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        if names[0] not in found or not found <= set(names):
            raise ValueError(
                f"must hold {{{names[0]}}} and no placeholder but {{{'}, {'.join(names)}}}, found {text!r}"
            )
        return text

    return AfterValidator(check)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Queue(_Frozen):
    """A queue, partition, resource group or resource type, or one row of it where its limits depend on size.

    A **unit** is what the queue hands out: a whole ``node``; a ``gpu`` with its share of cores and
    memory; a ``fraction`` of a node of fixed size; or a ``share`` of a node cut to the request, where
    the numbers per unit are those of the whole node.
    """

    name: Name
    unit: Literal["node", "gpu", "fraction", "share"]
    gpus_per_unit: int = Field(default=0, ge=0)
    cores_per_unit: int | None = Field(default=None, ge=1)
    memory_per_unit: MemorySize | None = None
    min_units: int = Field(default=1, ge=1)
    max_units: int | None = Field(default=None, ge=1)
    max_walltime: Walltime | None = None
    default_walltime: Walltime | None = None
    weight: float = Field(default=1.0, ge=0, description="What a unit costs per hour, in the site's own measure.")
    only_by_name: bool = Field(default=False, description="Never chosen unless the study names it (debug queues).")
    note: str = ""


# Words that stand in a command line: none may look like an option, nor need quotes in any shell.
Host: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]*$", max_length=255)]
Hop: TypeAlias = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]*$")]
Plain: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./+~][A-Za-z0-9_./+~-]*$")]
Fingerprint: TypeAlias = Annotated[str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]


class Transport(_Frozen):
    """How commands and files reach the site."""

    kind: Literal["local", "openssh", "paramiko"] = Field(
        default="local", description="openssh: the system's ssh, one login for all; paramiko: keys and agent alone."
    )
    host: Host | None = Field(default=None, description="Login node: a name, or an alias of ~/.ssh/config.")
    user: Name | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    jump: tuple[Hop, ...] = Field(
        default=(),
        description="[user@]host[:port] of the hosts on the way, nearest first; else ~/.ssh/config's ProxyJump.",
    )
    identity_file: Line | None = Field(default=None, description="Private key, in place of ~/.ssh/config's.")
    config_file: Line | None = Field(default=None, description="In place of ~/.ssh/config.")
    known_hosts: Line | None = Field(default=None, description="In place of ~/.ssh/known_hosts; paramiko only.")
    accepted_host_keys: tuple[Fingerprint, ...] = Field(
        default=(), description="Unknown hosts that show one of these keys are accepted; paramiko only."
    )
    control_path: Line | None = Field(default=None, description="Socket of the shared connection; openssh only.")
    control_persist: Duration = Field(
        default=8 * 3600.0, description="How long an idle connection stays; openssh only."
    )
    python: Plain = Field(default="python3", description="Python 3.6 or newer on the login node.")
    shell: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./+-]+( -l)?$")] = Field(
        default="/bin/sh", description="Bourne shell there; `/bin/bash -l` where PATH is set by the login files."
    )
    connect_timeout: Duration = 30.0
    reconnect_interval: Duration = Field(default=15.0, ge=15, description="Least time between two connections.")
    channels: int = Field(default=3, ge=1, le=8, description="Requests at a time; servers allow 10 by default.")

    def _changed(self) -> set[str]:
        # By value, not by whether it was written: a profile that was written out whole must read back.
        fields = type(self).model_fields
        return {name for name in self.model_fields_set if getattr(self, name) != fields[name].get_default()}

    @model_validator(mode="after")
    def _whole(self) -> Transport:
        if self.kind == "local":
            if extra := sorted(self._changed() - {"kind"}):
                raise ValueError(f"{extra[0]} has no meaning with kind: local; set kind: openssh or paramiko")
        elif self.host is None:
            raise ValueError(f"kind: {self.kind} needs a host")
        ours = {"openssh": ("control_path", "control_persist"), "paramiko": ("known_hosts", "accepted_host_keys")}
        for kind, keys in ours.items():
            for key in keys:
                if self.kind not in ("local", kind) and key in self._changed():
                    raise ValueError(f"{key} has no meaning with kind: {self.kind}")
        return self


class Poll(_Frozen):
    """Seconds between looks at the attempts' files, and between queries of the scheduler."""

    look: Duration = 5.0
    query_min: Duration = 60.0
    query_max: Duration = 300.0

    @model_validator(mode="after")
    def _ordered(self) -> Poll:
        if self.query_min > self.query_max:
            raise ValueError("query_min is longer than query_max")
        return self


class Limits(_Frozen):
    """What the site bears of one user."""

    queued: int | None = Field(default=None, ge=1, description="Jobs in the queue at a time, running ones included.")
    submits_per_minute: float = Field(default=20.0, gt=0, description="Over all of the user's studies on this machine.")
    queries_per_minute: float = Field(default=2.0, gt=0, description="Over all of the user's studies on this machine.")
    array_size: int = Field(default=1000, ge=2, description="Most elements of an array job (Slurm: MaxArraySize).")


class SiteContainer(_Frozen):
    """What a job needs on this site before it can run a container."""

    runtime: Literal["apptainer", "singularity"] = "apptainer"
    directive: Line | None = None
    modules: tuple[Line, ...] = ()


class Site(_Frozen):
    """A cluster as data. Times are seconds, memory is MiB."""

    schema_version: Literal[1] = 1
    name: Name
    description: str = ""
    extends: str | None = Field(default=None, description="Site whose values hold where this file says nothing.")
    scheduler: Name
    template: str | None = Field(default=None, description="File in templates/; <scheduler>.sh.j2 if not given.")
    transport: Transport = Transport()

    commands: dict[Name, Line] = Field(default={}, description="Paths for the scheduler's commands.")
    submit_options: tuple[Line, ...] = Field(default=(), description="Words added to every submit command line.")
    adaptor: dict[Name, Line] = Field(default={}, description="What only this scheduler's adaptor understands.")
    command_timeout: Duration = 60.0
    history: bool = Field(default=True, description="Whether the site keeps finished jobs for queries.")

    group: Name | None = None
    group_flag: Annotated[Line, _syntax("group")] | None = None
    group_on: Literal["directive", "command-line"] = "directive"
    group_required: bool = False
    queue_flag: Annotated[Line, _syntax("queue", "units")] | None = None
    gpu_syntax: Annotated[Line, _syntax("gpus")] | None = None
    cpu_syntax: Annotated[Line, _syntax("cpus")] | None = None
    memory_syntax: Annotated[Line, _syntax("memory")] | None = None
    directives: tuple[Line, ...] = Field(default=(), description="Further directives, with or without the prefix.")

    python: Line | None = Field(
        default="python3", description="For the agent on compute nodes; null: the driver's own."
    )
    work_root: Line | None = Field(
        default=None, description="null: the driver's root. {user}, {group}, {home} are filled."
    )
    work_root_hint: str = ""
    environment_policy: Literal["clean", "inherit"] = Field(
        default="clean", description="Whether the job inherits the environment of the shell that started the driver."
    )
    module_init: Line | None = None
    modules: tuple[Line, ...] = ()
    setup: Lines = ()
    container: SiteContainer = SiteContainer()
    launcher: Line = Field(default="mpirun", description="Starts the command where a trial takes several nodes.")
    launchers: dict[Name, Line] = Field(default={}, description="What a launcher's name stands for on this site.")

    poll: Poll = Poll()
    settle: Duration = Field(default=120.0, description="For how long a submit of unknown outcome is looked up.")
    grace: Duration = Field(default=270.0, description="How long a job is absent without a result before it is lost.")
    kill_grace: Duration = 10.0
    margin: Duration = Field(default=120.0, description="How long before the walltime the program is told to stop.")
    limits: Limits = Limits()
    array_allowed: bool = False
    max_nodes: int | None = Field(default=None, ge=1, description="Most nodes of a job, whatever the queue.")
    cpu_arch: Literal["x86_64", "aarch64"] = "x86_64"
    status_banner: str | None = Field(default=None, description="Regular expression of a notice of the next stop.")
    queues: tuple[Queue, ...] = ()
    notes: str = ""
    sources: tuple[str, ...] = Field(default=(), description="Where the documented values were read.")
    evidence: dict[str, Evidence] = Field(
        default={},
        description='Per dotted key: "documented" by the site itself, "assumed" from other scripts, or "own".',
    )

    @field_validator("status_banner")
    @classmethod
    def _a_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value

    @field_validator("work_root")
    @classmethod
    def _a_place(cls, value: str | None) -> str | None:
        if value is not None:
            found = {field for _, field, _, _ in string.Formatter().parse(value) if field is not None}
            if not found <= {"user", "group", "home"}:
                raise ValueError(f"may hold {{user}}, {{group}} and {{home}} only, found {value!r}")
            if not value.startswith(("/", "{home}")):
                raise ValueError(f"must be an absolute path, found {value!r}")
        return value

    @model_validator(mode="after")
    def _evidence_is_about_something(self) -> Site:
        for key in self.evidence:
            if key.split(".")[0] not in type(self).model_fields:
                hint = did_you_mean(key, type(self).model_fields)
                raise ValueError(f"evidence: {key} is no key of a site{'; ' if hint else ''}{hint}")
        return self

    @property
    def interpreter(self) -> str:
        """The Python that runs the agent on the compute nodes."""
        return self.python or sys.executable

    @property
    def template_name(self) -> str:
        """The template that a job script is made from."""
        return self.template or f"{self.scheduler}.sh.j2"

    def group_of(self, batch: BatchOptions) -> str | None:
        """Say which group is charged.

        Raises
        ------
        UsageError
            If the site takes no job without a group and none is set.
        """
        group = batch.group or self.group
        if group is None and self.group_required:
            raise UsageError(
                f"site {self.name} takes no job without a group ({self.group_flag})",
                hint="Set `batch: group:` in study.yaml, or `group:` in a site file of your own.",
            )
        return group

    def resolved_work_root(
        self,
        root: Path,
        study: str,
        *,
        group: str | None = None,
        user: str | None = None,
        home: str | None = None,
    ) -> str:
        """Folder of ``study`` on the site: below ``work_root``, or below the driver's ``root``.

        ``user`` and ``home`` are the site's, where they are not this machine's.
        """
        if self.work_root is None:
            return str(root.resolve() / study)
        group = group or self.group
        if group is None and "{group}" in self.work_root:
            raise UsageError(
                f"site {self.name}: work_root is {self.work_root}, and no group is set",
                hint="Set `batch: group:` in study.yaml, or `group:` in a site file of your own.",
            )
        filled = self.work_root.format(user=user or getpass.getuser(), group=group, home=home or Path.home())
        return f"{filled.rstrip('/')}/{study}"

    def evidence_of(self, key: str) -> Evidence | None:
        """How far the value of the dotted ``key`` can be trusted; the nearest key around it counts."""
        while key:
            if key in self.evidence:
                return self.evidence[key]
            key = key.rpartition(".")[0]
        return None

    def to_yaml(self) -> str:
        """Write the site, complete and without ``extends``, as a file that `load_site` reads back.

        Behind each value stands in a comment whether it is documented, assumed or a default of ours.
        """
        from orchestrator.config.evidence import site_text

        return site_text(self)


class BatchContainer(_Frozen):
    """The container that the command runs in."""

    image: Line
    runtime: Literal["apptainer", "singularity"] | None = Field(default=None, description="null: what the site has.")
    nv: bool = Field(default=True, description="Whether the GPUs are passed into the container (--nv).")
    binds: tuple[Line, ...] = Field(default=(), description="Further folders to bind, as the runtime spells them.")


class BatchOptions(_Frozen):
    """The ``batch:`` part of study.yaml: what the study's jobs want of the site."""

    queue: Name | None = Field(default=None, description="null: the cheapest that fits.")
    group: Name | None = Field(default=None, description="Group, project or account that is charged.")
    modules: tuple[Line, ...] = Field(default=(), description="Modules to load, after the site's own.")
    setup: Lines = Field(default=(), description="Shell lines that run before the command, such as activating a venv.")
    directives: tuple[Line, ...] = Field(default=(), description="Further directives, with or without the prefix.")
    launcher: Line | None = Field(
        default=None, description="none, mpirun, srun, or a command line with {nodes}, {gpus}, {cpus} of a node."
    )
    container: BatchContainer | None = None
    template: Line | None = Field(default=None, description="Path or name of a template to use in place of the site's.")
    pack: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default=1, description="Attempts per job, side by side; auto fills a whole node."
    )
    pack_wait: Duration = Field(
        default=60.0, description="How long the first attempt of a packed job waits for others before it goes alone."
    )
    array: Literal["auto"] | bool = Field(
        default="auto",
        description="Array jobs for jobs that are ready together; auto: for 4 and more, if the site allows.",
    )


def load_site(name_or_path: str | Path) -> Site:
    """Load a site by its name (the user's own, the system's, or one that ships) or by the path of its file.

    Raises
    ------
    UsageError
        If there is no such site; `ConfigError` if its file is wrong.
    """
    return _load(str(name_or_path), seen=())


def _load(name: str, seen: tuple[Path, ...]) -> Site:
    from pydantic import ValidationError

    from orchestrator.config.evidence import own_keys
    from orchestrator.config.mistakes import config_error

    path = _path_of(name, seen)
    data, lines = load_data(path, kind="site")
    below = data.get("extends")
    base: dict[str, Any] = {}
    if isinstance(below, str):
        base = _load(below, (*seen, path)).model_dump(mode="json", exclude_unset=True, exclude={"extends"})
    merged, lines = merge(base, data, lines)
    if base.get("evidence") and "evidence" not in data:
        merged["evidence"] = {**base["evidence"], **dict.fromkeys(own_keys(data, Site.model_fields), "own")}
    try:
        return Site.model_validate(merged)
    except ValidationError as error:
        raise config_error(error, Site, lines, merged) from error


def _path_of(name: str, seen: tuple[Path, ...]) -> Path:
    """Find the file of a site. One that extends its own name means the next such file in the search order."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name).expanduser()
        if seen and not path.is_absolute():
            path = seen[-1].parent / path
        candidates = [path]
    else:
        candidates = [folder / f"{name}.yaml" for folder in resources.folders("sites")]
        candidates = [path for path in candidates if path.is_file()]
    known = {path.resolve() for path in seen}
    fresh = [path for path in candidates if path.resolve() not in known]
    if fresh:
        return fresh[0]
    if candidates:
        raise ConfigError(f"{seen[-1]}: extends {name}, which extends it again")
    names = resources.names("sites", ".yaml")
    near = did_you_mean(name, names)
    where = f"{seen[-1]}: extends: " if seen else ""
    raise UsageError(
        f"{where}there is no site {name!r}{'; ' if near else ''}{near}",
        hint=f"Known sites: {', '.join(names) or 'none'}. A path ending in .yaml names a file of your own.",
    )
