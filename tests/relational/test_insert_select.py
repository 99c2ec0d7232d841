"""Inserting the rows of queries: copied by the server, converted where it would do so wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj


@pytest.fixture
def trace(schema: Any) -> Any:
    @schema
    class Trace(dj.Manual):
        definition = """
        id : int32
        ---
        name : varchar(30)
        signal = null : <blob>
        score = null : float64
        """

    Trace.insert([(1, "a", np.arange(3), 0.5), (2, "b", None, None), (3, "c", {"k": 1}, 2.5)])
    return Trace


def copy_of(schema: Any, *lines: str) -> Any:
    class Copy(dj.Manual):
        definition = "\n".join(lines)

    return schema(Copy)


def test_copies_match_names_and_keep_blobs(schema: Any, trace: Any) -> None:
    # The attributes stand in another order.
    copy = copy_of(
        schema, "id : int32", "---", "signal = null : <blob>", "name : varchar(30)", "x = 7 : int32"
    )
    copy.insert(trace & "id < 3", ignore_extra_fields=True)
    copy.insert((trace & "id = 3").proj("signal", "name"))
    found = copy.to_dicts(order_by="id")
    assert [(row["id"], row["name"], row["x"]) for row in found] == [
        (1, "a", 7),
        (2, "b", 7),
        (3, "c", 7),
    ]
    np.testing.assert_array_equal(found[0]["signal"], np.arange(3))
    assert found[1]["signal"] is None
    assert found[2]["signal"] == {"k": 1}


def test_rows_do_not_pass_through_python(
    schema: Any, trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(schema, "id : int32", "---", "name : varchar(30)", "score = null : float64")
    monkeypatch.setattr(type(trace()), "__iter__", None)
    monkeypatch.setattr("dj_dagster.relational.inserting.insertion.batches", None)
    copy.insert(trace.proj("name", "score"))
    assert len(copy) == 3


def test_a_table_class_is_a_query(schema: Any, trace: Any) -> None:
    copy = copy_of(schema, "id : int32", "---", "name : varchar(30)")
    copy.insert(trace, ignore_extra_fields=True)
    assert len(copy) == 3


def test_modes(schema: Any, trace: Any) -> None:
    copy = copy_of(schema, "id : int32", "---", "name : varchar(30)")
    copy.insert1((2, "old"))
    query = trace.proj("name")
    with pytest.raises(dj.DuplicateError, match=r"copy.*skip_duplicates=True"):
        copy.insert(query)
    assert len(copy) == 1
    copy.insert(query, skip_duplicates=True)
    assert copy.to_arrays("name", order_by="id").tolist() == ["a", "old", "c"]
    copy.insert(query, replace=True)
    assert copy.to_arrays("name", order_by="id").tolist() == ["a", "b", "c"]


def test_names_that_do_not_fit(schema: Any, trace: Any) -> None:
    copy = copy_of(schema, "id : int32", "---", "name : varchar(30)", "more : int32")
    with pytest.raises(dj.UnknownAttributeError, match=r"'signal'.*ignore_extra_fields"):
        copy.insert(trace)
    with pytest.raises(dj.MissingAttributeError, match="'more'"):
        copy.insert(trace.proj("name"))
    copy.insert(trace.proj("name", more="id * 2"))
    assert copy.to_arrays("more", order_by="id").tolist() == [2, 4, 6]


def test_values_that_do_not_fit_are_refused(schema: Any, trace: Any) -> None:
    trace.insert1((4, "d" * 30, None, 1e300))
    copy = copy_of(schema, "id : int8", "---", "name : varchar(3)")
    with pytest.raises(dj.InvalidValueError, match="copy"):
        copy.insert(trace.proj("name"))
    with pytest.raises(dj.QueryError, match="copy"):
        copy.insert((trace & "id < 4").proj(name="concat(name, 'four')"))
    assert len(copy) == 0
    copy.insert((trace & "id < 4").proj("name"))
    assert len(copy) == 3


def test_another_codec_packs_anew(schema: Any, trace: Any) -> None:
    copy = copy_of(schema, "id : int32", "---", "signal = null : <blob@local>")
    copy.insert(trace.proj("signal"))
    np.testing.assert_array_equal((copy & "id = 1").fetch1("signal"), np.arange(3))


def test_query_of_another_connection(trace: Any, tmp_path: Path) -> None:
    other = dj.Connection(f"sqlite:///{tmp_path / 'other.sqlite'}")
    copy = copy_of(
        dj.Schema("elsewhere", connection=other), "id : int32", "---", "name : varchar(30)"
    )
    copy.insert(trace.proj("name"))
    assert copy.to_arrays("name", order_by="id").tolist() == ["a", "b", "c"]
    other.close()


def test_missing_parents_name_the_table(schema: Any, trace: Any) -> None:
    schema.context = {"Trace": trace}

    class Child(dj.Manual):
        definition = "-> Trace"

    child = schema(Child)
    other = copy_of(schema, "id : int32")
    other.insert([(1,), (99,)])
    with pytest.raises(dj.IntegrityError, match="child"):
        child.insert(other.proj())
    assert len(child) == 0


def test_in_a_make(schema: Any, trace: Any) -> None:
    schema.context = {"Trace": trace}

    @schema
    class Result(dj.Computed):
        definition = """
        -> Trace
        ---
        name : varchar(30)
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert((trace & key).proj("name"))

    Result.populate()
    assert Result.to_arrays("name", order_by="id").tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("of", "value", "to", "kept"),
    [
        ("decimal(8,3)", "1.005", "int32", None),
        ("float64", 0.5, "int64", None),
        ("int32", 2, "bool", None),
        ("varchar(9)", "ab ", "varchar(2)", None),
        ("float32", 0.1, "float64", 0.1),
        ("int32", 7, "decimal(8,3)", 7),
    ],
)
def test_another_type_takes_what_it_takes_from_elsewhere(
    schema: Any, of: str, value: Any, to: str, kept: Any
) -> None:
    source = schema(type("Source", (dj.Manual,), {"definition": f"id : int32\n---\nx : {of}"}))
    source.insert1((1, value))
    copy = copy_of(schema, "id : int32", "---", f"x : {to}")
    for rows in (source, source.to_dicts()):
        if kept is None:
            with pytest.raises(dj.InvalidValueError, match=r"copy\.x"):
                copy.insert(rows)
        else:
            copy.insert(rows)
            assert copy.fetch1("x") == kept
            copy.delete_quick()
    assert len(copy) == 0


def test_computed_values_are_not_rounded_to_integers_nor_places_of_enums(
    schema: Any, trace: Any
) -> None:
    copy = copy_of(schema, "id : int32", "---", "n : int32")
    copy.insert((trace & "id = 3").proj(n="2 * id"))
    with pytest.raises(dj.InvalidValueError, match=r"copy\.n"):
        copy.insert((trace & "id = 1").proj(n="id / 2"))
    assert copy.to_dicts() == [{"id": 3, "n": 6}]
    side = schema(
        type("Side", (dj.Manual,), {"definition": "id : int32\n---\nside : enum('left', 'right')"})
    )
    with pytest.raises(dj.InvalidValueError, match=r"side\.side"):
        side.insert(trace.proj(side="2"))
    side.insert((trace & "id = 1").proj(side="'right'"))
    assert side.fetch1("side") == "right"
