"""Random expressions of MySQL's SQL, asked of SQLite and of a server: equal, or refused by SQLite.

A long run, with services that are installed:
``python -m tests.relational.sql_expressions --expressions 20000``.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dj_dagster as dj
from tests.services.database_server import drop_databases
from tests.services.mariadb import mariadb

DEFINITION = """
probe : int32
---
lot : int8
n : int32
m : int16
nothing = null : int32
x : float64
price : decimal(8,2)
name : varchar(20)
digits : varchar(20)
dose : enum('low', 'mid', 'high')
day : date
at : datetime
exact : datetime(3)
clock : time
info : json
"""
ROWS: list[dict[str, Any]] = [
    {"probe": 1, "lot": 1, "n": 5, "m": 2, "x": 2.5, "price": "1.25", "name": "abc", "digits": "5",
     "dose": "mid", "day": "2024-02-29", "at": "2024-02-29 13:05:59", "clock": "13:05:59",
     "exact": "2024-02-29 13:05:59.125", "info": {"k": 1, "s": "x"}},
    {"probe": 2, "lot": 1, "n": -7, "m": 3, "x": -0.125, "price": "-2.50",
     "name": "straße", "digits": "10.5",
     "dose": "low", "day": "1999-12-31", "at": "1999-12-31 00:00:00", "clock": "00:00:00",
     "exact": "1999-12-31 23:59:59.999", "info": {"k": 2.5, "s": "a b"}},
    {"probe": 3, "lot": 2, "n": 0, "m": 0, "x": 1e6, "price": "0.00", "name": "", "digits": "9x",
     "dose": "high", "day": "2024-01-05", "at": "2024-01-05 23:59:59", "clock": "10:30:00",
     "exact": "2024-01-05 00:00:00.000", "info": {"k": None, "t": [1, 2, {"u": "v"}]}},
    {"probe": 4, "lot": 3, "n": 123456, "m": 255, "x": 0.1, "price": "99999.99",
     "name": "b,c", "digits": "",
     "dose": "low", "day": "2000-03-01", "at": "2000-03-01 06:07:08", "clock": "23:59:59",
     "exact": "2000-03-01 06:07:08.090", "info": {"s": "u"}},
    {"probe": 5, "lot": 1, "n": 3, "m": 7, "x": 7.3, "price": "3.10",
     "name": "abd c", "digits": "3",
     "dose": "high", "day": "2023-07-08", "at": "2023-07-08 09:10:11", "clock": "04:00:01",
     "exact": "2023-07-10 09:10:11.500", "info": {"k": 3, "s": "X"}},
]  # fmt: skip

# What takes values of which kinds: N number, I small integer, S text, D date, A moment, H time,
# B condition, V any of these; G what is computed of groups.
GRAMMAR: dict[str, Sequence[str]] = {
    "N": (
        "{N} + {N}", "{N} - {N}", "{N} * {N}", "{N} / {N}", "{N} % {N}", "{N} DIV {N}", "-{N}",
        "{N} MOD {N}", "({I} & {I})", "({I} | {I})", "({I} ^ {I})", "({I} << {I})", "({I} >> {I})",
        "abs({N})", "sign({N})", "ceil({N})", "floor({N})", "round({N})", "round({N}, 1)",
        "round({N}, -1)", "truncate({N}, 1)", "sqrt({N})", "pow({I}, 2)", "exp({I})", "ln({N})",
        "log10({N})", "log2({N})", "mod({N}, {N})", "greatest({N}, {N})", "least({N}, {N})",
        "if({B}, {N}, {N})", "ifnull({N}, {N})", "coalesce(nothing, {N})", "nullif({N}, {N})",
        "case when {B} then {N} else {N} end", "case {I} when {I} then {N} end",
        "length({S})", "char_length({S})", "locate({S}, {S})", "instr({S}, {S})", "ascii({S})",
        "find_in_set({S}, 'a,b,c')", "field({S}, 'a', 'abc', 'low')", "strcmp({S}, {S})",
        "year({D})", "month({D})", "day({A})", "dayofweek({D})", "weekday({D})", "dayofyear({D})",
        "week({D})", "week({D}, 3)", "yearweek({D})", "quarter({A})", "hour({A})", "minute({H})",
        "second({A})", "microsecond(exact)", "datediff({D}, {A})", "to_days({D})",
        "timestampdiff(month, {D}, {A})", "timestampdiff(hour, {A}, {D})", "time_to_sec({H})",
        "extract(year_month from {D})", "cast({N} as signed)", "cast({S} as signed)",
        "cast({N} as decimal(12,2))", "cast({S} as decimal(12,3))", "{S} + 0", "dose + 0",
        "{D} + 0", "{A} + 0", "crc32({S})", "json_value(info, '$.k') + 0", "isnull({V})", "({B})",
        "json_length(info)", "bit_count({I})", "cast({N} as char) + 0", "ceil({D})",
        "round({H}, 1)", "strcmp(json_value(info, '$.s'), 'x')",
        "locate('x', json_value(info, '$.s'))",
        "-({N} % {N})",
    ),
    "S": (
        "concat({S}, {S})", "concat({S}, {N})", "concat_ws('-', {S}, nothing, {S})",
        "hex(upper({S}))",
        "concat({S}, {D}, {H})", "concat({A}, '')", "lower({S})", "left({S}, {I})",
        "right({S}, {I})", "substr({S}, {I})", "substring({S}, {I}, 2)", "trim({S})",
        "trim(leading 'a' from {S})", "lpad({S}, 5, '*')", "rpad({S}, 4, 'xy')", "reverse({S})",
        "repeat({S}, 2)", "replace({S}, 'a', 'oo')", "substring_index({S}, ',', 1)", "hex({S})",
        "hex({I})", "format({N}, 2)", "insert({S}, 2, 1, 'zz')", "elt({I}, 'p', 'q')", "md5({S})",
        "date_format({A}, '%Y/%m/%d %H:%i:%s %W %j %U %v %x')",
        "date_format({D}, '%c %e %b %y %D')",
        "time_format({H}, '%H.%i.%s')", "lower(monthname({D}))", "lower(dayname({D}))",
        "cast({N} as char)",
        "convert({I}, char)", "json_unquote(json_extract(info, '$.s'))", "json_value(info, '$.s')",
        "if({B}, {S}, {S})", "coalesce({S}, 'z')", "conv({I}, 10, 16)", "bin({I})",
        "if({B}, {N}, {S})", "case when {B} then {D} else {S} end", "quote({S})",
    ),
    "D": (
        "date({A})", "{D} + interval {I} day", "{D} - interval 1 month", "last_day({D})",
        "date_add({D}, interval {I} week)", "cast({A} as date)", "adddate({D}, {I})",
        "str_to_date('29/02/2024', '%d/%m/%Y')", "makedate(2024, {I})", "date('2024-1-5')",
        "if({B}, {D}, {D})", "greatest({D}, {D})", "timestampadd(year, 1, {D})",
    ),
    "A": (
        "{A} + interval {I} hour", "date_sub({A}, interval 90 minute)", "timestamp({D})",
        "cast({D} as datetime)", "{A} - interval '1:30' minute_second", "timestamp({D}, {H})",
        "str_to_date('2024-01-02 03:04:05', '%Y-%m-%d %H:%i:%s')", "exact", "if({B}, {A}, {A})",
        "date_add({D}, interval 1 hour)", "coalesce({A}, {D})", "timestampadd(minute, {I}, {A})",
    ),
    "H": ("time({A})", "maketime({I}, 5, 6)", "sec_to_time({I})", "cast({A} as time)",
          "timediff({A}, {A})", "addtime({H}, '1:00:00')", "cast('9:30' as time)"),
    "B": (
        "{N} = {N}", "{N} < {N}", "{N} >= {N}", "{N} <> {N}", "{N} <=> {N}", "{V} is null",
        "{N} is not null", "{B} and {B}", "{B} or {B}", "({B}) xor ({B})", "not ({B})",
        "({B}) && ({B})", "({B}) || ({B})", "!({B})", "{N} between {N} and {N}",
        "{N} in ({N}, {N}, 5)", "{S} = {S}", "{S} like 'a%'", "{S} not like '%b_'",
        "{S} regexp '^[a-c]'", "{S} in ('abc', {S})", "{D} = '2024-2-29'", "{D} < {D}",
        "{D} between '2000-1-1' and '2024-2-1'", "{A} > '2000-01-01 12:00'", "{A} = {D}",
        "clock < '9:30'", "{H} >= {H}", "{D} = 20240229", "digits > {I}", "digits = 5.0",
        "{S} in ({D}, {S})", "{D} in ('2024-2-29', {S})", "{D} in ({D}, '2024-2-29')",
        "{D} = {S}", "{H} < {S}", "{H} > '9:30'", "{H} between '1:00' and '12:30:00'",
        "{N} % {N} <=> {N}", "round({N}, 1) / {N} > {N}", "{S} like json_value(info, '$.s')",
        "json_value(info, '$.s') like 'x%'", "json_unquote(json_extract(info, '$.s')) regexp 'X'",
        "n = '5'", "({N}) is true", "dose = 2", "dose in ('low', 'mid')", "price = '1.25'",
    ),
}  # fmt: skip
AGGREGATES = (
    "count(*)", "count({V})", "sum({N})",
    "avg({N})", "min({N})", "max({N})", "sum({B})", "avg({I})",
    "sum(if({B}, {N}, 0))", "count(nullif({N}, {N}))", "count({B} or null)",
    "{G} + {G}", "{G} / count(*)", "round({G}, 2)", "ifnull({G}, 0)", "{G} > {G}", "-{G}",
    "if({G} > 1, {G}, 0)", "coalesce({G}, {G})", "{G} is null", "{G} between {G} and {G}",
    "case when count(*) > 1 then {G} else {G} end", "abs({G} - {G})", "greatest({G}, {G})",
    "bit_xor({I})", "bit_or({I})", "bit_and({I})", "max(dose) + 0", "{G} % {G}",
    "max({H}) > '9:30'", "round(max({H}), 2)", "cast(avg(ceil({N})) as char)",
    "max(json_value(info, '$.s')) like 'X%'",
)  # fmt: skip
SIMPLE_AGGREGATES = [form for form in AGGREGATES if "{G}" not in form]
LONE_AGGREGATES = (
    "count(distinct {N})", "count(distinct {D}, {I})", "sum(distinct {N})",
    "min({D})", "max({A})", "max({H})", "min({H})", "min(dose)", "max({S})",
    "max(timediff({A}, {A}))", "cast(std(n) as char)", "cast(avg({N}) as char)",
    "group_concat(name order by dose, probe)", "group_concat(name order by {H} desc, probe)",
    "group_concat({S} order by probe)", "group_concat({D} order by probe desc)",
    "group_concat(distinct n order by n desc separator '; ')", "std(n)", "stddev_samp(x)",
    "variance(m)", "var_samp(price)", "stddev_pop(x)", "stddev_samp(dose)", "variance(n)",
)  # fmt: skip
"""Aggregates that are asked for alone: inside others servers cut digits, or differ."""
LEAVES: dict[str, Sequence[str]] = {
    "N": ("n", "m", "nothing", "x", "price", "digits", "2", "0", "1.5", "-3", "0.25", "1e2", "10"),
    "I": ("n", "m", "1", "2", "3", "0", "-1"),
    "S": ("name", "digits", "dose", "'a'", "'abc'", "''", "'10'", "null", "'x y'"),
    "D": ("day", "day", "'2024-02-29'", "date '2001-03-04'"),
    "A": ("at", "at", "exact", "timestamp '2024-01-31 10:20:30'"),
    "H": ("clock", "clock", "time '01:02:03'"),
    "B": ("n > 1", "true", "nothing = 1", "m", "name = 'abc'"),
}
Made = Callable[[str], str]


def expressions(seed: int) -> Iterator[str]:
    """Yield random expressions without end."""
    source = random.Random(seed)
    while True:
        yield _made(source, source.choice("NNSSDAHB"), source.choice((1, 2, 2, 3)))


def aggregates(seed: int) -> Iterator[str]:
    """Yield random expressions over groups of rows, without end."""
    source = random.Random(seed)
    while True:
        if source.random() < 0.3:
            yield _filled(source, source.choice(LONE_AGGREGATES), 2)
        else:
            yield _made(source, "G", source.choice((1, 2, 2, 3)))


def _made(source: random.Random, kind: str, depth: int) -> str:
    if kind == "V":
        kind = source.choice("NSDAHB")
    if kind == "G":
        # None is inside another.
        form = source.choice(AGGREGATES if depth > 1 else SIMPLE_AGGREGATES)
    elif depth <= 0 or kind == "I":
        return source.choice(LEAVES[kind])
    else:
        form = source.choice(GRAMMAR[kind])
    return _filled(source, form, depth)


def _filled(source: random.Random, form: str, depth: int) -> str:
    parts = form.split("{")
    text = parts[0]
    for part in parts[1:]:
        inner = _made(source, part[0], depth - 1)
        is_plain = inner.replace("_", "").isalnum() or inner.startswith("'")
        text += inner if is_plain else f"({inner})"
        text += part[2:]
    return text


class Pair:
    """A table with the same rows on SQLite and on a server."""

    def __init__(self, sqlite_url: str, server_url: str, schema: str) -> None:
        self._tables = [_table(url, schema) for url in (sqlite_url, server_url)]

    def differences(self, texts: Sequence[str], *, grouped: bool = False) -> tuple[list[str], int]:
        """Return what SQLite answers otherwise than the server, and how many it refused.

        Parameters
        ----------
        grouped
            Whether the expressions are over groups of rows.
        """
        here, there = (_answers(table, texts, grouped) for table in self._tables)
        found: list[str] = []
        refused = 0
        for text in texts:
            ours, theirs = here[text], there[text]
            if isinstance(ours, str):
                refused += 1
                is_named = "SQLite" in ours or "attribute" in ours
                found += [] if is_named else [f"{text}: refused without a name: {ours}"]
            elif isinstance(theirs, str):
                found.append(f"{text}: {ours}, the server refuses: {theirs}")
            elif not all(
                same(one, other, _tolerance(text)) for one, other in zip(ours, theirs, strict=True)
            ):
                found.append(f"{text}: {ours}, the server: {theirs}")
        return found, refused


def _tolerance(text: str) -> float:
    # How many digits a mean has beside floats depends on MariaDB's plan; see docs/values.md.
    return 1e-8 if "avg(" in text else 1e-12


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two values are equal, floats but for their last digits."""
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return one == other or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return type(one) is type(other) and one == other


