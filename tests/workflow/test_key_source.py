"""Which keys a table makes: by default, restricted, and named by itself."""

from __future__ import annotations

import random
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.populate import pending_keys, populate_keys


@pytest.fixture
def session(schema: Any) -> Any:
    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        ---
        score : float64
        note : varchar(8)
        """

    Session.insert([(n, n / 10, "even" if n % 2 == 0 else "odd") for n in range(6)])
    return Session


def made_of(schema: Any, definition: str = "-> Session", **members: Any) -> Any:
    def make(self: Any, key: dict[str, Any]) -> None:
        self.insert1(key)

    body = {"definition": definition, "make": make, **members}
    return schema(type("Made", (dj.Computed,), body))


def made(table: Any) -> list[int]:
    return table.to_arrays("session", order_by="KEY").tolist()


def test_parents_other_attributes_restrict(schema: Any, session: Any) -> None:
    @schema
    class Method(dj.Lookup):
        definition = """
        method : int8
        ---
        score : int32
        """
        contents = ((1, 5), (2, 6))

    table = made_of(schema, "-> Session\n-> Method")
    assert table.progress() == (12, 12)
    assert table.progress("note = 'odd'", {"method": 1}) == (3, 3)
    assert table.progress({"note": "even"}) == (6, 6)
    assert table.progress([{"note": "even"}, "session = 5"]) == (8, 8)
    # Both parents have a score.
    with pytest.raises(dj.QueryError):
        table.progress("score > 0.3")
    assert table.progress(session & "score > 0.35") == (4, 4)
    assert table.populate(session & "note = 'odd'", Method & {"score": 5})["success_count"] == 3
    assert table.progress() == (9, 12)


def test_a_path_into_json_of_a_parent_restricts(schema: Any) -> None:
    @schema
    class Recording(dj.Manual):
        definition = """
        recording : int32
        ---
        settings : json
        """

    Recording.insert({"recording": n, "settings": {"rig": "ab"[n % 2], "n": n}} for n in range(4))
    table = made_of(schema, "-> Recording")
    assert table.progress("json_value(settings, '$.n') > 1") == (2, 2)
    assert table.progress({"settings.rig": "a", "settings.n": 2}) == (1, 1)
    assert table.populate({"settings.rig": "b"})["success_count"] == 2
    assert table.to_arrays("recording", order_by="KEY").tolist() == [1, 3]
    with pytest.raises(dj.QueryError, match="Did you mean settings"):
        table.populate({"setting.rig": "a"})


def test_restriction_by_many_keys(schema: Any, session: Any) -> None:
    table = made_of(schema)
    assert table.populate([{"session": 1}, {"session": 4}, {"session": 99}])["success_count"] == 2
    assert made(table) == [1, 4]
    assert table.populate(session & "session = 1", "session = 4")["success_count"] == 0
    assert table.populate([])["success_count"] == 0


def test_key_source_in_the_class_body(schema: Any, session: Any) -> None:
    table = made_of(schema, key_source=session & "score < 0.25")
    assert table.progress() == (3, 3)
    assert table.populate("note = 'even'")["success_count"] == 2
    assert made(table) == [0, 2]


def test_key_source_may_be_a_class(schema: Any, session: Any) -> None:
    table = made_of(schema, key_source=session)
    assert table.populate({"note": "odd"}, max_calls=2)["success_count"] == 2
    assert made(table) == [1, 3]


def test_key_source_that_is_no_query(schema: Any, session: Any) -> None:
    with pytest.raises(dj.PopulateError, match="must be a table or a query"):
        made_of(schema, key_source="all of them").populate()


def test_coarser_key_source_reserves_its_own_keys(schema: Any, session: Any) -> None:
    @schema
    class Method(dj.Lookup):
        definition = """
        method : int8
        """
        contents = ((1,), (2,))

    def make(self: Any, key: dict[str, Any]) -> None:
        assert list(key) == ["session"]
        self.insert({**key, "method": method} for method in (1, 2))

    table = made_of(schema, "-> Session\n-> Method", make=make, key_source=session & "session < 3")
    assert table.populate(reserve_jobs=True)["success_count"] == 3
    assert table.jobs.key == ["session"]
    assert table.progress() == (0, 3)
    assert len(table) == 6


def test_queue_of_other_keys_is_refused(schema: Any, session: Any) -> None:
    table = made_of(schema, "-> Session\nchunk : int16")
    table.jobs.refresh()
    assert table.jobs.progress()["pending"] == 6

    @schema
    class Chunk(dj.Manual):
        definition = """
        -> Session
        chunk : int16
        """

    Chunk.insert([(1, 1), (1, 2)])
    table.key_source = Chunk
    with pytest.raises(dj.PopulateError, match="drop the queue"):
        table.populate(reserve_jobs=True)
    table.jobs.drop()
    assert table.populate(reserve_jobs=True)["success_count"] == 2


def test_order_and_limits(schema: Any, session: Any) -> None:
    seen: list[int] = []

    def make(self: Any, key: dict[str, Any]) -> None:
        seen.append(key["session"])
        self.insert1(key)

    table = made_of(schema, make=make)
    table.populate(order="reverse", max_calls=2)
    assert seen == [5, 4]
    table.populate(order="reverse", limit=2)
    assert seen == [5, 4, 1, 0]
    table.populate(order="random")
    assert sorted(seen) == list(range(6))
    with pytest.raises(dj.PopulateError, match="original, reverse, random"):
        table.populate(order="sideways")
    for options in ({"limit": -1}, {"max_calls": -1}, {"limit": -1, "reserve_jobs": True}):
        with pytest.raises(dj.PopulateError, match=r"is -1: it is a number of keys"):
            table.populate(**options)
    for name, value in [
        *(("limit", "2"), ("max_calls", True), ("processes", "2"), ("processes", 1.5)),
        *(("make_kwargs", 5), ("keys", 5)),
    ]:
        with pytest.raises(dj.PopulateError, match=f"{name}( is |=){value!r}"):
            table.populate(**{name: value})


def test_keys_of_ones_own(schema: Any, session: Any) -> None:
    table = made_of(schema)
    keys = [{"session": 5}, {"session": 2}, {"session": 77}]
    assert table.populate(keys=keys)["success_count"] == 2
    assert table.populate(keys=[{"session": 2}, {"session": 3}], reserve_jobs=True) == {
        "success_count": 1,
        "error_list": [],
    }
    assert made(table) == [2, 3, 5]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float32", [0.1, 1 / 3, 1e-30, 16777217.0]),
        ("float", ["0.1", -2.7]),
        ("float64", [0.1, 5e-324]),
        ("decimal(10,3)", ["0.1", 1.2345]),
        ("datetime(3)", ["2026-01-01 10:00:00.1234"]),
        ("time(3)", ["-01:00:00.7777", "30:00:00"]),
        ("uuid", ["12345678-1234-5678-1234-567812345678"]),
        ("varchar(8)", ["", "a b ", "a/b=c,%"]),
        ("bool", [True, 0]),
    ],
)
def test_keys_are_those_of_rows_as_entered_and_as_fetched(
    schema: Any, kind: str, values: list[Any]
) -> None:
    @schema
    class Session(dj.Manual):
        definition = f"session : {kind}"

    table = made_of(schema)
    entered = [{"session": value} for value in values]
    Session.insert(entered)
    assert table.populate(keys=entered[:1])["success_count"] == 1
    assert table.populate(keys=Session.keys(), reserve_jobs=True) == {
        "success_count": len(values) - 1,
        "error_list": [],
    }
    keys = Session.keys()
    outcomes = list(populate_keys(table(), [*entered, *keys]))
    assert [outcome.status for outcome in outcomes] == ["present"] * 2 * len(values)
    assert {repr(outcome.key) for outcome in outcomes} == set(map(repr, keys))


@pytest.mark.parametrize("first", [-2500, 7])
def test_scattered_keys_are_found_among_many(schema: Any, first: int) -> None:
    @schema
    class Session(dj.Manual):
        definition = """
        session : int32
        run : int8
        """

    table = made_of(schema)
    keys = [{"session": first + n, "run": run} for n in range(2400) for run in (1, 2)]
    chosen = random.Random(first).sample(keys, 40)
    Session.insert(keys)
    missing = sorted(chosen, key=lambda key: (key["session"], key["run"]))
    gone = {tuple(key.values()) for key in missing}
    table.insert((key for key in keys if tuple(key.values()) not in gone), allow_direct_insert=True)
    assert pending_keys(table()) == missing
    assert pending_keys(table(), limit=3) == missing[:3]
    assert table.progress() == (40, 4800)
    table.insert(missing, allow_direct_insert=True)
    assert pending_keys(table()) == []
    Session.insert1((first + 9_000_000, 1))
    assert pending_keys(table()) == [{"session": first + 9_000_000, "run": 1}]


def test_keys_as_far_apart_as_integers_get(schema: Any) -> None:
    @schema
    class Session(dj.Manual):
        definition = "session : int64"

    table = made_of(schema)
    keys = [{"session": n * 10**18} for n in range(-9, 10)]
    Session.insert(keys)
    table.insert(keys[::2], allow_direct_insert=True)
    assert pending_keys(table()) == keys[1::2]
    assert table.progress() == (9, 19)
    assert table.populate(reserve_jobs=True)["success_count"] == 9
    assert table.progress() == (0, 19)
