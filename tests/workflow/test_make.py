"""What a make may be: in three parts, a generator, of several rows, looking upstream."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.workflow.attempt import content_hash
from dj_dagster.workflow.populate import populate_keys


@pytest.fixture
def trace(schema: Any) -> Any:
    @schema
    class Trace(dj.Manual):
        definition = """
        trace_id : int32
        ---
        data : <blob>
        """

    Trace.insert([(n, np.arange(n + 1)) for n in range(3)])
    return Trace


class ThreeParts:
    """The methods of a make in three parts."""

    seen: list[tuple[str, bool]]

    def make_fetch(self: Any, key: dict[str, Any], scale: int = 1) -> tuple[Any, ...]:
        self.seen.append(("fetch", self.connection.in_transaction))
        return (self.Trace & key).fetch1("data"), scale

    def make_compute(self: Any, key: dict[str, Any], data: Any, scale: int) -> tuple[Any, ...]:
        self.seen.append(("compute", self.connection.in_transaction))
        return (int(data.sum()) * scale,)

    def make_insert(self: Any, key: dict[str, Any], total: int) -> None:
        self.seen.append(("insert", self.connection.in_transaction))
        self.insert1({**key, "total": total})


def total_of(schema: Any, trace: Any, **members: Any) -> Any:
    body = {
        "definition": "-> Trace\n---\ntotal : int32",
        "Trace": trace,
        "seen": list[tuple[str, bool]](),
        **members,
    }
    return schema(type("Total", (ThreeParts, dj.Computed), body))


def test_long_computation_holds_no_transaction(schema: Any, trace: Any) -> None:
    table = total_of(schema, trace)
    assert table.populate({"trace_id": 2}, make_kwargs={"scale": 10})["success_count"] == 1
    assert table.fetch1("total") == 30
    assert table.seen == [
        ("fetch", False), ("compute", False), ("fetch", True), ("insert", True),
    ]  # fmt: skip
    assert table.populate()["success_count"] == 2


def test_inputs_that_change_meanwhile_fail_the_key(schema: Any, trace: Any) -> None:
    def change(self: Any, key: dict[str, Any], data: Any, scale: int) -> tuple[Any, ...]:
        trace.update1({**key, "data": data + 1})
        return (int(data.sum()),)

    table = total_of(schema, trace, make_compute=change)
    with pytest.raises(dj.PopulateError, match="have changed while it was computed"):
        table.populate(max_calls=1)
    assert len(table) == 0


def test_parts_of_a_make_return_tuples(schema: Any, trace: Any) -> None:
    table = total_of(schema, trace, make_fetch=lambda self, key: 3)
    with pytest.raises(dj.PopulateError, match=r"make_fetch of .* returned int, not a tuple"):
        table.populate()


def test_make_as_a_generator(schema: Any, trace: Any) -> None:
    computed_for: list[int] = []

    def make(self: Any, key: dict[str, Any]) -> Any:
        data = (trace & key).fetch1("data")
        total = yield (data,)
        if total is None:
            computed_for.append(key["trace_id"])
            total = int(data.sum())
            yield total
        assert self.connection.in_transaction
        self.insert1({**key, "total": total})
        yield

    table = total_of(schema, trace, make=make)
    assert table.populate()["success_count"] == 3
    assert table.to_arrays("total", order_by="KEY").tolist() == [0, 1, 3]
    assert computed_for == [0, 1, 2]


def test_generator_that_never_computes_is_refused(schema: Any, trace: Any) -> None:
    def make(self: Any, key: dict[str, Any]) -> Any:
        yield ()

    with pytest.raises(dj.PopulateError, match="must yield what it fetched"):
        total_of(schema, trace, make=make).populate()


def test_old_name_of_make(schema: Any, trace: Any) -> None:
    def make_tuples(self: Any, key: dict[str, Any]) -> None:
        self.insert1({**key, "total": 7})

    table = total_of(schema, trace, _make_tuples=make_tuples)
    assert table.populate()["success_count"] == 3
    assert set(table.to_arrays("total")) == {7}


def test_make_of_many_rows_fills_other_tables_too(schema: Any, trace: Any) -> None:
    @schema
    class Note(dj.Imported):
        definition = """
        -> Trace
        """

    @schema
    class Sample(dj.Computed):
        definition = """
        -> Trace
        sample : int16
        ---
        value : int32
        """

        class Peak(dj.Part):
            definition = """
            -> master
            """

        def make(self, key: dict[str, Any]) -> None:
            data = (trace & key).fetch1("data")
            rows = [{**key, "sample": n, "value": int(value)} for n, value in enumerate(data)]
            self.insert(rows)
            self.Peak.insert(rows[-1:], ignore_extra_fields=True)
            Note.insert1(key, allow_direct_insert=True)

    assert Sample.populate(reserve_jobs=True)["success_count"] == 3
    assert (len(Sample), len(Sample.Peak), len(Note)) == (6, 3, 3)
    assert Sample.jobs.progress()["total"] == 0


def test_upstream(schema: Any) -> None:
    @schema
    class Lab(dj.Manual):
        definition = """
        lab : varchar(8)
        """

    @schema
    class Subject(dj.Manual):
        definition = """
        subject : int32
        ---
        -> Lab
        """

    @schema
    class Session(dj.Manual):
        definition = """
        -> Subject
        session : int32
        """

    @schema
    class Other(dj.Manual):
        definition = """
        other : int32
        """

    found: list[tuple[Any, ...]] = []

    @schema
    class Pair(dj.Computed):
        definition = """
        -> Session.proj(first='session')
        -> Session.proj(second='session')
        """

        def make(self, key: dict[str, Any]) -> None:
            up = self.upstream
            found.append(
                (
                    up[Session].to_arrays("session", order_by="KEY").tolist(),
                    up["Subject"].to_dicts(),
                    up[Lab].fetch1("lab"),
                    up[f"{schema.name}.lab"].fetch1("lab"),
                )
            )
            with pytest.raises(dj.DataJointError, match="not an ancestor"):
                up[Other]
            assert Other not in up
            assert Lab in up
            self.insert1(key)

    Lab.insert([("a",), ("b",)])
    Subject.insert([(1, "b"), (2, "a")])
    Session.insert([(1, 1), (1, 2), (1, 3), (2, 1)])
    assert Pair.populate("first = 1", "second = 3")["success_count"] == 1
    assert found == [([1, 3], [{"subject": 1, "lab": "b"}], "b", "b")]
    with pytest.raises(dj.DataJointError, match="inside make"):
        repr(Pair().upstream)


def test_hidden_columns_say_how_a_row_came_to_be(database_url: str, schema_prefix: str) -> None:
    settings = JobSettings(add_job_metadata=True, version_method="git")
    connection = dj.Connection(database_url, safemode=False, jobs=settings)
    schema = dj.Schema(f"{schema_prefix}meta", connection=connection)

    @schema
    class Item(dj.Manual):
        definition = """
        item : int32
        """

    @schema
    class Made(dj.Computed):
        definition = """
        -> Item
        ---
        x : int32
        """

        class Bit(dj.Part):
            definition = """
            -> master
            """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "x": 1})

    Item.insert([(1,)])
    before = datetime.now()
    assert Made.populate(reserve_jobs=True)["success_count"] == 1
    assert Made.heading.names == ["item", "x"]
    assert "_job_start_time" not in Made.Bit.heading.all_attributes
    seen = Made.proj(at="(_job_start_time)", seconds="(_job_duration)", code="(_job_version)")
    row = seen.fetch1()
    assert abs((row["at"] - before).total_seconds()) < 30
    assert 0 < row["seconds"] < 30
    assert len(row["code"]) in (0, *range(7, 13))
    assert Made.heading.all_attributes["_job_duration"].comment == "computation duration in seconds"
    connection.close()


class Holder:
    """An object with attributes."""

    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 1.0),
        ("1", 1),
        (b"1", "1"),
        (np.arange(4), np.arange(4.0)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (np.array(["a", None]), np.array(["a", "b"], dtype=object)),
        ([1, 2], (1, 2)),
        ([[1], 2], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
        (datetime(2026, 1, 1), datetime(2026, 1, 2)),
        (Holder([1]), Holder([2])),
        (np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-02"], "M8[D]")),
        (float("nan"), 0.0),
    ],
)
def test_content_hash_tells_values_apart(value: Any, other: Any) -> None:
    assert content_hash(value) == content_hash(value)
    assert content_hash([value]) != content_hash([other])


def test_content_hash_of_equal_values() -> None:
    assert content_hash({"b": np.ones(3), "a": {3, 1}}) == content_hash(
        {"a": {1, 3}, "b": np.ones(6)[::2]}
    )
    assert content_hash(float("nan")) == content_hash(float("nan"))
    endless: list[Any] = [1]
    endless.append(endless)
    again: list[Any] = [1]
    again.append(again)
    assert content_hash(endless) == content_hash(again)
    with pytest.raises(dj.PopulateError, match="cannot be compared"):
        content_hash(n for n in ())


def test_key_that_was_made_meanwhile_is_present(schema: Any, trace: Any) -> None:
    def race(self: Any, key: dict[str, Any]) -> None:
        sql = f"INSERT INTO {self.made_sql} VALUES (%s, 5)"
        other = dj.Connection(self.url)
        other.query(sql, (key["trace_id"],))
        other.close()
        self.insert1({**key, "total": 1})

    table = total_of(schema, trace, make=race)
    name = table().name
    sqlite = table.connection.backend.name == "sqlite"
    table.made_sql = f'"{name}"' if sqlite else f"`{name.schema}`.`{name.table}`"
    table.url = table.connection.engine.url
    assert [outcome.status for outcome in populate_keys(table())] == ["present"] * 3
    assert set(table.to_arrays("total")) == {5}
