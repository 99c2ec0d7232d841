"""Inserting: the forms that rows come in, the modes, and that all are written or none."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj


@pytest.fixture
def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        id : int32
        ---
        name = 'none' : varchar(30)
        score = null : float64
        unique index(name)
        """

    return Item


def rows(table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_dicts(order_by="KEY")]


FRAME = pd.DataFrame({"id": [1, 2], "name": ["a", "b"], "score": [0.5, np.nan]})


@pytest.mark.parametrize(
    "given",
    [
        [{"id": 1, "name": "a", "score": 0.5}, {"name": "b", "id": 2}],
        [(1, "a", 0.5), [2, "b", None]],
        lambda: iter([(1, "a", 0.5), (2, "b", None)]),
        FRAME,
        FRAME.set_index("id"),
        FRAME.to_records(index=False),
        np.array(
            [(1, "a", 0.5), (2, "b", np.nan)], dtype=[("id", int), ("name", "U2"), ("score", float)]
        ),
        np.array([[1, "a", 0.5], [2, "b", None]], dtype=object),
    ],
    ids=["dicts", "tuples", "iterator", "frame", "indexed", "records", "structured", "matrix"],
)
def test_forms_of_rows(item: Any, given: Any) -> None:
    item.insert(given() if callable(given) else given)
    assert rows(item) == [(1, "a", 0.5), (2, "b", None)]


def test_rows_of_a_query_or_table(item: Any, schema: Any) -> None:
    @schema
    class Copy(dj.Manual):
        definition = """
        id : int32
        ---
        name : varchar(20)
        """

    item.insert([(1, "a", 1), (2, "b", 2)])
    Copy.insert(item & {"id": 2}, ignore_extra_fields=True)
    Copy.insert((item & "id = 1").proj("name"))
    assert rows(Copy) == [(1, "a"), (2, "b")]


def test_inserting_nothing(item: Any) -> None:
    item.insert([])
    item.insert(FRAME.iloc[:0])
    assert len(item) == 0


def test_skip_duplicates_skips_keys_and_unique_values_only(item: Any) -> None:
    item.insert1((1, "a", 1))
    item.insert([(1, "x", 9), (2, "a", 9), (3, "c", 3)], skip_duplicates=True)
    assert rows(item) == [(1, "a", 1.0), (3, "c", 3.0)]
    with pytest.raises(dj.InvalidValueError):
        item.insert([(4, "d" * 31, None)], skip_duplicates=True)
    with pytest.raises(dj.MissingAttributeError):
        item.insert([{"name": "q"}], skip_duplicates=True)


def test_skip_duplicates_still_checks_foreign_keys(item: Any, schema: Any) -> None:
    schema.context = {"Item": item}

    @schema
    class Child(dj.Manual):
        definition = """
        -> Item
        """

    with pytest.raises(dj.IntegrityError, match=r"child.* does not exist, .*item with \{'id': 1\}"):
        Child.insert([(1,)], skip_duplicates=True)


def test_replace(item: Any) -> None:
    item.insert([(1, "a", 1), (2, "b", 2)])
    item.insert([(1, "z", None), (3, "c", 3)], replace=True)
    assert rows(item) == [(1, "z", None), (2, "b", 2.0), (3, "c", 3.0)]
    item.insert([{"id": 1, "score": 4}], replace=True)
    assert rows(item & "id = 1") == [(1, "none", 4.0)]


def test_row_that_others_refer_to_is_not_replaced_at_their_cost(item: Any, schema: Any) -> None:
    schema.context = {"Item": item}

    @schema
    class Child(dj.Manual):
        definition = """
        -> Item
        """

    item.insert1((1, "a", None))
    Child.insert1((1,))
    if replaces_parents(item.connection):
        item.insert([(1, "b", None)], replace=True)
        assert rows(item) == [(1, "b", None)]
    else:
        with pytest.raises(dj.IntegrityError, match="cannot be replaced"):
            item.insert([(1, "b", None)], replace=True)
        assert rows(item) == [(1, "a", None)]
    assert len(Child()) == 1


def replaces_parents(connection: dj.Connection) -> bool:
    """Whether the server replaces rows that others refer to, as MySQL does since 9."""
    if connection.backend.name == "sqlite":
        return False
    version = connection.query("SELECT VERSION()").fetchone()[0]
    return "MariaDB" not in version and int(version.split(".")[0]) >= 9


def test_duplicate_names_table_and_key(item: Any) -> None:
    item.insert1((1, "a", None))
    with pytest.raises(dj.DuplicateError, match=r"lab\.item.*skip_duplicates=True") as found:
        item.insert([(2, "b", None), (1, "c", None)])
    # Its text is not told by another error of ours before it.
    assert not isinstance(found.value.__cause__, dj.DataJointError)
    assert rows(item) == [(1, "a", None)]


