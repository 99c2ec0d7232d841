"""Three small tables for tests of the algebra, and strategies for their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

import dj_dagster as dj
from tests.lab import connect
from tests.services.database_server import drop_databases

Row = dict[str, Any]

SOME: dict[str, list[Row]] = {
    "A": [
        {"a": 1, "x": 1, "s": "a"},
        {"a": 2, "x": None, "s": "%"},
        {"a": 3, "x": 3, "s": "c"},
    ],
    "B": [{"a": 1, "b": 1, "y": 5, "other": None}, {"a": 2, "b": 1, "y": None, "other": 1}],
    "C": [{"c": 1, "a": None, "z": 1}, {"c": 2, "a": 1, "z": 2}],
}

UNIT = 27720
"""A number that all up to twelve divide: most means are whole, whatever digits servers keep."""

keys = st.sampled_from([0, UNIT, 2 * UNIT])
maybe = st.none() | keys
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
    st.dictionaries(keys, st.tuples(maybe, words), min_size=1),
    st.dictionaries(st.tuples(keys, keys), st.tuples(maybe, maybe), max_size=6),
    st.dictionaries(keys, st.tuples(maybe, keys)),
)


def open_lab(
    backend: str, name: str, request: pytest.FixtureRequest, folder: Path
) -> Iterator[dj.Schema]:
    """Make a schema with the tables A, B and C; for the body of a fixture."""
    sqlite = backend == "sqlite"
    url = (
        f"sqlite:///{folder / 'a.sqlite'}" if sqlite else request.getfixturevalue(f"{backend}_url")
    )
    connection = connect(url, folder)
    schema: Any = dj.Schema(name, connection=connection)

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
        drop_databases(url, name)


def fill(lab: Any, rows: dict[str, list[Row]]) -> None:
    """Put these rows into the tables instead of those that they have."""
    for name in "CBA":
        lab.tables[name]().delete_quick()
    for name in "ABC":
        lab.tables[name]().insert(rows[name])


def keys_of(query: Any, name: str = "a") -> list[Any]:
    """Return one attribute of a query's rows, by primary key."""
    return [row[name] for row in query.to_dicts(order_by="KEY")]
