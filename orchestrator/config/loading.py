"""From a YAML file to a checked model, or to an error that names the file, the line and the key.

Scalars are read by the rules of YAML 1.2, not 1.1: ``1e-4`` is a number, ``no`` and ``on`` are
text, and so are ``012``, ``1:30:00`` and ``2024-01-01``. Keys are always text. Nothing but plain
data can be made: no tags, no objects.
"""

from __future__ import annotations

import difflib
import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import yaml

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import BaseModel

    M = TypeVar("M", bound=BaseModel)

__all__ = ["LARGEST_FILE", "KeyPath", "LineMap", "Position", "did_you_mean", "dump_data", "load_data", "load_model"]

LARGEST_FILE = 512 * 1024
_MOST_VALUES = 100_000  # aliases expanded: a few lines of them can stand for billions of values

KeyPath: TypeAlias = "tuple[str | int, ...]"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class LineMap:
    """Where each key and list item of a file stands."""

    path: Path
    positions: Mapping[KeyPath, Position]

    def where(self, keys: KeyPath) -> str:
        """``file:line`` of ``keys``, or of the nearest thing around it that the file has."""
        line = self.line(keys)
        return f"{self.path}:{line}" if line else str(self.path)

    def line(self, keys: KeyPath) -> int:
        """Line of ``keys``, or of the nearest thing around it; 0 for the whole file."""
        for length in range(len(keys), 0, -1):
            if position := self.positions.get(keys[:length]):
                return position.line
        return 0


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """``did you mean "x"?`` for the candidate nearest to ``word``, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f'did you mean "{by_lower[near[0]]}"?' if near else ""


class _Loader(yaml.SafeLoader):
    """Composes nodes; scalars are told apart by `_plain`, not by YAML 1.1's resolvers."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  the base class's own attribute, emptied


