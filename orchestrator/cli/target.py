"""Which study a command line means: a study.yaml, a folder, a name under the root, or the latest."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.config.study import Study

__all__ = ["JsonOption", "RootOption", "StudyArgument", "Target", "find_folder", "load_target"]

RootOption = Annotated[
    Path, typer.Option("--root", envvar="SURVEY_ROOT", help="Folder that holds the studies' folders.")
]
StudyArgument = Annotated[
    str, typer.Argument(help="study.yaml, a study's folder, or its name under the root; the latest if left out.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A study to be run.

    Attributes
    ----------
    study : Study
        As read from the file, or as frozen in the folder.
    origin : Path
        The folder in which its command runs.
    root : Path
        Folder that holds the study's folder.
    site : str or None
        The site of the latest run, where the study was named by its folder.
    """

    study: Study
    origin: Path
    root: Path
    site: str | None = None

    def chosen(self, site: str) -> str:
        """The one site to run on, ``site`` if that is said; empty where the study's own sites are meant."""
        return site or ("" if self.study.sites else self.site or "")


def load_target(name: str, root: Path) -> Target:
    """The study that ``name`` means, to be run or resumed.

    Raises
    ------
    UsageError
        If there is none, or its record would lie among its own files.
    """
    from orchestrator.config.study import Study
    from orchestrator.search.layout import StudyFolder

    path = Path(name)
    if path.is_dir() and (path / "study.yaml").is_file() and not StudyFolder(path).begun:
        path /= "study.yaml"
    if name and (path.is_file() or path.suffix in {".yaml", ".yml"}):
        _there(path, root)
        study = Study.load(path)
        folder = StudyFolder((root / study.name).resolve())
        if folder.root == path.resolve().parent and not folder.begun:
            raise UsageError(
                f"the record of study {study.name!r} would lie among its own files, in {folder.root}",
                hint="choose another --root, or give the study another name",
            )
        # What is in flight can be followed on its own site only, so that one is the default.
        site = str(folder.site) if folder.begun and folder.site.is_file() else None
        return Target(study=study, origin=path.resolve().parent, root=root, site=site)
    root_of = find_folder(name, root)
    from orchestrator.store.atomic import read_json

    provenance = read_json(root_of / "provenance.json") or {}
    return Target(
        study=Study.load(root_of / "study.yaml"),
        origin=Path(provenance.get("workdir") or root_of),
        root=root_of.parent,
        site=str(root_of / "site.yaml") if (root_of / "site.yaml").is_file() else None,
    )


def _there(path: Path, root: Path) -> None:
    """Say of a study.yaml that is gone how its study goes on without it."""
    if path.exists():
        return
    begun = _names_below(root)
    if begun:
        raise UsageError(
            f"{path}: no such study file",
            hint=f"a study that was begun goes on without it: survey resume {begun[0]}",
        )


def find_folder(name: str, root: Path) -> Path:
    """The folder of an existing study.

    Raises
    ------
    UsageError
        If there is none; the message names the ones that exist.
    """
    from orchestrator.search.layout import StudyFolder

    names = _names_below(root)
    if not name:
        if not names:
            raise UsageError(f"no study below {root}", hint="name one, or give --root")
        return (root / names[0]).resolve()
    path = Path(name)
    if path.is_dir() and (path / "study.yaml").is_file() and not StudyFolder(path).begun:
        path /= "study.yaml"
    if path.is_file():
        from orchestrator.config.study import Study

        wanted = Study.load(path).name
        if StudyFolder(root / wanted).begun:
            return (root / wanted).resolve()
        raise UsageError(
            f"study {wanted!r} of {path} has not been run below {root}", hint=f"survey run {path}, or give --root"
        )
    for candidate in (path, root / name):
        if StudyFolder(candidate).begun:
            return candidate.resolve()
    close = difflib.get_close_matches(name, names, n=1)
    words = f"did you mean {close[0]!r}?" if close else f"studies there: {', '.join(names) or 'none'}"
    raise UsageError(f"no study {name!r} below {root}", hint=words)


def _names_below(root: Path) -> list[str]:
    """Studies below ``root`` as they can be named, the latest first."""
    from orchestrator.studies.reader import studies_below

    return [str(folder.relative_to(root)) for folder in studies_below(root)] if root.is_dir() else []
