"""Conditions between parameters: ``filters_1 <= filters_2``, ``batch * patch**3 <= 4e6``.

They are read with `ast` and worked out here, node by node: what is not listed below cannot be written, and
nothing of a study file is ever run as a program.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

from orchestrator.config.fields import OneLine
from orchestrator.config.loading import did_you_mean
from orchestrator.errors import UsageError

__all__ = ["Condition", "ConditionText", "condition", "unknown_name"]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, among: value in among,
    ast.NotIn: lambda value, among: value not in among,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # In floating point: whole numbers to the power of whole numbers could take for ever.
    ast.Pow: math.pow,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], range]] = {
    "abs": (abs, range(1, 2)),
    "min": (min, range(2, 100)),
    "max": (max, range(2, 100)),
    "sqrt": (math.sqrt, range(1, 2)),
    "log": (math.log, range(1, 3)),
    "log2": (math.log2, range(1, 2)),
    "log10": (math.log10, range(1, 2)),
}
"""What can be called, and with how many values."""
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, read and found sound; made by `condition`.

    Attributes
    ----------
    names : mapping of str to int
        The parameters that it speaks of, and the column where each stands first, from 1.
    """

    text: str
    tree: ast.expr
    names: Mapping[str, int]

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether it holds for these parameters.

        It holds where one of its parameters is absent (inactive), and does not where it has no value, as
        ``1 / 0``.

        Raises
        ------
        UsageError
            If it compares or adds up what cannot be, as a number and text.
        """
        if any(name not in params for name in self.names):
            return True
        try:
            return bool(_value(self.tree, params))
        except (ArithmeticError, ValueError):
            return False
        except TypeError:
            known = ", ".join(f"{name} = {params[name]!r}" for name in self.names)
            raise UsageError(
                f"the condition {self.text!r} cannot be worked out for {known}",
                hint="a number and text cannot be compared or added up; see `where` in study.yaml",
            ) from None


@functools.lru_cache(maxsize=256)
def condition(text: str) -> Condition:
    """Read a condition.

    Raises
    ------
    ValueError
        Saying what is wrong, and in which column.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a condition has at most {_LONGEST} characters, this one {len(text)}")
    names: dict[str, int] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused below in our own words
            tree = ast.parse(text.strip(), mode="eval").body
        _check(tree, names)
    except SyntaxError as error:
        # Where it breaks off, the offset is none or 0.
        column = error.offset + _indent(text) if error.offset else len(text.rstrip()) + 1
        raise ValueError(f"column {column}: this is no condition ({error.msg})") from None
    except (RecursionError, MemoryError):
        raise ValueError("too many brackets one in the other") from None
    except _Refused as refused:
        raise ValueError(f"column {_column(text, refused.offset)}: {refused.words}") from None
    if not isinstance(tree, ast.Compare | ast.BoolOp) and not _is_not(tree):
        raise ValueError("expected a comparison, as layers <= 3 or a * b < 100")
    if not names:
        raise ValueError("it speaks of no parameter")
    return Condition(text, tree, {name: _column(text, offset) for name, offset in names.items()})


def unknown_name(text: str, known: Mapping[str, object]) -> str:
    """Say which name of a condition is no parameter, and in which column; empty where all are."""
    for name, column in condition(text).names.items():
        if name not in known:
            # A name with a dash is read as a subtraction.
            near = next((each for each in known if not each.isidentifier() and each.startswith(name)), None)
            hint = (
                f"{near!r} cannot be named in a condition: give it a name of letters, digits and _"
                if near
                else did_you_mean(name, known) or f"the parameters are {', '.join(known)}"
            )
            return f"column {column}: there is no parameter {name}; {hint}"
    return ""


def _sound(text: str) -> str:
    condition(text)
    return text


ConditionText: TypeAlias = Annotated[OneLine, AfterValidator(_sound)]
"""A condition between parameters, as a study file has it."""


class _Refused(Exception):
    def __init__(self, node: ast.AST, words: str) -> None:
        super().__init__(words)
        self.offset = getattr(node, "col_offset", 0)
        self.words = words


def _column(text: str, offset: int) -> int:
    """Column from 1; `ast` counts bytes from where the condition begins."""
    before = text.strip().encode()[:offset].decode(errors="ignore")
    return len(before) + 1 + _indent(text)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _is_not(tree: ast.expr) -> bool:
    return isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)


def _check(node: ast.expr, names: dict[str, int]) -> None:
    """Refuse what is not allowed; collect names and where they stand first."""
    match node:
        case ast.BoolOp(values=parts):
            below = parts
        case ast.Compare(left=left, ops=ops, comparators=others):
            below = [left]
            for op, other in zip(ops, others, strict=True):
                if type(op) not in _COMPARISONS:
                    raise _Refused(other, "compare with <, <=, ==, !=, >=, >, in or not in")
                if not isinstance(op, ast.In | ast.NotIn):
                    below.append(other)
                elif isinstance(other, ast.Tuple | ast.List):
                    below += other.elts
                else:
                    raise _Refused(other, "after `in` comes a list in brackets: [1, 2, 3]")
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in _ARITHMETIC:
                raise _Refused(right, "only + - * / // % ** are known")
            below = [left, right]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            below = [operand]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            if len(args) not in _FUNCTIONS[name][1]:
                raise _Refused(node, f"{name} does not take {len(args)} value{'' if len(args) == 1 else 's'}")
            below = args
        case ast.Call():
            raise _Refused(node, f"the functions are {', '.join(_FUNCTIONS)}")
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.Name(id=name):
            names.setdefault(name, node.col_offset)
            return
        case _:
            raise _Refused(node, "only names of parameters, numbers, text in quotes, arithmetic and comparisons")
    for part in below:
        _check(part, names)


def _value(node: ast.expr, params: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, params) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, params) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            value = _value(left, params)
            for op, other in zip(ops, others, strict=True):
                next_value = _value(other, params)
                if not _COMPARISONS[type(op)](value, next_value):
                    return False
                value = next_value
            return True
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _value(left, params), _value(right, params)
            if isinstance(one, str) or isinstance(other, str):
                raise TypeError("no arithmetic with text")
            return _ARITHMETIC[type(op)](one, other)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, params)
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, params)
            return -value if isinstance(op, ast.USub) else +value
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name][0](*(_value(arg, params) for arg in args))
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [_value(part, params) for part in parts]
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return params[name]
    raise AssertionError(f"unchecked: {ast.dump(node)}")
