"""Pydantic's findings in the user's words: where, what was expected, what was found, what was meant."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from orchestrator.config.loading import did_you_mean
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from orchestrator.config.loading import KeyPath, LineMap

__all__ = ["config_error", "mistake_at"]

_MOST_SHOWN = 8

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (lines of key: value)",
    "mapping_type": "a mapping (lines of key: value)",
    "model_type": "a mapping (lines of key: value)",
    "model_attributes_type": "a mapping (lines of key: value)",
    "none_required": "nothing",
}


def mistake_at(keys: KeyPath, message: str) -> PydanticCustomError:
    """Make an error for validators of a whole model whose mistake stands at ``keys`` below it."""
    return PydanticCustomError("mistake", "{words}", {"words": message, "at": keys})


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 40 else value[:37] + "..."}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    return repr(value)


def _members(annotation: Any) -> list[Any]:
    """List the plain types that an annotation can stand for."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for option in get_args(annotation) for member in _members(option)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Types of a model's fields by the names that they have in a file."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _step(annotations: list[Any], key: str | int) -> list[Any]:
    """List what can stand below ``key``."""
    below: list[Any] = []
    for annotation in annotations:
        arguments = get_args(annotation)
        if _is_model(annotation):
            below += _members(_fields(annotation).get(str(key), None))
        elif isinstance(key, int) and arguments:
            below += _members(arguments[0])
        elif len(arguments) == 2:
            below += _members(arguments[1])
    return below


def _tagged(annotations: list[Any], tag: str | int) -> list[Any]:
    """Members of a union that are told apart by a field with the value ``tag``; all where none is."""
    matching = [
        annotation
        for annotation in annotations
        if _is_model(annotation)
        and any(
            get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
            for field in annotation.model_fields.values()
        )
    ]
    return matching or annotations


def _has(data: Any, key: str | int) -> bool:
    if isinstance(data, Mapping):
        return key in data
    return isinstance(data, Sequence) and not isinstance(data, str) and isinstance(key, int) and key < len(data)


def _follow(model: type[BaseModel], data: Any, location: KeyPath) -> tuple[KeyPath, list[Any], bool]:
    """Keys of the file that pydantic's ``location`` means, the types around its end, whether of a union."""
    keys: list[str | int] = []
    around: list[Any] = [model]
    here: list[Any] = [model]
    union = False
    for key in location:
        if _has(data, key):
            data = data[key]
            around, here = here, _step(here, key)
            keys.append(key)
            union = False
        else:  # a key that is missing, or pydantic's name of a member of a union
            here = _tagged(here, key)
            union = True
    return tuple(keys), around if keys else here, union


def _message(error: ErrorDetails, around: list[Any]) -> str:
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    last = str(error["loc"][-1]) if error["loc"] else ""
    if kind == "extra_forbidden":
        valid = [name for annotation in around if _is_model(annotation) for name in _fields(annotation)]
        valid = list(dict.fromkeys(valid))
        return f"unknown key; {did_you_mean(last, valid) or 'the keys are ' + ', '.join(valid)}"
    if kind == "missing":
        return f'missing key "{last}"'
    if kind in _EXPECTED:
        quotes = "; put it in quotes" if kind == "string_type" and isinstance(found, bool | int | float) else ""
        return f"expected {_EXPECTED[kind]}, found {_shown(found)}{quotes}"
    if kind in {"literal_error", "enum"}:
        expected = context["expected"].replace("'", "")
        near = did_you_mean(str(found), expected.replace(" or ", ", ").split(", "))
        return f"expected {expected}, found {_shown(found)}" + (f"; {near}" if near else "")
    if kind == "union_tag_not_found":
        return f"missing key {context['discriminator']}".replace("'", '"')
    if kind == "union_tag_invalid":
        expected = context["expected_tags"].replace("'", "")
        near = did_you_mean(context["tag"], expected.split(", "))
        return (
            f'unknown {context["discriminator"]} "{context["tag"]}"; {near or "expected one of " + expected}'.replace(
                "'", ""
            )
        )
    if kind in {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}:
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        ((name, bound),) = context.items()
        return f"must be {words[name]} {bound}, found {found}"
    if kind in {"too_short", "string_too_short"} and context.get("min_length") == 1:
        return "must not be empty"
    if kind == "value_error":
        return str(context["error"])
    if kind == "mistake":
        return str(context["words"])
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, found {_shown(found)}"


def _dotted(keys: KeyPath) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def config_error(error: ValidationError, model: type[BaseModel], lines: LineMap, data: Any) -> ConfigError:
    """One `ConfigError` for all of pydantic's findings, one line each, in the order of the file."""
    found: dict[KeyPath, list[str]] = {}
    of_union: set[KeyPath] = set()
    for detail in error.errors(include_url=False):
        location = (*detail["loc"], *detail.get("ctx", {}).get("at", ()))
        keys, around, union = _follow(model, data, location)
        message = _message(detail, around)
        if message not in found.setdefault(keys, []):
            found[keys].append(message)
        if union and detail["type"] != "missing":
            of_union.add(keys)
    # A union complains once for each of its members: where one of them got deeper, it was the one meant.
    meant = {
        keys: messages
        for keys, messages in found.items()
        if keys not in of_union or not any(other != keys and other[: len(keys)] == keys for other in found)
    }
    ordered = sorted(meant.items(), key=lambda item: lines.line(item[0]))
    shown = []
    for keys, messages in ordered[:_MOST_SHOWN]:
        first, *others = messages
        text = first
        if keys in of_union and others and all(message.startswith("expected ") for message in messages):
            expected = " or ".join(message.removeprefix("expected ").split(", found ")[0] for message in messages)
            text = f"expected {expected}, found {first.split(', found ')[1]}"
        elif others:
            text = "; ".join(messages)
        shown.append(f"{lines.where(keys)}: {_dotted(keys)}{': ' if keys else ''}{text}")
    if len(ordered) > _MOST_SHOWN:
        shown.append(f"... and {len(ordered) - _MOST_SHOWN} more")
    return ConfigError("\n".join(shown))