def _table(url: str, schema: str) -> Any:
    connection = dj.Connection(url)
    made = dj.Schema(schema, connection=connection)
    table: Any = made(type("Probe", (dj.Manual,), {"definition": DEFINITION}))
    table.insert(ROWS)
    return table


def _answers(table: Any, texts: Sequence[str], grouped: bool) -> dict[str, list[Any] | str]:
    """Return the values of each expression in all rows or groups, or why there are none."""
    named = {f"v{number}": text for number, text in enumerate(texts)}
    query = dj.U("lot").aggr(table, **named) if grouped else table.proj(**named)
    try:
        rows = query.to_dicts(order_by="KEY")
    except dj.DataJointError as error:
        if len(texts) == 1:
            return {texts[0]: str(error)}
        half = len(texts) // 2
        return _answers(table, texts[:half], grouped) | _answers(table, texts[half:], grouped)
    return {text: [row[name] for row in rows] for name, text in named.items()}


def main() -> int:
    """Compare so many expressions; print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--expressions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {datetime.datetime.now():%H:%M:%S}")
    made = expressions(options.seed)
    with tempfile.TemporaryDirectory() as folder, mariadb() as url:
        schema = f"t{uuid.uuid4().hex[:8]}_sql"
        try:
            pair = Pair(f"sqlite:///{Path(folder) / 'lab.sqlite'}", url, schema)
            groups = aggregates(options.seed)
            differences, refused = _compared(pair, made, groups, options.expressions)
        finally:
            drop_databases(url, schema)
    print(f"{len(differences)} differ, {refused} refused by SQLite of {options.expressions}")
    return 1 if differences else 0


def _compared(
    pair: Pair, made: Iterator[str], groups: Iterator[str], count: int
) -> tuple[list[str], int]:
    differences: list[str] = []
    refused = 0
    for start in range(0, count, 50):
        grouped = start % 200 == 150
        texts = [next(groups if grouped else made) for _ in range(min(50, count - start))]
        found, not_done = pair.differences(list(dict.fromkeys(texts)), grouped=grouped)
        for line in found:
            print(line, flush=True)
        differences += found
        refused += not_done
    return differences, refused


if __name__ == "__main__":
    sys.exit(main())
