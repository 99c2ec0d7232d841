"""MySQL's functions of dates and times, in Python, with the intervals that move them."""

from __future__ import annotations

import re
from calendar import day_abbr, day_name, month_abbr, month_name, monthrange
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import conversion, temporal
from dj_dagster.relational.user_sql.kinds import (
    DATE,
    INT,
    TEXT,
    Kind,
    Number,
    SqlValue,
    decimal_kind,
    exact,
    full_year,
    leading_integer,
    text,
    whole,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import (
    Arguments,
    CallForm,
    Function,
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


def step(amount: SqlValue, kind: Kind, unit: str) -> tuple[int, timedelta] | None:
    """Return the months and the time of an interval, None if it is not one."""
    if unit not in temporal.SIMPLE_UNITS:
        return temporal.compound(text(amount, kind), unit)
    if unit == "SECOND" and not isinstance(amount, int):
        return temporal.interval(Decimal(exact(amount, kind)), unit)
    if isinstance(amount, str) and not kind.choices:
        return temporal.interval(leading_integer(amount), unit)
    return temporal.interval(whole(amount, kind), unit)


def later(at: datetime | timedelta, by: timedelta) -> datetime | timedelta | None:
    """Return a moment or time moved by an amount."""
    if not isinstance(at, timedelta):
        return temporal.moved(at, 0, by)
    if abs(at + by) >= temporal.TIMES_END:
        raise QueryError(
            "SQL on SQLite: servers differ in what ADDTIME() and SUBTIME() make of 839 hours or "
            "more."
        )
    return at + by


def as_written(given: SqlValue, found: datetime, unit: str, is_written: bool) -> str:
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
        raise Untranslatable("ADDTIME() or SUBTIME() of what is not a time by its type")
    if other.kind.family in ("date", "datetime"):
        raise Untranslatable("ADDTIME() or SUBTIME() of a date")
    kind = replace(one.kind, scale=max(one.kind.scale, digits(other)))
    more = argument(mapped(other, _without_date, other.kind), "h")
    return strict([one, more], lambda at, by: later(at, sign * by), kind)


def _without_date(value: SqlValue) -> SqlValue:
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


def _moved(program_of: ProgramOf, value: Program, amount: Expr, unit: str, sign: int) -> Program:
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
    if by.kind.tag == "unclear":
        raise Untranslatable("INTERVAL of a text whose number differs between servers")
    if call_name(amount.unnest()) in ("GREATEST", "LEAST") and by.kind.family != "int":
        # For these, servers round either one argument before the comparison or the result.
        raise Untranslatable("INTERVAL of GREATEST() or LEAST() of fractions: use ROUND()")
    if by.kind.is_temporal and by.kind.scale and unit != "SECOND":
        raise Untranslatable("INTERVAL of a date or time with digits after its seconds")
    if any(call_name(part) == "CONV" for part in amount.walk()):
        # For negative numbers of these, MariaDB returns null in all rows but the first.
        raise Untranslatable("INTERVAL of CONV(): use CAST(... AS SIGNED)")
    is_open = by.kind.is_text or (by.kind.family == "float" and by.kind.tag != "fixed")
    if kind.family == "text" and unit == "SECOND" and is_open:
        raise Untranslatable("a text moved by seconds of any digits: use CAST(... AS DATETIME)")

    def run(at: SqlValue, much: SqlValue) -> temporal.Temporal | None:
        by_ = step(much, by.kind, unit)
        if by_ is None:
            return None
        months, rest = sign * by_[0], sign * by_[1]
        if isinstance(at, timedelta):
            return None if months or abs(at + rest) >= temporal.TIMES_END else at + rest
        moment = conversion.moment(at)
        found = None if moment is None else temporal.moved(moment, months, rest)
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

_DATE_CODES = frozenset("abcDdejMmUuVvWwXxYy")
_TIME_CODES = frozenset("fHhIiklprSsT")


def _ordinal(day: int) -> str:
    if day // 10 == 1:
        return f"{day}th"
    return f"{day}{({1: 'st', 2: 'nd', 3: 'rd'}).get(day % 10, 'th')}"


_CODES: dict[str, Callable[[datetime], str]] = {
    "a": lambda at: day_abbr[at.weekday()],
    "b": lambda at: month_abbr[at.month],
    "c": lambda at: str(at.month),
    "D": lambda at: _ordinal(at.day),
    "d": lambda at: f"{at.day:02d}",
    "e": lambda at: str(at.day),
    "f": lambda at: f"{at.microsecond:06d}",
    "H": lambda at: f"{at.hour:02d}",
    "h": lambda at: f"{(at.hour + 11) % 12 + 1:02d}",
    "I": lambda at: f"{(at.hour + 11) % 12 + 1:02d}",
    "i": lambda at: f"{at.minute:02d}",
    "j": lambda at: f"{at.timetuple().tm_yday:03d}",
    "k": lambda at: str(at.hour),
    "l": lambda at: str((at.hour + 11) % 12 + 1),
    "M": lambda at: month_name[at.month],
    "m": lambda at: f"{at.month:02d}",
    "p": lambda at: "PM" if at.hour >= 12 else "AM",
    "r": lambda at: _filled(at, "%I:%i:%S %p"),
    "S": lambda at: f"{at.second:02d}",
    "s": lambda at: f"{at.second:02d}",
    "T": lambda at: _filled(at, "%H:%i:%S"),
    "U": lambda at: f"{temporal.week(at, 0)[1]:02d}",
    "u": lambda at: f"{temporal.week(at, 1)[1]:02d}",
    "V": lambda at: f"{temporal.week(at, 2)[1]:02d}",
    "v": lambda at: f"{temporal.week(at, 3)[1]:02d}",
    "W": lambda at: day_name[at.weekday()],
    "w": lambda at: str(at.isoweekday() % 7),
    "X": lambda at: f"{temporal.week(at, 2)[0]:04d}",
    "x": lambda at: f"{temporal.week(at, 3)[0]:04d}",
    "Y": lambda at: f"{at.year:04d}",
    "y": lambda at: f"{at.year % 100:02d}",
}


def formatted(at: datetime, form: str) -> str | None:
    """Return a moment by a pattern of DATE_FORMAT, None for an empty one.

    >>> formatted(datetime(2024, 2, 29, 13, 5), "%c/%d/%y %h:%i %p")
    '2/29/24 01:05 PM'
    """
    return _filled(at, form) if form else None


def _filled(at: datetime, form: str) -> str:
    return re.sub("%(.)", lambda code: _coded(at, code[1]), form, flags=re.DOTALL)


def _coded(at: datetime, code: str) -> str:
    return _CODES[code](at) if code in _CODES else code


def formatted_time(at: timedelta, form: str) -> str | None:
    """Return a time, which may exceed 24 hours, by a pattern of TIME_FORMAT."""
    hours, rest = divmod(abs(at), timedelta(hours=1))
    within = datetime.combine(date(2000, 1, 1), time()) + timedelta(hours=hours % 24) + rest
    sign = "-" if at < timedelta(0) else ""
    codes = set(re.findall("%(.)", form))
    if codes & _DATE_CODES:
        return None
    form = form.replace("%T", "%H:%i:%S")
    form = form.replace("%H", f"{hours:02d}").replace("%k", f"{hours}")
    # Servers write the sign before all else.
    return f"{sign}{_filled(within, form)}" if form else None


def parts_of(form: str) -> tuple[bool, bool, bool]:
    """Return whether a pattern has a date, a time, and digits of a second."""
    codes = set(re.findall("%(.)", form))
    return bool(codes & _DATE_CODES), bool(codes & _TIME_CODES), "f" in codes


_NAMES = {
    "M": [name.lower() for name in month_name],
    "b": [name.lower() for name in month_abbr],
    "W": [name.lower() for name in day_name],
    "a": [name.lower() for name in day_abbr],
}
_READ = {
    "Y": r"\d{1,4}", "y": r"\d{1,2}", "m": r"\d{1,2}", "c": r"\d{1,2}", "d": r"\d{1,2}",
    "e": r"\d{1,2}", "D": r"\d{1,2}(?:st|nd|rd|th)", "H": r"\d{1,2}", "k": r"\d{1,2}",
    "h": r"\d{1,2}", "I": r"\d{1,2}", "l": r"\d{1,2}", "i": r"\d{1,2}", "s": r"\d{1,2}",
    "S": r"\d{1,2}", "f": r"\d{1,6}", "p": "am|pm", "j": r"\d{1,3}",
    **{code: "|".join(filter(None, names)) for code, names in _NAMES.items()},
}  # fmt: skip


@lru_cache(maxsize=200)
def _reader(form: str) -> tuple[re.Pattern[str], list[str]] | None:
    """Return the expression for a pattern's texts and its groups' codes, None if unsupported."""
    form = form.replace("%T", "%H:%i:%S").replace("%r", "%I:%i:%S %p")
    codes: list[str] = []
    parts: list[str] = []
    for match in re.finditer(r"%(.)|(\s+)|(.)", form, re.DOTALL):
        code = match[1]
        if code is None:
            parts.append(r"\s*" if match[2] else rf"\s*{re.escape(match[3])}")
        elif code == "%":
            parts.append("%")
        elif code in _READ:
            codes.append(code)
            parts.append(rf"\s*({_READ[code]})")
        else:
            return None
    return re.compile("".join(parts), re.IGNORECASE | re.ASCII), codes


def can_read(form: str) -> bool:
    """Whether texts of a pattern can be read."""
    return _reader(form) is not None


def parsed(value: str, form: str) -> temporal.Temporal | None:
    """Parse a date, moment or time by a pattern; None if the text does not fit."""
    reader = _reader(form)
    assert reader is not None  # see `can_read`
    match = reader[0].match(value)
    if match is None:
        return None
    fields: dict[str, int] = {}
    for code, found in zip(reader[1], match.groups(), strict=True):
        _take(fields, code, found.lower())
    return _built(fields, *parts_of(form)[:2])


def _take(fields: dict[str, int], code: str, found: str) -> None:
    if code in ("M", "b"):
        fields["month"] = _NAMES[code].index(found)
    elif code == "p":
        fields["pm"] = found == "pm"
    elif code == "f":
        fields["micro"] = int(f"{found:<06}")
    elif code == "D":
        fields["day"] = int(found[:-2])
    elif code == "y" or (code == "Y" and len(found) <= 2):
        fields["year"] = int(found) + (2000 if int(found) < 70 else 1900)
    elif code not in ("W", "a"):
        name = {"Y": "year", "m": "month", "c": "month", "d": "day", "e": "day", "j": "yearday",
                "H": "hour", "k": "hour", "h": "half", "I": "half", "l": "half", "i": "minute",
                "s": "second", "S": "second"}[code]  # fmt: skip
        fields[name] = int(found)


def _built(fields: dict[str, int], has_date: bool, has_time: bool) -> temporal.Temporal | None:
    if not fields.keys() - {"pm"}:
        return None
    hour = fields.get("hour", 0)
    if "half" in fields:
        if not 1 <= fields["half"] <= 12:
            return None
        hour = fields["half"] % 12 + 12 * fields.get("pm", 0)
    try:
        at = time(hour, fields.get("minute", 0), fields.get("second", 0), fields.get("micro", 0))
        if not has_date:
            return datetime.combine(date.min, at) - datetime.min
        if "yearday" in fields:
            day = date(fields["year"], 1, 1) + timedelta(days=fields["yearday"] - 1)
        else:
            day = date(fields["year"], fields["month"], fields["day"])
    except (ValueError, KeyError, OverflowError):
        return None
    return datetime.combine(day, at) if has_time else day


_UNLIKE = Kind("null", -1)
"""The kind of values in which servers differ."""


def _makedate(year: int, day: int) -> date | None:
    try:
        return date(full_year(year), 1, 1) + timedelta(days=day - 1) if day > 0 else None
    except (ValueError, OverflowError):
        return None


def _maketime(hour: int, minute: int, second: int | Decimal) -> timedelta | None:
    if not (0 <= minute < 60 and 0 <= second < 60):
        return None
    sign = -1 if hour < 0 else 1
    micros = int(second * 1_000_000)
    found = timedelta(hours=abs(hour), minutes=minute, microseconds=micros)
    if isinstance(second, Decimal):
        found = temporal.within(found, 6, "MAKETIME()")
    return sign * min(found, timedelta(hours=838, minutes=59, seconds=59))


def _maketime_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    """Return the kind of a time; servers agree in rounding only few fractions."""
    del literals
    seconds = kinds[2]
    return Kind("time", seconds.scale) if seconds.is_exact and seconds.scale <= 6 else _UNLIKE


def _sec_to_time(seconds: Number) -> timedelta:
    longest = timedelta(hours=838, minutes=59, seconds=59)
    try:
        micros = Decimal(seconds) * 1_000_000
        if isinstance(seconds, float) and abs(seconds) < 1e7 and micros % 1:
            raise QueryError(
                f"SQL on SQLite: servers differ in which microsecond {seconds} is in "
                f"SEC_TO_TIME(). Round it to a DECIMAL."
            )
        if abs(seconds) >= 3_020_400 and not isinstance(seconds, int):
            raise QueryError(
                f"SQL on SQLite: servers differ in what SEC_TO_TIME() makes of {seconds} seconds, "
                f"which are more than a time may have."
            )
        found = timedelta(microseconds=int(micros))
    except OverflowError:
        found = longest if seconds > 0 else -longest
    return max(min(found, longest), -longest)


def _from_unixtime(seconds: Number, form: str | None = None) -> datetime | str | None:
    if not 0 <= seconds < 2**31:
        return None
    at = datetime.fromtimestamp(int(seconds))
    at += timedelta(microseconds=int((Decimal(str(seconds)) % 1) * 1_000_000))
    return at if form is None else formatted(at, form)


def _converted_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    written = literals[0]
    if kinds[0].is_temporal:
        return Kind("datetime", kinds[0].scale)
    return Kind("datetime", 0 if isinstance(written, str) and "." not in written else -1)


def _unix_timestamp(at: datetime | None = None) -> int | Decimal:
    if at is None:
        return int(datetime.now().timestamp())
    found = Decimal(int(at.replace(microsecond=0).timestamp())) + Decimal(at.microsecond) / 1000000
    return max(found if at.microsecond else int(found), 0)


def _timestamp_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    del literals
    return decimal_kind(_places(kinds[0])) if kinds and _places(kinds[0]) else INT


def _places(kind: Kind) -> int:
    """Return the number of digits of a second of a value that is taken as a moment or a time."""
    if kind.is_temporal or kind.family == "decimal" or kind.tag == "fixed":
        return min(kind.scale, 6)
    return 0 if kind.family in ("int", "null") else 6


def _now_digits(kinds: Sequence[Kind], literals: Arguments) -> int:
    found = literals[0] if kinds else 0
    if not isinstance(found, int | None):
        raise Untranslatable("the time now with a number of digits that is not an integer")
    return found or 0


def _now_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    return Kind("datetime", _now_digits(kinds, literals))


def _curtime_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    return Kind("time", _now_digits(kinds, literals))


def _now(places: int = 0) -> datetime:
    return temporal.round_to(datetime.now(), places)


def _utc(places: int = 0) -> datetime:
    from datetime import UTC

    return temporal.round_to(datetime.now(UTC).replace(tzinfo=None), places)


def _moment_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    """Return the kind of a moment with the digits of its first argument."""
    if isinstance(literals[0], str):
        _, dot, fraction = literals[0].rpartition(".")
        return Kind("datetime", min(len(fraction), 6) if dot else 0)
    return Kind("datetime", _places(kinds[0]))


def _sum_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    scales = [_moment_kind([k], [v]).scale for k, v in zip(kinds, literals, strict=False)]
    if kinds[-1].family == "null" and len(kinds) > 1:
        scales = [6]
    return Kind("datetime", max(scales))


def _time_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    return Kind("time", _moment_kind(kinds, literals).scale)


def _str_to_date_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    del kinds
    form = literals[1]
    if not isinstance(form, str) or not can_read(form):
        return _UNLIKE
    has_date, has_time, fraction = parts_of(form)
    scale = 6 if fraction else 0
    if has_date:
        return Kind("datetime", scale) if has_time else DATE
    return Kind("time", scale)


def _timestamp(at: datetime, extra: timedelta | None = None) -> datetime | None:
    return temporal.moved(at, 0, extra or timedelta())


def _week(at: datetime | None, mode: int | None = 0) -> int | None:
    return None if at is None else temporal.week(at, temporal.week_mode(mode))[1]


def _yearweek(at: datetime | None, mode: int | None = 0) -> int | None:
    year, week = (0, 0) if at is None else temporal.week(at, temporal.week_mode(mode) | 2)
    return year * 100 + week or None


def _last_day(at: datetime) -> date:
    return at.date().replace(day=monthrange(at.year, at.month)[1])


def _period(value: int) -> int:
    year, month = divmod(value, 100)
    if value < 0 or not 1 <= month <= 12:
        raise QueryError(f"SQL on SQLite: servers differ in the period {value}: write YYYYMM.")
    return full_year(year) * 12 + month - 1


def _period_add(value: int, months: int) -> int:
    year, month = divmod(_period(value) + months, 12)
    if year < 100:
        raise QueryError(f"SQL on SQLite: servers differ in periods of the year {year}.")
    return year * 100 + month + 1


_TIME = timedelta


_MICRO = timedelta(microseconds=1)


def _part(at: timedelta, size: timedelta, limit: int | None) -> int:
    found = abs(at) // size
    return found if limit is None else found % limit


DATE_FUNCTIONS: Mapping[str, Function] = {
    "DATE": Function(lambda at: at.date(), "d", DATE),
    "TIME": Function(lambda at: at, "h", _time_kind),
    "TIMESTAMP": Function(_timestamp, "d|h", _sum_kind),
    "YEAR": Function(lambda at: at.year, "d", INT),
    "QUARTER": Function(lambda at: (at.month + 2) // 3, "d", INT),
    "MONTH": Function(lambda at: at.month, "d", INT),
    "MONTHNAME": Function(lambda at: formatted(at, "%M"), "d", Kind("text", tag="whole")),
    "DAY": Function(lambda at: at.day, "d", INT),
    "DAYOFYEAR": Function(lambda at: at.timetuple().tm_yday, "d", INT),
    "DAYOFWEEK": Function(lambda at: at.isoweekday() % 7 + 1, "d", INT),
    "DAYNAME": Function(lambda at: formatted(at, "%W"), "d", Kind("text", tag="whole")),
    "WEEKDAY": Function(lambda at: at.weekday(), "d", INT),
    "WEEK": Function(_week, "d|i", INT, nulls=True),
    "WEEKOFYEAR": Function(lambda at: temporal.week(at, 3)[1], "d", INT),
    "YEARWEEK": Function(_yearweek, "d|i", INT, nulls=True),
    "HOUR": Function(lambda at: _part(at, _TIME(hours=1), None), "h", INT),
    "MINUTE": Function(lambda at: _part(at, _TIME(minutes=1), 60), "h", INT),
    "SECOND": Function(lambda at: _part(at, _TIME(seconds=1), 60), "h", INT),
    "MICROSECOND": Function(lambda at: _part(at, _MICRO, 1_000_000), "h", INT),
    "DATEDIFF": Function(lambda end, start: (end.date() - start.date()).days, "dd", INT),
    "DATE_FORMAT": Function(formatted, "dt", Kind("text", tag="whole")),
    "TIME_FORMAT": Function(formatted_time, "ht", Kind("text", tag="moment")),
    "STR_TO_DATE": Function(parsed, "tt", _str_to_date_kind),
    "LAST_DAY": Function(_last_day, "d", DATE),
    "MAKEDATE": Function(_makedate, "ii", DATE),
    "MAKETIME": Function(_maketime, "iin", _maketime_kind),
    "TO_DAYS": Function(lambda at: at.toordinal() + 365, "d", INT),
    "FROM_DAYS": Function(temporal.from_days, "i", DATE),
    "TO_SECONDS": Function(lambda at: (at.toordinal() + 365) * 86400
                     + int(temporal.time_of(at).total_seconds()), "d", INT),
    "TIME_TO_SEC": Function(lambda at: int(at.total_seconds()), "h",
                      lambda kinds, _: _UNLIKE if _places(kinds[0]) else INT),
    "SEC_TO_TIME": Function(_sec_to_time, "n", lambda kinds, _: Kind("time", _places(kinds[0]))),
    "FROM_UNIXTIME": Function(_from_unixtime, "n|t", lambda kinds, _: TEXT if len(kinds) > 1
                        else Kind("datetime", _places(kinds[0])), pure=False),
    "CONVERT_TZ": Function(temporal.in_zone, "dtt", _converted_kind),
    "UNIX_TIMESTAMP": Function(_unix_timestamp, "|d", _timestamp_kind, pure=False),
    "PERIOD_ADD": Function(_period_add, "ii", INT),
    "PERIOD_DIFF": Function(lambda one, other: _period(one) - _period(other), "ii", INT),
    "NOW": Function(_now, "|i", _now_kind, pure=False),
    "CURDATE": Function(lambda: _now().date(), "", DATE, pure=False),
    "CURTIME": Function(lambda n=0: temporal.time_of(_now(n)), "|i", _curtime_kind, pure=False),
    "UTC_TIMESTAMP": Function(_utc, "|i", _now_kind, pure=False),
    "UTC_DATE": Function(lambda: _utc().date(), "", DATE, pure=False),
    "UTC_TIME": Function(lambda n=0: temporal.time_of(_utc(n)), "|i", _curtime_kind, pure=False),
}  # fmt: skip
