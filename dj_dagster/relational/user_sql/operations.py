"""Programs: what they are made of, and the operations that they have in common."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import comparing, temporal
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.values import (
    EXACT,
    FLOAT,
    INT,
    TEXT,
    UNSIGNED,
    Kind,
    cut,
    decimal_kind,
    exact,
    fixed,
    floating,
    number,
    text,
    unsigned_zero,
    whole,
)

Row = Sequence[Any]
Run = Callable[[Row], Any]
_UNSIGNED = 2**64 - 1


class Untranslatable(Exception):
    """A part of an expression that has no meaning on SQLite."""


@dataclass(frozen=True, slots=True)
class Program:
    """An expression that can be run.

    Attributes
    ----------
    run
        Gives the value from those of the leaves.
    literal
        The value where it is written in the text, else None.
    """

    run: Run
    kind: Kind
    literal: Any = None


def arithmetic(symbol: str, one: Program, other: Program, kinds: Sequence[Kind]) -> Program:
    """Return the program of an operation on numbers."""
    run = _OPERATIONS[symbol]
    kind = _result_kind(symbol, kinds)
    return pair(one, other, without_sign(run) if kind.tag == "unsigned" else run, kind)


def _result_kind(symbol: str, kinds: Sequence[Kind]) -> Kind:
    families = [kind.family for kind in kinds]
    one, other = (kind.scale for kind in kinds)
    scale = one + other if symbol == "*" and "float" not in families else max(one, other)
    if "any" in families:
        return Kind("any")
    if "float" in families:
        if any(kind == FLOAT for kind in kinds):
            return FLOAT
        # The server writes what was rounded with the digits that it was rounded to.
        return fixed(scale + 4 if symbol == "/" else scale)
    if symbol == "/":
        return decimal_kind(one + 4)
    if "decimal" in families:
        return decimal_kind(scale)
    return UNSIGNED if any(kind.tag == "unsigned" for kind in kinds) else INT


def _add(a: Any, b: Any) -> Any:
    return _checked(operator.add, a, b)


def _subtract(a: Any, b: Any) -> Any:
    return _checked(operator.sub, a, b)


def _multiply(a: Any, b: Any) -> Any:
    return _checked(operator.mul, a, b)


def _checked(how: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return floating(how(float(a), float(b)))
    if isinstance(a, int) and isinstance(b, int):
        return signed(how(a, b))
    names: Any = {operator.add: EXACT.add, operator.sub: EXACT.subtract, operator.mul:
                  EXACT.multiply}  # fmt: skip
    return unsigned_zero(names[how](Decimal(a), Decimal(b)))


def without_sign(how: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return an operation that refuses to give less than zero."""

    def run(a: Any, b: Any) -> Any:
        found = how(a, b)
        if found is not None and found < 0:
            raise QueryError(f"SQL on SQLite: {found} is out of range of unsigned integers.")
        return found

    return run


def signed(value: int) -> int:
    """Return an integer that has 64 bits with its sign; raise QueryError for a larger one."""
    if -(2**63) <= value < 2**63:
        return value
    raise QueryError(f"SQL on SQLite: the integer {value} is out of range, as it is on MySQL.")


def _remainder(a: Any, b: Any) -> Any:
    if not b:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return math.fmod(float(a), float(b))
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a)) * (abs(a) % abs(b))
    return EXACT.remainder(Decimal(a), Decimal(b))


def _divide(a: Any, b: Any) -> Any:
    if not b:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return floating(float(a) / float(b))
    return quotient(Decimal(a), Decimal(b))