# What the composer gives to nodes without a tag of their own, as no resolver is left.
_TAGS = {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_INT = re.compile(r"0|-?[1-9][0-9]{0,99}")  # what str() gives back exactly; 012, +5 and 0x1F stay text
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def _plain(text: str) -> Any:
    """Value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Builder:
    """Makes plain data of composed nodes and remembers where each key stood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.positions: dict[KeyPath, Position] = {}
        self.count = 0
        self.open: set[int] = set()

    def error(self, node: yaml.Node, message: str) -> ConfigError:
        mark = node.start_mark
        return ConfigError(f"{self.path}:{mark.line + 1}:{mark.column + 1}: {message}")

    def build(self, node: yaml.Node, keys: KeyPath) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise self.error(node, f"more than {_MOST_VALUES} values, aliases (*name) counted each time")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        self.refuse_tag(node)
        if id(node) in self.open:
            raise self.error(node, "this anchor (&name) contains itself")
        self.open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            value: Any = [self.item(child, (*keys, index)) for index, child in enumerate(node.value)]
        else:
            value = self.mapping(node, keys)
        self.open.discard(id(node))
        return value

    def item(self, node: yaml.Node, keys: KeyPath) -> Any:
        self.positions[keys] = Position(node.start_mark.line + 1, node.start_mark.column + 1)
        return self.build(node, keys)

    def refuse_tag(self, node: yaml.Node) -> None:
        if node.tag not in _TAGS:
            raise self.error(node, f"tags ({node.tag}) are not supported: write the plain value")

    def scalar(self, node: yaml.ScalarNode) -> Any:
        self.refuse_tag(node)
        return node.value if node.style else _plain(node.value)

    def mapping(self, node: yaml.Node, keys: KeyPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        # Merges first, so that the mapping's own keys have the last word on where they stand.
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].value != "<<"):
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise self.error(key_node, "a key must be plain text")
            key: str = key_node.value
            line = key_node.start_mark.line + 1
            if key in seen:
                raise self.error(key_node, f'duplicate key "{key}": it is already on line {seen[key]}')
            seen[key] = line
            if key == "<<" and not key_node.style:
                merged.update(self.merge(value_node, keys))
                continue
            self.positions[(*keys, key)] = Position(line, key_node.start_mark.column + 1)
            value[key] = self.build(value_node, (*keys, key))
        return {**merged, **value}

    def merge(self, node: yaml.Node, keys: KeyPath) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):  # the first one named wins
            if not isinstance(source, yaml.MappingNode):
                raise self.error(source, "<<: takes a mapping, usually an alias (*name)")
            merged.update(self.build(source, keys))
        return merged


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_plain` would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the base class's signature
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(_plain(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_data(data: Mapping[str, Any]) -> str:
    """Plain data as YAML text that `load_data` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _read(path: Path, kind: str) -> str:
    """Text of the file, or a `ConfigError` that says why there is none."""
    if path.is_dir():
        inside = sorted(path.glob("*.yaml"))
        raise ConfigError(f"{path}: a folder, not a {kind} file", hint=f"Did you mean {inside[0]}?" if inside else "")
    if not path.exists():
        names = [other.name for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = did_you_mean(path.name, names)
        raise ConfigError(f"{path}: no such {kind} file", hint=near[:1].upper() + near[1:])
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: not a regular file")
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE // 1024} KiB, which no {kind} file needs")
        content = _content(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ConfigError(
            f"{path}:{line}:{column}: byte 0x{content[error.start]:02x} is not UTF-8 text",
            hint="Save the file as UTF-8; is it a YAML file at all?",
        ) from error
    return text


def _content(path: Path) -> bytes:
    """Content of the file, looked up afresh once: it may have been replaced while an NFS client held the old one."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in {errno.ESTALE, errno.EIO}:
            raise
        return path.read_bytes()


def _explained(path: Path, text: str, error: yaml.YAMLError) -> ConfigError:
    """Put into words the parser's complaint, with the place in front and, for common slips, the remedy behind."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        return ConfigError(f"{path}:{line}:{column}: control character #x{error.character:04x}: not a text file?")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ConfigError(f"{path}: not valid YAML: {error}")
    mark, problem = error.problem_mark, error.problem or "cannot be read"
    place = f"{path}:{mark.line + 1}:{mark.column + 1}"
    lines = text.splitlines()
    line_text = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line_text[: mark.column + 1] and not line_text[: mark.column].strip():
        return ConfigError(f"{place}: a tab in the indentation", hint="YAML is indented by spaces only.")
    if "single document" in f"{error.context} {problem}":
        return ConfigError(f"{place}: a second document (---) in one file")
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = 'Check the indentation; text that contains ": " needs quotes.'
    elif "cannot start any token" in problem:
        hint = "Text that starts with such a character needs quotes."
    since = ""
    if error.context and error.context_mark is not None:
        since = f" ({error.context}, from line {error.context_mark.line + 1})"
    return ConfigError(f"{place}: not valid YAML: {problem}{since}", hint=hint)


def load_data(path: Path, *, kind: str = "YAML") -> tuple[dict[str, Any], LineMap]:
    """Read a YAML file whose top level is a mapping.

    Returns
    -------
    data : dict
        None, bool, int, float, str, lists and dicts with text keys.
    lines : LineMap
        Where each key stands.

    Raises
    ------
    ConfigError
        If the file cannot be read as that; the message names file, line and column.
    """
    text = _read(path, kind)
    builder = _Builder(path)
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = None if node is None else builder.build(node, ())
    except yaml.YAMLError as error:
        raise _explained(path, text, error) from error
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if data is None:
        raise ConfigError(f"{path}: empty: a {kind} file needs at least its keys")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: expected a mapping (lines of key: value), found {type(data).__name__}")
    return data, LineMap(path, builder.positions)


def load_model(path: Path, model: type[M], *, kind: str) -> M:
    """Read a YAML file into a pydantic model.

    Parameters
    ----------
    kind : str
        What the file is to the user: ``"study"``, ``"site"``.

    Raises
    ------
    ConfigError
        With one line per mistake: file, line, key, what was expected and found.
    """
    from pydantic import ValidationError

    from orchestrator.config.mistakes import config_error

    data, lines = load_data(path, kind=kind)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise config_error(error, model, lines, data) from error
