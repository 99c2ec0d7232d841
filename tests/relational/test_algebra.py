"""The query algebra against the same operations on plain Python rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dj_dagster as dj
from tests.lab import connect
from tests.services.mariadb import drop_databases

Row = dict[str, Any]
NAMES = "algebra_lab"


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dj.Schema]:
    """The tables of the tests, made once; each example empties and fills them."""
    folder: Path = tmp_path_factory.mktemp("algebra")
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder / 'a.sqlite'}" if sqlite else request.getfixturevalue("mariadb_url")
    connection = connect(url, folder)
    schema: Any = dj.Schema(NAMES, connection=connection)

    @schema
    class A(dj.Manual):
        definition = """
        a : int32
        ---
        x = null : int32
        s : varchar(3)
        """

    @schema
    class B(dj.Manual):
        definition = """
        -> A
        b : int32
        ---
        y = null : int32
        -> [nullable] A.proj(other='a')
        """

    @schema
    class C(dj.Manual):
        definition = """
        c : int32
        ---
        -> [nullable] A
        z : int32
        """

    yield schema
    connection.close()
    if not sqlite:
        drop_databases(url, NAMES)


keys = st.integers(0, 3)
maybe = st.none() | st.integers(0, 2)
words = st.sampled_from(["", "a", "b'", "%"])
tables = st.builds(
    lambda a, b, c: {
        "A": [{"a": k, "x": x, "s": s} for k, (x, s) in a.items()],
        "B": [
            {"a": k, "b": n, "y": y, "other": o if o in a else None}
            for (k, n), (y, o) in b.items()
            if k in a
        ],
        "C": [{"c": k, "a": r if r in a else None, "z": z} for k, (r, z) in c.items()],
    },
    st.dictionaries(keys, st.tuples(maybe, words), max_size=4),
    st.dictionaries(st.tuples(keys, keys), st.tuples(maybe, maybe), max_size=6),
    st.dictionaries(keys, st.tuples(maybe, keys), max_size=4),
)


@dataclass(frozen=True)
class Pair:
    """A query, and what it must give: rows, key and the origin of each attribute."""

    query: Any
    rows: list[Row]
    key: list[str]
    names: list[str]
    origin: dict[str, str | None]

    def agrees(self) -> None:
        found = self.query.to_dicts()
        assert sorted(map(_ordered, found)) == sorted(map(_ordered, self.rows))
        assert len(self.query) == len(self.rows)
        assert bool(self.query) == bool(self.rows)
        assert set(self.query.heading.names) == set(self.names)
        assert set(self.query.primary_key) == set(self.key)


def _ordered(row: Row) -> list[tuple[str, str]]:
    return [(name, repr(row[name])) for name in sorted(row)]


def base(lab: Any, data: dict[str, list[Row]], name: str) -> Pair:
    key = {"A": ["a"], "B": ["a", "b"], "C": ["c"]}[name]
    names = {"A": ["a", "x", "s"], "B": ["a", "b", "y", "other"], "C": ["c", "a", "z"]}[name]
    origin = {n: {"a": "A.a", "other": "A.a", "b": "B.b", "c": "C.c"}.get(n) for n in names}
    return Pair(lab.tables[name](), data[name], key, names, origin)


Test = Callable[[Row], bool]


def _same(row: Row, wanted: Row) -> bool:
    return all(row[name] == value for name, value in wanted.items() if name in row)


def dicts(names: list[str]) -> st.SearchStrategy[Row]:
    numbers = [name for name in names if name != "s"]
    chosen = st.dictionaries(st.sampled_from([*numbers, "nosuch"]), maybe, max_size=2)
    return chosen | st.builds(lambda s: {"s": s}, words) if "s" in names else chosen


@st.composite
def conditions(draw: Any, pair: Pair, depth: int = 2) -> tuple[Any, Test]:
    """An operand for ``&``, and its test of one row."""
    kinds = ["dict", "text", "bool"] + ["list", "and", "not"] * (depth > 0)
    match draw(st.sampled_from(kinds)):
        case "dict":
            wanted = draw(dicts(pair.names))
            return wanted, lambda row: _same(row, wanted)
        case "text":
            name = draw(st.sampled_from([n for n in pair.names if n != "s"]))
            limit = draw(keys)
            return f"{name} > {limit}", lambda row: row[name] is not None and row[name] > limit
        case "bool":
            value = draw(st.booleans())
            return value, lambda row: value
        case "list" | "and" as kind:
            parts = draw(st.lists(conditions(pair, depth - 1), max_size=3))
            operands = [operand for operand, _ in parts]
            tests = [test for _, test in parts]
            if kind == "and":
                return dj.AndList(operands), lambda row: all(test(row) for test in tests)
            return operands, lambda row: any(test(row) for test in tests)
        case _:
            operand, test = draw(conditions(pair, depth - 1))
            return dj.Not(operand), lambda row: not test(row)


def restricted(draw: Any, pair: Pair) -> Pair:
    operand, test = draw(conditions(pair))
    minus = draw(st.booleans())
    query = pair.query - operand if minus else pair.query & operand
    rows = [row for row in pair.rows if test(row) != minus]
    return Pair(query, rows, pair.key, pair.names, pair.origin)


def matched(draw: Any, pair: Pair, other: Pair) -> Pair | None:
    shared = [name for name in pair.names if name in other.names]
    if any(pair.origin[n] is None or pair.origin[n] != other.origin[n] for n in shared):
        with pytest.raises(dj.QueryError, match="not the same thing"):
            pair.query.restrict(other.query)
        return None
    found = {
        tuple(row[n] for n in shared)
        for row in other.rows
        if all(row[n] is not None for n in shared)
    }
    minus = draw(st.booleans())
    query = pair.query - other.query if minus else pair.query & other.query
    rows = [row for row in pair.rows if (tuple(row[n] for n in shared) in found) != minus]
    return Pair(query, rows, pair.key, pair.names, pair.origin)


def joined(pair: Pair, other: Pair) -> Pair | None:
    shared = [name for name in pair.names if name in other.names]
    if any(pair.origin[n] is None or pair.origin[n] != other.origin[n] for n in shared):
        with pytest.raises(dj.QueryError, match="not the same thing"):
            pair.query.join(other.query)
        return None
    rows = [
        {**left, **right}
        for left in pair.rows
        for right in other.rows
        if all(left[n] is not None and left[n] == right[n] for n in shared)
    ]
    if set(other.key) <= set(pair.names):
        key = pair.key
    elif set(pair.key) <= set(other.names):
        key = other.key
    else:
        key = list(dict.fromkeys(pair.key + other.key))
    names = list(dict.fromkeys(pair.names + other.names))
    return Pair(pair.query * other.query, rows, key, names, {**other.origin, **pair.origin})


def projected(draw: Any, pair: Pair) -> Pair:
    kept = [n for n in pair.names if n in pair.key or draw(st.booleans())]
    args: list[Any] = [n for n in kept if n not in pair.key]
    if draw(st.booleans()):
        args = [..., *(f"-{n}" for n in pair.names if n not in kept)]
    columns: dict[str, Callable[[Row], Any]] = {n: (lambda row, n=n: row[n]) for n in kept}
    origin = {n: pair.origin[n] for n in kept}
    key = list(pair.key)
    computed: dict[str, str] = {}
    free = [n for n in ("p", "q", "r") if n not in pair.names]
    for new in draw(st.lists(st.sampled_from(free), unique=True, max_size=2)) if free else []:
        old = draw(st.sampled_from(pair.names))
        kind = draw(st.sampled_from(["rename", "copy", "compute"]))
        if kind == "compute" and old != "s":
            computed[new] = f"{old} + 1"
            columns[new] = lambda row, old=old: None if row[old] is None else row[old] + 1
            origin[new] = None
            continue
        computed[new] = old if kind == "rename" else f"({old})"
        columns[new] = lambda row, old=old: row[old]
        origin[new] = pair.origin[old]
        if old in pair.key:
            key.append(new)
    renamed = {old for old in computed.values() if old in pair.names}
    names = [n for n in columns if n not in renamed]
    rows = [{n: columns[n](row) for n in names} for row in pair.rows]
    key = [n for n in key if n not in renamed]
    return Pair(pair.query.proj(*args, **computed), rows, key, names, origin)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_chains(lab: Any, data: st.DataObject) -> None:
    rows = data.draw(tables)
    fill(lab, rows)
    pairs = [base(lab, rows, name) for name in "ABC"]
    for _ in range(data.draw(st.integers(1, 5))):
        pair = data.draw(st.sampled_from(pairs))
        step = data.draw(st.sampled_from(["restrict", "match", "join", "project"]))
        if step == "restrict":
            new: Pair | None = restricted(data.draw, pair)
        elif step == "project":
            new = projected(data.draw, pair)
        else:
            other = data.draw(st.sampled_from(pairs))
            new = matched(data.draw, pair, other) if step == "match" else joined(pair, other)
        if new is not None:
            new.agrees()
            pairs.append(new)


def fill(lab: Any, rows: dict[str, list[Row]]) -> None:
    for name in "CBA":
        lab.tables[name]().delete_quick()
    for name in "ABC":
        lab.tables[name]().insert(rows[name])


@pytest.fixture
def filled(lab: Any) -> dict[str, Any]:
    fill(
        lab,
        {
            "A": [
                {"a": 1, "x": 1, "s": "a"},
                {"a": 2, "x": None, "s": "%"},
                {"a": 3, "x": 3, "s": "c"},
            ],
            "B": [{"a": 1, "b": 1, "y": 5, "other": None}, {"a": 2, "b": 1, "y": None, "other": 1}],
            "C": [{"c": 1, "a": None, "z": 1}, {"c": 2, "a": 1, "z": 2}],
        },
    )
    return dict(lab.tables)


def keys_of(query: Any, name: str = "a") -> list[int]:
    return [row[name] for row in query.to_dicts(order_by="KEY")]


def test_text_before_a_join_names_its_own_table(filled: dict[str, Any]) -> None:
    a, b = filled["A"], filled["B"]
    assert keys_of((a & "a > 1") * b) == [2]
    assert keys_of(b * (a & "a = 1").proj(x2="x + a")) == [1]
    assert keys_of((a & "a > 1") * (b & "a < 3")) == [2]


def test_text_finds_no_names_outside_its_query(lab: Any, filled: dict[str, Any]) -> None:
    if lab.connection.backend.name != "sqlite":  # SQLite looks in the queries around it, always
        with pytest.raises(dj.UnknownAttributeError):
            len(filled["A"] & (filled["B"] & "s = 'a'"))
    with pytest.raises(dj.UnknownAttributeError):
        len(filled["A"].proj(n="x") & "x > 0")
    assert keys_of(filled["A"].proj(n="x") & "n > 1") == [3]


def test_nulls_on_the_right_of_a_difference(filled: dict[str, Any]) -> None:
    assert keys_of(filled["A"] - filled["C"]) == [2, 3]
    assert keys_of(filled["A"] - filled["C"].proj("a")) == [2, 3]
    assert keys_of(filled["A"] - {"x": 1}) == [2, 3]
    assert keys_of(filled["A"] - "x = 1") == [2, 3]
    assert keys_of(filled["A"] & dj.Not([filled["C"], "x = 3"])) == [2]


def test_queries_without_shared_names(filled: dict[str, Any]) -> None:
    number = filled["A"].proj(number="a")
    assert len(filled["C"].proj() & number) == 2
    assert len(filled["C"].proj() & (number & "number > 9")) == 0
    assert len(filled["C"].proj() - (number & "number > 9")) == 2
    assert len(filled["C"].proj() * number) == 6


def test_percent_and_colon_in_text(filled: dict[str, Any]) -> None:
    assert keys_of(filled["A"] & "s = '%'") == [2]
    assert keys_of(filled["A"] & "s LIKE '%' AND s <> ':a'") == [1, 2, 3]
    assert keys_of(filled["A"] & 's = "c"') == [3]
    assert (filled["A"] & "a = 1").proj(t="'50%:x'").fetch1("t") == "50%:x"


def test_self_join(filled: dict[str, Any]) -> None:
    b = filled["B"]
    other = b.proj(c="b", d="y")
    assert len(b.proj("y") * other) == 2
    pairs = filled["A"].proj() * filled["A"].proj(a2="a") & "a < a2"
    assert [(row["a"], row["a2"]) for row in pairs.to_dicts(order_by="KEY")] == [
        (1, 2),
        (1, 3),
        (2, 3),
    ]


@pytest.mark.parametrize("count", [1, 100_000])
def test_restriction_by_very_many_keys(filled: dict[str, Any], count: int) -> None:
    a = filled["A"]
    assert keys_of(a & [{"a": n, "s": "c"} for n in range(3, 3 + count)]) == [3]
    assert keys_of(a & [{"a": n} for n in range(3, 3 + count)]) == [3]
    assert keys_of(a - [{"a": n} for n in range(3, 3 + count)]) == [1, 2]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda t: t["A"] & 5, "cannot be restricted by 5"),
        (lambda t: t["A"] * 5, "not with 5"),
        (lambda t: len(t["A"] & {"a": "x"}), "cannot be compared"),
        (lambda t: t["A"].proj("nosuch"), "no attribute 'nosuch'"),
        (lambda t: t["A"].proj("-a"), "primary key"),
        (lambda t: t["A"].proj(..., x="s"), "second attribute"),
        (lambda t: t["A"].proj(5), "not 5"),
        (lambda t: t["A"] & t["B"].proj(x="y"), "not the same thing.*proj"),
        (lambda t: t["A"] & dj.Manual, "cannot be restricted|belongs to no schema"),
        (lambda t: len(t["A"] & "a ="), "syntax"),
        (lambda t: len(t["A"] & "nosuch = 1"), "nosuch"),
        (lambda t: t["A"].to_dicts(order_by="nosuch"), "order_by names 'nosuch'"),
        (lambda t: t["A"].to_dicts(order_by="a; DROP TABLE a"), "order_by"),
    ],
)
def test_senseless_queries(filled: dict[str, Any], use: Any, words: str) -> None:
    with pytest.raises(dj.QueryError, match=words):
        use(filled)


def test_swapping_names(filled: dict[str, Any]) -> None:
    swapped = (filled["B"] & "b = 1 and a = 2").proj(y="other", other="y")
    assert swapped.fetch1() == {"a": 2, "b": 1, "y": 1, "other": None}
