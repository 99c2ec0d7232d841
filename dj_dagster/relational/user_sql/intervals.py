"""Dates and times moved by intervals, and differences between them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import conversion, temporal
from dj_dagster.relational.user_sql.kinds import (
    INT,
    TEXT,
    Kind,
    exact,
    leading_integer,
    text,
    whole,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import (
    CallForm,
    Program,
    ProgramOf,
    Untranslatable,
    argument,
    mapped,
    strict,
)

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr


def unit(interval: Expr) -> str:
    """Return the unit of an interval in upper case."""
    unit = interval.args.get("unit")
    if unit is None:
        raise Untranslatable("INTERVAL without a unit")
    return unit.name.upper()


def digits(program: Program) -> int:
    """Return the number of digits of a second that a time may have."""
    if isinstance(program.literal, str):
        return min(len(program.literal.partition(".")[2]), 6)
    is_open = program.kind.is_text or program.kind.family == "null"
    return 6 if is_open else min(program.kind.scale, 6)


def moved_kind(value: Program, by: Program, unit: str) -> Kind:
    """Return the kind of a date or time that was moved by an interval."""
    places = 6 if temporal.has_fraction(unit) else 0
    if unit == "SECOND":
        is_open = by.kind.is_text or (by.kind.family == "float" and by.kind.tag != "fixed")
        places = 6 if is_open else min(by.kind.scale, 6)
    family = value.kind.family
    if family == "date" and temporal.is_of_days(unit):
        return value.kind
    if family in ("date", "datetime", "time"):
        return Kind("time" if family == "time" else "datetime", max(value.kind.scale, places))
    return TEXT


def step(amount: Any, kind: Kind, unit: str) -> tuple[int, timedelta] | None:
    """Return the months and the time of an interval, None if it is not one."""
    if unit not in temporal.SIMPLE_UNITS:
        return temporal.compound(text(amount, kind), unit)
    if unit == "SECOND" and not isinstance(amount, int):
        return temporal.interval(Decimal(exact(amount, kind)), unit)
    if isinstance(amount, str) and not kind.choices:
        return temporal.interval(leading_integer(amount), unit)
    return temporal.interval(whole(amount, kind), unit)


def later(at: Any, by: timedelta) -> Any:
    """Return a moment or time moved by an amount."""
    if not isinstance(at, timedelta):
        return temporal.moved(at, 0, by)
    if abs(at + by) >= temporal.TIMES_END:
        raise QueryError(
            "SQL on SQLite: servers differ in what ADDTIME() and SUBTIME() make of 839 hours or "
            "more."
        )
    return at + by


def as_written(given: Any, found: Any, unit: str, is_written: bool) -> str:
    """Return a moved date that was given as text, in the form that the server writes."""
    was_date = not isinstance(given, str) or not re.search(r"[T ]\d|:|^\d{12}", given.strip())
    if was_date and temporal.is_of_days(unit):
        return found.date().isoformat()
    if not is_written or found.microsecond:
        raise QueryError(
            f"SQL on SQLite: how the time in the text {given!r} is written after it was moved "
            f"depends on the server. Use CAST(... AS DATETIME)."
        )
    return temporal.text(found, 0)


def _date_add(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _added(program_of, given, 1)


def _date_sub(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _added(program_of, given, -1)


def _added(program_of: ProgramOf, given: Sequence[Expr], sign: int) -> Program:
    from sqlglot import exp

    if len(given) != 2:
        raise Untranslatable("DATE_ADD() without two arguments")
    value = program_of(given[0])
    if isinstance(given[1], exp.Interval):
        return _moved(program_of, value, given[1].this, unit(given[1]), sign)
    return _moved(program_of, value, given[1], "DAY", sign)


def _add_time(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _time_sum(program_of, given, 1)


def _sub_time(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _time_sum(program_of, given, -1)


def _time_sum(program_of: ProgramOf, given: Sequence[Expr], sign: int) -> Program:
    one, other = (program_of(part) for part in given)
    if one.kind.family not in ("datetime", "time"):
        raise Untranslatable("ADDTIME() or SUBTIME() of what is no time by its type")
    if other.kind.family in ("date", "datetime"):
        raise Untranslatable("ADDTIME() or SUBTIME() of a date")
    kind = replace(one.kind, scale=max(one.kind.scale, digits(other)))
    more = argument(mapped(other, _without_date, other.kind), "h")
    return strict([one, more], lambda at, by: later(at, sign * by), kind)


def _without_date(value: Any) -> Any:
    if isinstance(value, str) and not temporal.is_time(value) and temporal.duration(value):
        raise QueryError(
            f"SQL on SQLite: servers differ in ADDTIME() and SUBTIME() of {value!r:.60}, which is "
            f"not a time alone."
        )
    return value


def _timediff(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    one, other = (program_of(part) for part in given)
    if one.kind.family != other.kind.family or one.kind.family not in ("datetime", "time"):
        raise Untranslatable("TIMEDIFF() of what are not two times or moments by their types")
    kind = Kind("time", max(one.kind.scale, other.kind.scale))

    def run(a: Any, b: Any) -> timedelta:
        return temporal.round_to(temporal.within(a - b, kind.scale, "TIMEDIFF()"), kind.scale)

    return strict([one, other], run, kind)


def _timestampadd(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    unit = given[0].name.upper().removeprefix("SQL_TSI_")
    return _moved(program_of, program_of(given[2]), given[1], unit, 1)


def _timestampdiff(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    unit = given[0].name.upper().removeprefix("SQL_TSI_")
    if unit not in temporal.SIMPLE_UNITS:
        raise Untranslatable(f"TIMESTAMPDIFF() in {unit}")
    values = [argument(program_of(part), "d") for part in given[1:]]
    return strict(values, lambda a, b: temporal.between(unit, a, b), INT)


def interval_sum(program_of: ProgramOf, node: Expr) -> Program:
    """Return the program of a sum or difference with an interval."""
    from sqlglot import exp

    sign = 1 if isinstance(node, exp.Add) else -1 if isinstance(node, exp.Sub) else 0
    first = isinstance(node.this, exp.Interval)
    if not sign or (first and sign < 0):
        raise Untranslatable("INTERVAL in this place")
    value, interval = (node.expression, node.this) if first else (node.this, node.expression)
    return _moved(program_of, program_of(value), interval.this, unit(interval), sign)


def _moved(program_of: ProgramOf, value: Program, amount: Any, unit: str, sign: int) -> Program:
    if unit not in temporal.UNITS:
        raise Untranslatable(f"INTERVAL in {unit}")
    by = program_of(amount)
    is_written = isinstance(value.literal, str)
    kind = moved_kind(value, by, unit)
    is_number = value.kind.is_exact or value.kind.family == "float"
    if is_number and value.literal is None:
        raise Untranslatable("INTERVAL added to a number that is computed")
    if by.kind.family == "bytes":
        raise Untranslatable("INTERVAL of bytes")
    if call_name(amount.unnest()) in ("GREATEST", "LEAST") and by.kind.family != "int":
        # For these, servers round either one argument before the comparison or the result.
        raise Untranslatable("INTERVAL of GREATEST() or LEAST() of fractions: use ROUND()")
    if by.kind.is_temporal and by.kind.scale and unit != "SECOND":
        raise Untranslatable("INTERVAL of a date or time with digits after its seconds")
    if any(call_name(part) == "CONV" for part in amount.walk()):
        # For negative numbers of these, MariaDB returns null in all rows but the first.
        raise Untranslatable("INTERVAL of CONV(): use CAST(... AS SIGNED)")
    if kind.family == "text" and unit == "SECOND" and by.kind.is_text:
        raise Untranslatable("a text moved by a text of seconds: use CAST(... AS DATETIME)")

    def run(at: Any, much: Any) -> Any:
        by_ = step(much, by.kind, unit)
        if by_ is None:
            return None
        months, rest = sign * by_[0], sign * by_[1]
        if isinstance(at, timedelta):
            return None if months or abs(at + rest) >= temporal.TIMES_END else at + rest
        at = conversion.moment(at)
        found = None if at is None else temporal.moved(at, months, rest)
        if found is None or found.year < 1:
            return None
        return found.date() if kind.family == "date" else found

    moved = strict([value, by], run, kind)
    if kind.family != "text":
        return moved
    # A text gives a text: a date if it was and remains one.
    kind = Kind("text", tag="moment")
    return strict([value, moved], lambda at, found: as_written(at, found, unit, is_written), kind)


CALLS: Mapping[str, CallForm] = {
    "DATE_ADD": _date_add, "ADDDATE": _date_add, "DATE_SUB": _date_sub, "SUBDATE": _date_sub,
    "ADDTIME": _add_time, "SUBTIME": _sub_time, "TIMEDIFF": _timediff,
    "TIMESTAMPADD": _timestampadd, "TIMESTAMPDIFF": _timestampdiff,
}  # fmt: skip
