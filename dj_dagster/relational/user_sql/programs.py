"""Programs: expressions that can be run in Python, and their composition."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dj_dagster.relational.user_sql import conversion
from dj_dagster.relational.user_sql.conversion import is_text
from dj_dagster.relational.user_sql.kinds import (
    TEXT,
    Kind,
    SqlValue,
    leading_integer,
    number,
    text,
    whole,
)
from dj_dagster.relational.user_sql.parsing import call_name

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

Arguments = Sequence[SqlValue | None]
"""The values of the attributes that a program reads, in their order."""

Run = Callable[[Arguments], SqlValue | None]

Call = Callable[..., SqlValue | None]
"""A function of values of certain types; see `Function.takes`."""


class Untranslatable(Exception):
    """A part of an expression cannot be translated to SQLite."""


@dataclass(frozen=True, slots=True)
class Program:
    """An expression that can be run.

    Attributes
    ----------
    run
        Returns the value, given those of the leaves.
    literal
        The value if it is written in the text, otherwise None.
    """

    run: Run
    kind: Kind
    literal: SqlValue | None = None


ProgramOf = Callable[["Expr"], Program]
"""A function that compiles a tree."""

Form = Callable[[ProgramOf, "Expr"], Program]
"""A function that compiles a tree of one form, and its parts with the given function."""

CallForm = Callable[[ProgramOf, Sequence["Expr"]], Program]
"""A function that compiles a call from its arguments."""


def constant(value: SqlValue, kind: Kind) -> Program:
    """Return the program of a literal."""
    return Program(lambda row: value, kind, value)


def mapped(program: Program, call: Call, kind: Kind) -> Program:
    """Return a program with its value passed through a function, except null."""
    inner = program.run

    def run(row: Arguments) -> SqlValue | None:
        value = inner(row)
        return None if value is None else call(value)

    return Program(run, kind)


def pair(one: Program, other: Program, call: Call, kind: Kind) -> Program:
    """Return a function call with two values; see `strict`."""
    return strict([one, other], call, kind)


def strict(programs: Sequence[Program], call: Call, kind: Kind) -> Program:
    """Return a call whose value is null if one of its arguments is."""
    runs = [program.run for program in programs]

    def run(row: Arguments) -> SqlValue | None:
        values = [each(row) for each in runs]
        return None if None in values else call(*values)

    return Program(run, kind)


def argument(program: Program, letter: str) -> Program:
    """Return a program that converts values for a function; see `Function`."""
    kind = program.kind
    converts: dict[str, conversion.Convert] = {
        "t": lambda value: text(value, kind),
        "i": lambda value: leading_integer(value) if is_text(value, kind) else whole(value, kind),
        "n": lambda value: number(value, kind),
        "f": lambda value: float(number(value, kind)),
        "d": conversion.moment,
        "h": conversion.duration,
        "b": lambda value: value if isinstance(value, bytes) else text(value, kind).encode(),
    }
    if letter == "r":
        numeric = kind.is_exact or kind.family in ("float", "bytes")
        return program if numeric else argument(program, "t")
    if letter == "t" and kind.family == "bytes":
        raise Untranslatable("a function of texts that is given bytes")
    return replace(mapped(program, converts[letter], kind), literal=program.literal)


def written_integer(literal: SqlValue | None) -> int | None:
    """Return the integer that a literal argument is converted to, None if it is not a literal."""
    if literal is None:
        return None
    return leading_integer(literal) if isinstance(literal, str) else whole(literal)


def letters(takes: str, count: int, name: str) -> str:
    """Return the letter of each argument of a call; see `Function`."""
    needed, _, optional = takes.partition("|")
    found = needed + optional
    if found.endswith("*"):
        found = found[:-1]
        found += found[-1] * (count - len(found))
    if not len(needed.rstrip("*")) <= count <= len(found):
        raise Untranslatable(f"{name}() with {count} arguments")
    return found[:count]


def alike(programs: Sequence[Program]) -> tuple[list[Run], Kind]:
    """Return programs converted to a common kind."""
    kind = conversion.common(program.kind for program in programs)
    if kind is None:
        raise Untranslatable("a choice between values of several kinds")
    if kind == TEXT:
        several = all(program.kind.choices for program in programs)
        # For an enum MySQL takes the number, MariaDB the text.
        kind = replace(kind, tag="unclear" if several else collation(programs))
    return [_conforming(program, kind).run for program in programs], kind


def collation(programs: Sequence[Program]) -> str:
    """Return the tag of a text made from others; see `Kind`. Case counts in texts of JSON."""
    tags = [_collation(program) for program in programs]
    if "mixed" in tags or {"binary", "implicit"} <= {*tags}:
        return "mixed"
    return "binary" if "binary" in tags else ""


def _collation(program: Program) -> str:
    kind = program.kind
    if kind.family in ("json", "bytes") or kind.tag in ("binary", "mixed"):
        return kind.tag or "binary"
    return "implicit" if kind.family == "text" and program.literal is None else ""


def heeds_case(name: str, *programs: Program) -> bool:
    """Whether case counts in comparisons of texts.

    Raises
    ------
    Untranslatable
        If that depends on the server.
    """
    found = collation(programs)
    if found == "mixed":
        raise Untranslatable(f"{name} of a text from JSON and another text")
    return found == "binary"


def _conforming(program: Program, kind: Kind) -> Program:
    if program.kind.family == kind.family and not program.kind.choices:
        return program
    return mapped(program, lambda value: conversion.conform(value, program.kind, kind), kind)


SPREADS = frozenset((
    "STD", "STDDEV", "STDDEV_POP", "STDDEV_SAMP", "VARIANCE", "VAR_POP", "VAR_SAMP",
))  # fmt: skip
"""Aggregates that measure the spread of values."""


def check_null(node: Expr) -> None:
    """Raise `Untranslatable` for a test for null in which MariaDB errs."""
    while type(node).__name__ == "Paren":
        node = node.this
    if call_name(node) in SPREADS:
        raise Untranslatable(
            f"whether {call_name(node)}() is null, which MariaDB takes it for always: use COUNT()"
        )


def node_name(node: Expr) -> str:
    """Return the users' name for a kind of expression."""
    return call_name(node) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).upper()


def both(program_of: ProgramOf, node: Expr) -> tuple[Program, Program]:
    """Return the programs of the two sides of an operator."""
    return program_of(node.this), program_of(node.expression)


KindOf = Callable[[Sequence[Kind], Arguments], Kind]


@dataclass(frozen=True, slots=True)
class Function:
    """The signature of a function.

    Attributes
    ----------
    takes
        A letter for each argument: ``t`` text, ``i`` integer, ``n`` number, ``f`` float, ``d``
        moment, ``h`` time, ``b`` bytes, ``r`` the value as it is. Arguments after a bar are
        optional; a star repeats the last.
    gives
        The kind of its values, or a function that returns it, given the kinds of the arguments and
        the values of literal ones.
    nulls
        Whether it is called with null arguments; otherwise the result is null.
    pure
        Whether the same arguments give the same value.
    """

    call: Call
    takes: str
    gives: Kind | KindOf
    nulls: bool = False
    pure: bool = True
