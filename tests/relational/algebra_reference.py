"""The query algebra on plain Python rows, step by step beside the queries that it checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import strategies as st

import dj_dagster as dj
from tests.relational.algebra_lab import Row, keys, maybe, words

Test = Callable[[Row], bool]
Terms = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A query, and what it must give: rows, key and the origin of each attribute.

    Attributes
    ----------
    top
        Of a query that ends in Top: the rows before it, its order, limit and offset.
    """

    query: Any
    rows: list[Row]
    key: list[str]
    names: list[str]
    origin: dict[str, str | None]
    top: tuple[list[Row], Terms, int | None, int] | None = None

    def agrees(self) -> None:
        """Compare what the query gives with the rows."""
        found = self.query.to_dicts()
        assert sorted(map(_ordered, found)) == sorted(map(_ordered, self.rows))
        assert len(self.query) == len(self.rows)
        assert bool(self.query) == bool(self.rows)
        assert set(self.query.heading.names) == set(self.names)
        assert set(self.query.primary_key) == set(self.key)
        if self.rows and self.key:
            assert {name: self.rows[0][name] for name in self.key} in self.query
        if self.top is not None:
            assert found == self.rows

    @property
    def numbers(self) -> list[str]:
        """The attributes that hold numbers."""
        return [n for n in self.names if not any(isinstance(row[n], str) for row in self.rows)]


def _ordered(row: Row) -> list[tuple[str, str]]:
    # The mean of means has more digits than are known here.
    return [
        (name, repr(round(value, 4) if isinstance(value := row[name], float) else value))
        for name in sorted(row)
    ]


def base(lab: Any, data: dict[str, list[Row]], name: str) -> Pair:
    key = {"A": ["a"], "B": ["a", "b"], "C": ["c"]}[name]
    names = {"A": ["a", "x", "s"], "B": ["a", "b", "y", "other"], "C": ["c", "a", "z"]}[name]
    origin = {n: {"a": "A.a", "other": "A.a", "b": "B.b", "c": "C.c"}.get(n) for n in names}
    return Pair(lab.tables[name](), data[name], key, names, origin)


def _same(row: Row, wanted: Row) -> bool:
    return all(row[name] == value for name, value in wanted.items() if name in row)


def _dicts(pair: Pair) -> st.SearchStrategy[Row]:
    chosen = st.dictionaries(st.sampled_from([*pair.numbers, "nosuch"]), maybe, max_size=2)
    return chosen | st.builds(lambda s: {"s": s}, words) if "s" in pair.names else chosen


@st.composite
def _conditions(draw: Any, pair: Pair, depth: int = 2) -> tuple[Any, Test]:
    """An operand for ``&``, and its test of one row."""
    kinds = ["dict", "text", "bool"] + ["list", "and", "not"] * (depth > 0)
    match draw(st.sampled_from(kinds)):
        case "dict":
            wanted = draw(_dicts(pair))
            return wanted, lambda row: _same(row, wanted)
        case "text" if pair.numbers:
            name = draw(st.sampled_from(pair.numbers))
            limit = draw(keys)
            return f"{name} > {limit}", lambda row: row[name] is not None and row[name] > limit
        case "list" | "and" as kind:
            parts = draw(st.lists(_conditions(pair, depth - 1), max_size=3))
            operands = [operand for operand, _ in parts]
            tests = [test for _, test in parts]
            if kind == "and":
                return dj.AndList(operands), lambda row: all(test(row) for test in tests)
            return operands, lambda row: any(test(row) for test in tests)
        case "not":
            operand, test = draw(_conditions(pair, depth - 1))
            return dj.Not(operand), lambda row: not test(row)
        case _:
            value = draw(st.booleans())
            return value, lambda row: value


def restricted(draw: Any, pair: Pair) -> Pair:
    operand, test = draw(_conditions(pair))
    minus = draw(st.booleans())
    query = pair.query - operand if minus else pair.query & operand
    rows = [row for row in pair.rows if test(row) != minus]
    top = pair.top if operand is True and not minus else None
    return replace(pair, query=query, rows=rows, top=top)


def _clash(pair: Pair, other: Pair) -> bool:
    shared = [name for name in pair.names if name in other.names]
    return any(pair.origin[n] is None or pair.origin[n] != other.origin[n] for n in shared)


def may_extend(pair: Pair, other: Pair) -> bool:
    return set(other.key) <= set(pair.names) and not _clash(pair, other)


def may_aggregate(pair: Pair, other: Pair) -> bool:
    return set(pair.key) <= set(other.names) and not _clash(pair, other)