def quotient(a: Decimal, b: Decimal) -> Decimal:
    """Return a quotient with the digits that the server keeps until it is shown: nines of them."""
    digits = [-int(value.as_tuple()[2]) for value in (a, b)]
    words = [-(-count // 9) * 9 for count in digits]
    more = max(0, 4 - (sum(words) - sum(digits)))
    return cut(EXACT.divide(a, b), -(-(sum(words) + more) // 9) * 9)


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _remainder,
}


def matches(pattern: str, value: str, *, heeds_case: bool = False) -> bool:
    """Whether a text has a match of a regular expression, usually whatever the case.

    Raises
    ------
    QueryError
        If Python and MySQL may understand the expression differently, or it is none.
    """
    if "[[" in pattern or "(?" in pattern or "\\" in pattern.replace("\\.", ""):
        pattern = re.sub(r"\[:(\w+):\]", lambda m: _CLASSES.get(m[1], m[0]), pattern)
        if "[:" in pattern or "[[" in pattern:
            raise QueryError(f"SQL on SQLite: the regular expression {pattern!r} is not supported.")
    try:
        return re.search(pattern, value, 0 if heeds_case else re.IGNORECASE) is not None
    except re.error as error:
        raise QueryError(f"SQL on SQLite: {pattern!r} is no regular expression: {error}") from error


_CLASSES = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "space": r"\s",
            "upper": "A-Z", "lower": "a-z", "xdigit": "0-9a-fA-F"}  # fmt: skip


def like_pattern(pattern: str, escape: str, *, heeds_case: bool = False) -> re.Pattern[str]:
    """Return what matches texts that are LIKE a pattern, usually whatever the case."""
    parts: list[str] = []
    escaped = False
    for char in pattern:
        if escaped or char not in ("%", "_", escape):
            parts.append(re.escape(char))
            escaped = False
        elif char == escape:
            escaped = True
        else:
            parts.append(".*" if char == "%" else ".")
    flags = re.S if heeds_case else re.I | re.S
    return re.compile("".join(parts) + (re.escape(escape) if escaped else ""), flags)


def node_name(node: Any) -> str:
    """Return what users call a kind of expression."""
    return call_name(node) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).upper()


def alike(programs: Sequence[Program]) -> tuple[list[Run], Kind]:
    """Return programs as ones of one kind."""
    kind = comparing.common(program.kind for program in programs)
    if kind is None:
        raise Untranslatable("a choice between values of several kinds")
    if kind == TEXT:
        several = all(program.kind.choices for program in programs)
        # Of an enum MySQL takes the number, MariaDB the text.
        kind = replace(kind, tag="unclear" if several else collation(programs))
    return [_conforming(program, kind).run for program in programs], kind


def collation(programs: Sequence[Program]) -> str:
    """Return the tag of a text that is made of others; see `Kind`. Texts of JSON heed case."""
    tags = [_collation(program) for program in programs]
    if "mixed" in tags or {"binary", "implicit"} <= {*tags}:
        return "mixed"
    return "binary" if "binary" in tags else ""


def _collation(program: Program) -> str:
    kind = program.kind
    if kind.family == "json" or kind.tag in ("binary", "mixed"):
        return kind.tag or "binary"
    return "implicit" if kind.family == "text" and program.literal is None else ""


def heeds_case(name: str, *programs: Program) -> bool:
    """Whether case counts where texts are compared.

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
    return mapped(program, lambda value: comparing.conform(value, program.kind, kind), kind)


def constant(value: Any, kind: Kind) -> Program:
    """Return the program of a literal."""
    return Program(lambda row: value, kind, value)


def mapped(program: Program, call: Callable[[Any], Any], kind: Kind) -> Program:
    """Return a program with its value changed by a call, null left as it is."""
    inner = program.run

    def run(row: Row) -> Any:
        value = inner(row)
        return None if value is None else call(value)

    return Program(run, kind)


def pair(one: Program, other: Program, call: Callable[[Any, Any], Any], kind: Kind) -> Program:
    """Return a call of two values; see `strict`."""
    return strict([one, other], call, kind)


def strict(programs: Sequence[Program], call: Callable[..., Any], kind: Kind) -> Program:
    """Return a call whose value is null if one of its arguments is."""
    runs = [program.run for program in programs]

    def run(row: Row) -> Any:
        values = [each(row) for each in runs]
        return None if None in values else call(*values)

    return Program(run, kind)


def number_kind(kind: Kind) -> Kind:
    """Return the kind of the number that a value counts as."""
    if kind.is_exact or kind.family in ("null", "any", "float"):
        return INT if kind.family == "null" else kind
    if kind.choices:
        return INT
    if kind.is_temporal:
        return decimal_kind(kind.scale) if kind.scale else INT
    return fixed(0) if kind.tag == "whole" else FLOAT


def numeric_kind(kind: Kind, otherwise: Kind) -> Kind:
    """Return the kind of a number made of a value, another where it is not known."""
    found = number_kind(kind)
    keeps = found.is_exact or found.family in ("any", "float")
    return found if keeps and found.tag != "unsigned" else otherwise


def as_number(program: Program) -> Program:
    """Return a program whose values are numbers."""
    if program.kind.is_exact or program.kind.family == "float":
        return program
    check_number(program.kind)
    if program.kind.tag == "whole":
        return mapped(program, _whole_number, fixed(0))
    return mapped(program, lambda value: number(value, program.kind), number_kind(program.kind))


def _whole_number(value: str) -> float:
    found = float(number(value))
    if not found.is_integer():
        raise QueryError(
            f"SQL on SQLite: what number MariaDB reads in {value!r:.60}, a text of DATE_FORMAT, "
            f"depends on the place: use CAST(... AS DECIMAL(20, 6))."
        )
    return found


def check_number(kind: Kind) -> None:
    """Raise `Untranslatable` if servers read no number, or different ones, in a text."""
    if kind.tag == "moment":
        raise Untranslatable("a number of a text that is a date")
    if kind.tag == "unclear":
        raise Untranslatable("the number of CAST AS CHAR, of MIN, MAX or a choice of enums")


def rounding(program: Program) -> Program:
    """Return a program whose texts are read as whole numbers, what follows the point cut."""
    if not program.kind.is_text or program.kind.choices:
        return program
    return mapped(program, lambda value: int(exact(value)), INT)


def argument(program: Program, letter: str) -> Program:
    """Return a program with values as a function takes them; see `functions.Function`."""
    kind = program.kind
    converts: dict[str, Callable[[Any], Any]] = {
        "t": lambda value: text(value, kind),
        "i": lambda value: int(exact(value)) if _is_text(value, kind) else whole(value, kind),
        "n": lambda value: number(value, kind),
        "f": lambda value: float(number(value, kind)),
        "d": comparing.moment,
        "h": comparing.duration,
        "b": lambda value: value if isinstance(value, bytes) else text(value, kind).encode(),
    }
    if letter == "r":
        numeric = kind.is_exact or kind.family in ("float", "bytes")
        return program if numeric else argument(program, "t")
    return replace(mapped(program, converts[letter], kind), literal=program.literal)


def _is_text(value: Any, kind: Kind) -> bool:
    return isinstance(value, str) and not kind.choices


def is_made_text(value: Program, node: Any) -> bool:
    """Whether a text follows from the expression alone, which the server knows beforehand."""
    from sqlglot import exp

    made = value.kind.family == "text" and value.literal is None
    return made and (value.kind.tag == "moment" or node.find(exp.Column) is None)


def has_null(node: Any) -> bool:
    """Whether NULL is written somewhere in an expression."""
    from sqlglot import exp

    return node.find(exp.Null) is not None


def letters(takes: str, count: int, name: str) -> str:
    """Return the letter of each argument of a call; see `functions.Function`."""
    needed, _, optional = takes.partition("|")
    found = needed + optional
    if found.endswith("*"):
        found = found[:-1]
        found += found[-1] * (count - len(found))
    if not len(needed.rstrip("*")) <= count <= len(found):
        raise Untranslatable(f"{name}() with {count} arguments")
    return found[:count]


def known(value: bool, *parts: bool | None) -> bool | None:
    """Return whether something holds, null if one of its parts is."""
    return None if None in parts else value


def tested(order: int | None, test: Callable[[int, int], bool]) -> int | None:
    """Return 1 or 0 for what an order tells, null for null."""
    return None if order is None else int(test(order, 0))


def unit(interval: Any) -> str:
    """Return the unit of an interval, upper case."""
    unit = interval.args.get("unit")
    if unit is None:
        raise Untranslatable("INTERVAL without a unit")
    return unit.name.upper()


def digits(program: Program) -> int:
    """Return how many digits of a second a time may have."""
    if isinstance(program.literal, str):
        return min(len(program.literal.partition(".")[2]), 6)
    return 6 if program.kind.is_text else min(program.kind.scale, 6)


def moved_kind(value: Program, by: Program, unit: str) -> Kind:
    """Return the kind of a date or time that was moved by an interval."""
    places = 6 if temporal.has_fraction(unit) else 0
    if unit == "SECOND":
        places = 6 if by.kind.is_text or by.kind.family == "float" else min(by.kind.scale, 6)
    family = value.kind.family
    if family == "date" and temporal.is_of_days(unit):
        return value.kind
    if family in ("date", "datetime", "time"):
        return Kind("time" if family == "time" else "datetime", max(value.kind.scale, places))
    return TEXT


def step(amount: Any, kind: Kind, unit: str) -> tuple[int, timedelta] | None:
    """Return the months and the time of an interval; None if it is none."""
    if unit not in temporal.SIMPLE_UNITS:
        return temporal.compound(text(amount, kind), unit)
    if unit == "SECOND" and not isinstance(amount, int):
        return temporal.interval(Decimal(exact(amount, kind)), unit)
    if isinstance(amount, str) and not kind.choices:
        return temporal.interval(int(exact(amount)), unit)
    return temporal.interval(whole(amount, kind), unit)


def within(value: timedelta) -> timedelta:
    """Return a time as the server has it, which ends at 839 hours."""
    longest = timedelta(hours=838, minutes=59, seconds=59, microseconds=999_999)
    return max(min(value, longest), -longest)


def later(at: Any, by: timedelta) -> Any:
    """Return a moment or time so much later."""
    if isinstance(at, timedelta):
        return within(at + by)
    return temporal.moved(at, 0, by)


def as_written(given: Any, found: Any, unit: str, is_written: bool) -> str:
    """Return a date that came as text and was moved, as the server writes it."""
    was_date = not isinstance(given, str) or not re.search(r"[T ]\d|:|^\d{12}", given.strip())
    if was_date and temporal.is_of_days(unit):
        return found.date().isoformat()
    if not is_written:
        raise QueryError(
            f"SQL on SQLite: how the time in the text {given!r} is written after it was moved "
            f"depends on the server. Use CAST(... AS DATETIME)."
        )
    return temporal.text(found, 6 if found.microsecond else 0)