def test_extra_field_in_a_late_row_writes_nothing(item: Any) -> None:
    many: list[dict[str, Any]] = [{"id": n, "name": str(n)} for n in range(10_000)]
    many[9_998]["extra"] = 1
    with pytest.raises(dj.UnknownAttributeError, match=r"'extra'.*ignore_extra_fields=True"):
        item.insert(many)
    assert len(item) == 0
    item.insert(many, ignore_extra_fields=True)
    assert len(item) == 10_000
    many.append({"id": 10_000, "name": "17"})
    with pytest.raises(dj.DuplicateError):
        item.insert([dict(row, id=row["id"] + 20_000) for row in many], ignore_extra_fields=True)
    assert len(item) == 10_000


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({"name": "a"}, dj.MissingAttributeError, "needs a value for 'id'"),
        ({"id": 1, "nmae": "a"}, dj.UnknownAttributeError, "nmae"),
        ((1, "a"), dj.QueryError, "3 attributes of .*: id, name, score"),
        ("abc", dj.QueryError, "'abc' is not a row"),
        (5, dj.QueryError, "5 is not a row"),
    ],
)
def test_bad_rows(item: Any, row: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        item.insert1(row)
    assert len(item) == 0


def test_insert_of_one_row_points_to_insert1(item: Any) -> None:
    with pytest.raises(dj.QueryError, match="insert1"):
        item.insert({"id": 1})


def test_sql_in_values_is_data(item: Any) -> None:
    nasty = ["'; DROP TABLE item; --", '" OR 1=1', "\\", "%s %(a)s", ":x ?", "`", "/* */", "\x00a"]
    item.insert([(n, text, None) for n, text in enumerate(nasty)])
    assert [row["name"] for row in item.to_dicts(order_by="id")] == nasty
    for number, text in enumerate(nasty):
        assert (item & {"name": text}).fetch1("id") == number
        assert (item & [{"name": text}, {"name": "other"}]).fetch1("id") == number
        assert len(item - {"name": text}) == len(nasty) - 1
    assert (item & {"name": nasty[0]}).delete() == 1


def test_computed_tables_take_rows_from_make_only(item: Any, schema: Any) -> None:
    schema.context = {"Item": item}

    @schema
    class Result(dj.Computed):
        definition = """
        -> Item
        """

    item.insert1((1, "a", None))
    with pytest.raises(dj.DataJointError, match="allow_direct_insert=True"):
        Result.insert1((1,))
    Result.insert1((1,), allow_direct_insert=True)
    assert len(Result) == 1


def test_transactions(item: Any, connection: dj.Connection) -> None:
    def fail() -> None:
        with connection.transaction():
            item.insert1((1, "a", None))
            assert len(item) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(item) == 0
    with connection.transaction():
        item.insert1((1, "a", None))
        with pytest.raises(dj.QueryError, match="do not nest"), connection.transaction():
            pass
        item.insert1((2, "b", None))
    assert len(item) == 2


REFUSED: dict[str, tuple[str, list[tuple[Any, ...]], dict[str, Any]]] = {
    "there already": ("Box", [(7, "g", 7), (3, "x", 8), (8, "h", 9)], {"box": 3, "kind": "x"}),
    "there already, the first": ("Box", [(3, "x", 8), (8, "h", 9)], {"box": 3, "kind": "x"}),
    "there already, the last": ("Box", [(8, "h", 9), (3, "x", 8)], {"box": 3, "kind": "x"}),
    "twice": ("Box", [(7, "g", 7), (9, "g", 8), (7, "g", 9)], {"box": 7, "kind": "g"}),
    "unique": ("Box", [(7, "g", 7), (9, "g", 4)], {"box": 9, "kind": "g"}),
    "no parent": (
        "Lid",
        [(1, "x", 1), (70, "x", 1), (2, "x", 1)],
        {"box": 70, "kind": "x", "n": 1},
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("inside", [False, True])
def test_the_row_of_many_that_was_refused_is_named(
    schema: Any, connection: dj.Connection, kind: str, inside: bool
) -> None:
    @schema
    class Box(dj.Manual):
        definition = """
        box : int32
        kind : varchar(8)
        ---
        mark : int32
        unique index (mark)
        """

    @schema
    class Lid(dj.Manual):
        definition = """
        -> Box
        n : int32
        """

    Box.insert([(n, "x", n) for n in range(5)])
    name, rows, key = REFUSED[kind]
    table = {"Box": Box, "Lid": Lid}[name]
    with (
        pytest.raises(dj.IntegrityError if name == "Lid" else dj.DuplicateError) as raised,
        connection.transaction if inside else contextlib.nullcontext(),
    ):
        table.insert(rows)
    assert f"The row's key: {key}." in str(raised.value)
    assert str(table().name) in str(raised.value)
    assert (len(Box()), len(Lid())) == (5, 0)


def test_fetch1_names_table_and_key(schema: Any) -> None:
    @schema
    class Box(dj.Manual):
        definition = """
        box : int32
        ---
        info = null : json
        """

    Box.insert([(1, {"a b": 1}), (2, {"a b": 1})])
    for query, told in (
        (Box & {"box": 3}, r"box, restricted by box = 3, has no row"),
        (Box & {"info.a b": 1} & "box < 9", r"""info."a b" = 1; box < 9, has 2 rows"""),
        (Box.proj() & {"box": 4}, r"box = 4, has no row"),
        (Box(), r"\.box has 2 rows"),
    ):
        with pytest.raises(dj.QueryError, match=told):
            query.fetch1()


def test_a_row_without_values_says_which_it_needs(schema: Any) -> None:
    definition = "item : int32\n---\nname : varchar(8)\nnote = null : varchar(8)\nn = 0 : int32"
    table: Any = schema(type("Item", (dj.Manual,), {"definition": definition}))
    with pytest.raises(
        dj.MissingAttributeError, match=r"Cannot insert empty row.*: item, name req"
    ):
        table.insert1({})
    with pytest.raises(dj.MissingAttributeError, match="needs a value for 'name'"):
        table.insert1({"item": 1})
    with pytest.raises(dj.QueryError, match="chunk_size is not supported for queries"):
        table.insert(table.proj(...), chunk_size=10)