def may_unite(pair: Pair, other: Pair) -> bool:
    shared = {name for name in pair.names if name in other.names}
    return set(pair.key) == set(other.key) == shared and not _clash(pair, other)


def _refused(run: Callable[[], Any], words: str) -> None:
    with pytest.raises(dj.QueryError, match=words):
        run()


def _partners(row: Row, pair: Pair, other: Pair) -> list[Row]:
    shared = [name for name in pair.names if name in other.names]
    return [
        theirs
        for theirs in other.rows
        if all(row[n] is not None and row[n] == theirs[n] for n in shared)
    ]


def matched(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    if _clash(pair, other):
        return _refused(lambda: pair.query & other.query, "not the same thing")
    minus = draw(st.booleans())
    query = pair.query - other.query if minus else pair.query & other.query
    rows = [row for row in pair.rows if bool(_partners(row, pair, other)) != minus]
    return Pair(query, rows, pair.key, pair.names, pair.origin)


def joined(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    del draw
    if _clash(pair, other):
        return _refused(lambda: pair.query * other.query, "not the same thing")
    rows = [{**row, **theirs} for row in pair.rows for theirs in _partners(row, pair, other)]
    if set(other.key) <= set(pair.names):
        key = pair.key
    elif set(pair.key) <= set(other.names):
        key = other.key
    else:
        key = list(dict.fromkeys(pair.key + other.key))
    names = list(dict.fromkeys(pair.names + other.names))
    return Pair(pair.query * other.query, rows, key, names, {**other.origin, **pair.origin})


def extended(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    del draw
    if _clash(pair, other):
        return _refused(lambda: pair.query.extend(other.query), "not the same thing")
    if not set(other.key) <= set(pair.names):
        return _refused(lambda: pair.query.extend(other.query), "many partners")
    names = list(dict.fromkeys(pair.names + other.names))
    missing = dict.fromkeys(other.names)
    rows = [
        {**missing, **theirs, **row}
        for row in pair.rows
        for theirs in _partners(row, pair, other) or [{}]
    ]
    query = pair.query.extend(other.query)
    return Pair(query, rows, pair.key, names, {**other.origin, **pair.origin})


AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "max": lambda values: max(values, default=None),
    "min": lambda values: min(values, default=None),
    "sum": lambda values: sum(values) if values else None,
    "avg": lambda values: _mean(values) if values else None,
}


def _mean(values: list[Any]) -> float:
    """Return a mean with four digits, as servers give it of integers."""
    whole = all(isinstance(value, int) for value in values)
    mean = sum(map(Decimal, map(str, values))) / len(values)
    return float(mean.quantize(Decimal("0.0001"), ROUND_HALF_UP) if whole else mean)


def _aggregates(draw: Any, numbers: list[str], taken: list[str]) -> dict[str, tuple[str, str]]:
    free = [name for name in ("n", "m") if name not in taken]
    if not numbers or not free:
        return {}
    what = st.tuples(st.sampled_from([*AGGREGATES, "all"]), st.sampled_from(numbers))
    return {name: draw(what) for name in free}


def _texts(computed: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {
        new: "count(*)" if function == "all" else f"{function}({name})"
        for new, (function, name) in computed.items()
    }


def _values(computed: dict[str, tuple[str, str]], group: list[Row]) -> Row:
    return {
        new: len(group)
        if function == "all"
        else AGGREGATES[function]([row[name] for row in group if row[name] is not None])
        for new, (function, name) in computed.items()
    }


def aggregated(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    computed = _aggregates(draw, other.numbers, pair.names + other.names)
    exclude = draw(st.booleans())

    def query() -> Any:
        return pair.query.aggr(other.query, *kept, exclude_nonmatching=exclude, **_texts(computed))

    kept = [n for n in pair.names if n in pair.key or draw(st.booleans())]
    if not set(pair.key) <= set(other.names):
        return _refused(query, "whole primary key")
    if _clash(pair, other):
        return _refused(query, "not the same thing")
    missing = dict.fromkeys(other.names)
    rows: list[Row] = []
    for row in pair.rows:
        found = _partners(row, pair, other)
        if found or not exclude:
            group = [{**theirs, **row} for theirs in found] or [{**missing, **row}]
            rows.append({**{n: row[n] for n in kept}, **_values(computed, group)})
    origin = {**pair.origin, **dict.fromkeys(computed)}
    return Pair(query(), rows, pair.key, [*kept, *computed], origin)


def grouped(draw: Any, pair: Pair) -> Pair:
    names = draw(st.lists(st.sampled_from(pair.names), unique=True)) if pair.names else []
    computed = _aggregates(draw, pair.numbers, pair.names)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in pair.rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    if computed and draw(st.booleans()):
        query = dj.U(*names).aggr(pair.query, **_texts(computed))
        groups = groups if names else {(): pair.rows}
    else:
        query, computed = dj.U(*names) & pair.query, {}
    rows = [
        {**dict(zip(names, key, strict=True)), **_values(computed, group)}
        for key, group in groups.items()
    ]
    origin = {**{n: pair.origin[n] for n in names}, **dict.fromkeys(computed)}
    return Pair(query, rows, names, [*names, *computed], origin)


def united(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    del draw
    secondary = [n for n in pair.names if n not in pair.key]
    theirs = [n for n in other.names if n not in other.key]
    if set(pair.key) != set(other.key):
        return _refused(lambda: pair.query + other.query, "one primary key")
    if any(n in secondary for n in theirs):
        return _refused(lambda: pair.query + other.query, "Both sides")
    if any(row[n] is None for row in pair.rows + other.rows for n in pair.key):
        return None
    rows: dict[tuple[Any, ...], Row] = {}
    for row in [*other.rows, *pair.rows]:
        key = tuple(row[n] for n in pair.key)
        rows[key] = {**rows.get(key, dict.fromkeys([*secondary, *theirs])), **row}
    origin = {**other.origin, **pair.origin}
    names = [*pair.key, *secondary, *theirs]
    return Pair(pair.query + other.query, [*rows.values()], pair.key, names, origin)


def _in_order(rows: list[Row], order: Terms) -> list[Row]:
    for term in reversed(order):
        name, _, direction = term.partition(" ")
        # Nulls come first.
        rows = sorted(
            rows,
            key=lambda row: (row[name] is not None, row[name] if row[name] is not None else 0),
            reverse=direction == "DESC",
        )
    return rows


def topped(draw: Any, pair: Pair) -> Pair:
    limit, offset = draw(st.none() | st.integers(0, 3)), draw(st.integers(0, 2))
    first = (
        draw(
            st.lists(st.sampled_from([*pair.names, *(f"{n} DESC" for n in pair.names)]), max_size=1)
        )
        if pair.names
        else []
    )
    inherit = pair.top is not None and draw(st.booleans())
    query = pair.query & dj.Top(limit, None if inherit else [*first, "KEY"], offset)
    rows, order = pair.rows, (*first, *pair.key)
    if pair.top is not None and (inherit or order == pair.top[1]):
        rows, order, before, left_out = pair.top
        limits = [number for number in (before, limit) if number is not None]
        limit, offset = min(limits, default=None), offset + left_out
    end = None if limit is None else offset + limit
    found = _in_order(rows, order)[offset:end]
    return replace(pair, query=query, rows=found, top=(rows, order, limit, offset))


def projected(draw: Any, pair: Pair) -> Pair:
    kept = [n for n in pair.names if n in pair.key or draw(st.booleans())]
    args: list[Any] = [n for n in kept if n not in pair.key]
    if draw(st.booleans()):
        args = [..., *(f"-{n}" for n in pair.names if n not in kept)]
    columns: dict[str, Callable[[Row], Any]] = {n: (lambda row, n=n: row[n]) for n in kept}
    origin = {n: pair.origin[n] for n in kept}
    key = list(pair.key)
    computed: dict[str, str] = {}
    free = [n for n in ("p", "q", "r") if n not in pair.names] if pair.names else []
    for new in draw(st.lists(st.sampled_from(free), unique=True, max_size=2)) if free else []:
        old = draw(st.sampled_from(pair.names))
        kind = draw(st.sampled_from(["rename", "copy", "compute"]))
        if kind == "compute" and old in pair.numbers and old != "s":
            computed[new] = f"{old} + 1"
            columns[new] = lambda row, old=old: None if row[old] is None else row[old] + 1
            origin[new] = None
            continue
        computed[new] = old if kind == "rename" else f"({old})"
        columns[new] = lambda row, old=old: row[old]
        origin[new] = pair.origin[old]
        if old in pair.key:
            key.append(new)
    renamed = {old for old in computed.values() if old in pair.names and old not in args}
    names = [n for n in columns if n not in renamed]
    rows = [{n: columns[n](row) for n in names} for row in pair.rows]
    key = [n for n in key if n not in renamed]
    return Pair(pair.query.proj(*args, **computed), rows, key, names, origin)
