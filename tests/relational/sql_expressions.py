"""Random expressions of MySQL's SQL, asked of SQLite and of a server: equal, or refused by SQLite.

A long run, with services that are installed:
``python -m tests.relational.sql_expressions --expressions 20000``.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import dj_dagster as dj
from tests.relational.sql_grammar import (
    AGGREGATES,
    GRAMMAR,
    LEAVES,
    LONE_AGGREGATES,
    SIMPLE_AGGREGATES,
    WINDOWS,
)
from tests.services.database_server import drop_databases
from tests.services.mariadb import mariadb

DEFINITION = """
lot : int8
probe : int32
---
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


_ROWS = re.compile(r"\) (?:=|<>|<|>=) \(|in \(\(")
"""Where rows may be compared, such as ``(n, null) = (1, 2)``."""

_TWO_OF_JSON = re.compile(r"json_extract\([^()]*\)\)* (?:=|<>|<|>=|<=>) \(*json_extract\(")


def _is_wrong_on_mariadb(text: str) -> bool:
    """Whether MariaDB alone may answer otherwise; docs/values.md has both faults.

    The comparison of a row with a null is never null there, and two equal texts that
    ``JSON_EXTRACT`` gives are not equal. Moments after 2038, which an interval may reach, have
    no ``UNIX_TIMESTAMP``, and days after 9999 are the date 0 for ``FROM_DAYS``.
    """
    if "unix_timestamp(" in text and re.search(r"interval|timestampadd|\bc_at\b", text):
        return True
    if "from_days(" in text and "c_" in text:
        return True
    rest = text.replace(" is null", "")
    may_count = rest != text or "count(" in text
    return bool((may_count and "null" in rest and _ROWS.search(text)) or _TWO_OF_JSON.search(text))


def expressions(seed: int) -> Iterator[str]:
    """Yield random expressions without end."""
    source = random.Random(seed)
    while True:
        text = _made(source, source.choice("NNSSDAHB"), source.choice((1, 2, 2, 3)))
        if not _is_wrong_on_mariadb(text):
            yield text


def aggregates(seed: int) -> Iterator[str]:
    """Yield random expressions over groups of rows, without end."""
    source = random.Random(seed)
    while True:
        if source.random() < 0.3:
            text = _filled(source, source.choice(LONE_AGGREGATES), 2)
        else:
            text = _made(source, "G", source.choice((1, 2, 2, 3)))
        if not _is_wrong_on_mariadb(text):
            yield text


@dataclass(frozen=True)
class Steps:
    """An expression over attributes that others compute, perhaps in a subquery."""

    before: Mapping[str, str]
    text: str
    apart: bool

    def __str__(self) -> str:
        """Return all that is asked."""
        named = [f"{name} is {text}" for name, text in self.before.items()]
        return "; ".join([self.text, *named, *(["in a subquery"] if self.apart else [])])


_COMPUTED = {"n": "N", "price": "N", "x": "N", "name": "S", "day": "D", "at": "A", "clock": "H"}
"""Attributes that a first step replaces by what it computes, and of which kind that is."""

_NAMED = re.compile(rf"'[^']*'|\b({'|'.join(_COMPUTED)})\b")


def steps(seed: int) -> Iterator[Steps]:
    """Yield random expressions over what other random expressions give, without end."""
    source = random.Random(seed)
    while True:
        text = _made(source, source.choice("NNSSDAHB"), source.choice((1, 1, 2)))
        text = _NAMED.sub(lambda match: f"c_{match[1]}" if match[1] else match[0], text)
        before = {
            f"c_{name}": _made(source, kind, 1)
            for name, kind in _COMPUTED.items()
            if f"c_{name}" in text
        }
        made = Steps(before, text, source.random() < 0.3)
        if before and not _is_wrong_on_mariadb(str(made)):
            yield made


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
    def inside(match: re.Match[str]) -> str:
        inner = _made(source, match[1], depth - 1)
        is_plain = inner.replace("_", "").isalnum() or inner.startswith("'")
        return inner if is_plain else f"({inner})"

    return re.sub(r"\{([A-Z])\}", inside, form)


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
        return _compared_answers(texts, here, there)

    def of_steps(self, given: Sequence[Steps]) -> tuple[list[str], int]:
        """Return the same of expressions over computed attributes."""
        here, there = (
            {str(each): _after_steps(table, each) for each in given} for table in self._tables
        )
        return _compared_answers(list(here), here, there)

    def selections(self, texts: Sequence[str]) -> tuple[list[str], int]:
        """Return the same of the rows that expressions select."""
        here, there = ([_selected(table, text) for text in texts] for table in self._tables)
        named = [f"restricted by {text}" for text in texts]
        return _compared_answers(
            named, dict(zip(named, here, strict=True)), dict(zip(named, there, strict=True))
        )


Answers = dict[str, list[Any] | str]
"""What is found for each text, or why nothing is."""


def _compared_answers(texts: Sequence[str], here: Answers, there: Answers) -> tuple[list[str], int]:
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


def _selected(table: Any, text: str) -> list[Any] | str:
    """Return which rows an expression selects and which it leaves, or why there are none."""
    try:
        queries = (table & text, table - text)
        return [{row["probe"] for row in query.to_dicts()} for query in queries]
    except dj.DataJointError as error:
        return str(error)


def _after_steps(table: Any, given: Steps) -> list[Any] | str:
    try:
        query = table.proj(..., **given.before)
        if given.apart:
            query = (query & dj.Top(9)) & "probe > 0"
        return [row["found"] for row in query.proj(found=given.text).to_dicts(order_by="KEY")]
    except dj.DataJointError as error:
        return str(error)


def _answers(table: Any, texts: Sequence[str], grouped: bool) -> Answers:
    """Return the values of each expression in all rows or groups, or why there are none."""
    named = {f"v{number}": text for number, text in enumerate(texts)}
    try:
        query = dj.U("lot").aggr(table, **named) if grouped else table.proj(**named)
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
            differences += windows(pair)
            over = list(islice(steps(options.seed), options.expressions // 4))
            further, more = pair.of_steps(over)
            print("\n".join(further))
            differences += further
        finally:
            drop_databases(url, schema)
    print(f"{len(differences)} differ, {refused} refused by SQLite of {options.expressions}")
    print(f"{more} refused of {len(over)} over computed attributes")
    return 1 if differences else 0


def windows(pair: Pair) -> list[str]:
    """Return where window functions differ."""
    return [line for text in WINDOWS for line in pair.differences([text])[0]]


def _compared(
    pair: Pair, made: Iterator[str], groups: Iterator[str], count: int
) -> tuple[list[str], int]:
    differences: list[str] = []
    refused = 0
    for start in range(0, count, 50):
        grouped = start % 200 == 150
        texts = [next(groups if grouped else made) for _ in range(min(50, count - start))]
        found, not_done = pair.differences(list(dict.fromkeys(texts)), grouped=grouped)
        if not grouped:
            found += pair.selections(texts[::10])[0]
        for line in found:
            print(line, flush=True)
        differences += found
        refused += not_done
    return differences, refused


if __name__ == "__main__":
    sys.exit(main())
