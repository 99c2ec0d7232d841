"""Values and names as people write them: dates, nulls, texts, references, files with names."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj

NAN = float("nan")


def table(schema: Any, definition: str, name: str = "Probe") -> Any:
    return schema(type(name, (dj.Manual,), {"definition": definition}))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("date", "2026-13-01"),
        ("date", "2026-02-30"),
        ("date", "soon"),
        ("datetime", "2026-01-01 25:00:00"),
        ("datetime(3)", "x"),
        ("timestamp", "1950-01-01"),
        ("time", "12:61:00"),
    ],
)
def test_a_default_that_is_not_a_moment_is_refused_with_its_line(
    schema: Any, kind: str, text: str
) -> None:
    with pytest.raises(dj.DefinitionError, match=r"line 3.*seen") as refused:
        table(schema, f"probe : int32\n---\nseen = '{text}' : {kind}")
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("date", "2026-1-5", dt.date(2026, 1, 5)),
        ("datetime", "2026-1-5 1:02:03", dt.datetime(2026, 1, 5, 1, 2, 3)),
        ("datetime(3)", "2026-01-05T01:02:03.25", dt.datetime(2026, 1, 5, 1, 2, 3, 250_000)),
        ("datetime", "2026-01-05", dt.datetime(2026, 1, 5)),
        ("time", "9:05", dt.timedelta(hours=9, minutes=5)),
        ("time", "09:05:07", dt.timedelta(hours=9, minutes=5, seconds=7)),
    ],
)
def test_moments_in_usual_spellings(schema: Any, kind: str, text: str, value: Any) -> None:
    probe = table(
        schema, f"probe : int32\n---\ngiven = null : {kind}\nby_default = '{text}' : {kind}"
    )
    probe.insert1({"probe": 1, "given": text})
    assert probe.fetch1("given", "by_default") == (value, value)
    assert len(probe & {"given": text}) == 1
    assert len(probe & [{"given": text}, {"by_default": text}]) == 1


NEW_YEAR = dt.datetime(2027, 1, 1)


@pytest.mark.parametrize(
    ("kind", "value", "cut", "rounded"),
    [
        (
            "datetime",
            dt.datetime(2026, 12, 31, 23, 59, 59, 600_000),
            dt.datetime(2026, 12, 31, 23, 59, 59),
            NEW_YEAR,
        ),
        (
            "datetime(3)",
            dt.datetime(2026, 12, 31, 23, 59, 59, 999_900),
            dt.datetime(2026, 12, 31, 23, 59, 59, 999_000),
            NEW_YEAR,
        ),
        (
            "timestamp",
            dt.datetime(2026, 1, 1, 1, 1, 1, 700_000),
            dt.datetime(2026, 1, 1, 1, 1, 1),
            dt.datetime(2026, 1, 1, 1, 1, 2),
        ),
        (
            "time(2)",
            dt.time(1, 2, 3, 999_999),
            dt.timedelta(hours=1, minutes=2, seconds=3, milliseconds=990),
            dt.timedelta(hours=1, minutes=2, seconds=4),
        ),
        ("char(5)", "ab  ", "ab", "ab"),
        ("char(5)", "  ab", "  ab", "  ab"),
        ("varchar(5)", "ab  ", "ab  ", "ab  "),
    ],
)
def test_values_are_cut_or_rounded_as_by_the_server(
    schema: Any, kind: str, value: Any, cut: Any, rounded: Any
) -> None:
    """MySQL rounds parts of a second that do not fit, MariaDB cuts them, and so does SQLite."""
    probe = table(schema, f"probe : int32\n---\nx = null : {kind}")
    probe.insert([{"probe": 1, "x": value}, {"probe": 2, "x": value}])
    probe.insert1({"probe": 3, "x": value})
    kept = rounded if is_mysql(schema) else cut
    assert list(probe.to_arrays("x")) == [kept] * 3
    assert len(probe & {"x": value}) == 3


def is_mysql(schema: Any) -> bool:
    """Whether the server is Oracle's, not MariaDB."""
    if schema.connection.backend.name == "sqlite":
        return False
    return "MariaDB" not in schema.connection.query("SELECT version()").fetchone()[0]


@pytest.mark.parametrize("year", [1960, 1970, 2039, 9999])
def test_a_timestamp_beyond_its_range_is_refused(schema: Any, year: int) -> None:
    probe = table(schema, "probe : int32\n---\nx = null : timestamp")
    for rows in ([{"probe": 1, "x": dt.datetime(year, 1, 1)}], [(1, f"{year}-01-01")]):
        with pytest.raises(dj.DataJointError, match="timestamp"):
            probe.insert(rows)
    assert len(probe) == 0


@pytest.mark.parametrize(
    "child",
    [
        "subject : varchar(8)\n-> Subject",
        "-> Subject\nsubject : varchar(8)",
        "subject : int64\n-> Subject",
        "visit : int32\n---\nsubject : uuid\n-> Subject",
        "own : varchar(8)\n-> Subject.proj(own='subject')",
    ],
)
def test_an_attribute_of_another_type_than_its_foreign_key_is_refused(
    schema: Any, child: str
) -> None:
    table(schema, "subject : int32", "Subject")
    with pytest.raises(dj.DefinitionError, match="two types") as refused:
        table(schema, child, "Visit")
    assert "line" in str(refused.value)
    assert "int32" in str(refused.value)
    assert schema.list_tables() == ["subject"]


@pytest.mark.parametrize(
    ("parent", "child"),
    [("datetime", "timestamp"), ("varchar(8)", "char(8)"), ("smallint unsigned", "year")],
)
def test_types_of_one_kind_that_no_foreign_key_relates(
    schema: Any, parent: str, child: str
) -> None:
    """Servers find no parent for a timestamp in a datetime."""
    table(schema, f"subject : {parent}", "Subject")
    table(schema, f"subject : {child}", "Other")
    for lines in (f"subject : {child}\n-> Subject", "-> Other\n-> Subject"):
        with pytest.raises(dj.DefinitionError, match="two types"):
            table(schema, lines, "Visit")


def test_an_attribute_of_the_same_type_as_its_foreign_key_is_one(schema: Any) -> None:
    table(schema, "subject : int32\nsite : varchar(8)", "Subject")
    visit = table(schema, "site : varchar(20)\nsubject : int32\n-> Subject", "Visit")
    assert visit.primary_key == ["site", "subject"]


def test_a_reference_to_itself_by_name_says_how(schema: Any) -> None:
    with pytest.raises(dj.DefinitionError, match=r"self\.proj"):
        table(schema, "cell : int32\n---\n-> [nullable] Cell.proj(parent='cell')", "Cell")


def test_two_classes_of_one_table_are_told(schema: Any) -> None:
    table(schema, "a : int32", "Day_Log")
    with pytest.warns(UserWarning, match=r"DayLog.*Day_Log"):
        table(schema, "a : int32", "DayLog")


@pytest.mark.parametrize(
    ("restriction", "found"),
    [
        ({"weight": NAN}, [2]),
        ({"number": np.float64("nan")}, [2]),
        ({"label": pd.NA}, [2]),
        ({"seen": pd.NaT}, [2]),
        ({"number": np.ma.masked}, [2]),
        (pd.Series({"probe": 2, "weight": NAN}), [2]),
        ([{"probe": 2, "number": NAN}, {"probe": 1, "number": 1}], [1, 2]),
        ([{"weight": NAN}, {"weight": 1.0}], [1, 2]),
        (dj.Not({"weight": NAN}), [1]),
    ],
)
def test_a_missing_value_in_a_restriction_is_null(
    schema: Any, restriction: Any, found: list[int]
) -> None:
    probe = table(
        schema,
        "probe : int32\n---\nweight = null : float64\nlabel = null : varchar(9)\n"
        "number = null : int32\nseen = null : datetime",
    )
    probe.insert([(1, 1.0, "a", 1, "2026-01-01"), (2, None, None, None, None)])
    assert (probe & restriction).to_arrays("probe", order_by="probe").tolist() == found


def test_null_floats_are_nan_in_arrays_and_records(schema: Any) -> None:
    probe = table(
        schema, "probe : int32\n---\nx = null : float64\ny = null : float32\nn = null : int32"
    )
    probe.insert([(1, 1.5, 2.5, 3), (2, None, None, None)])
    records = probe.to_arrays(order_by="probe")
    for name, first in (("x", 1.5), ("y", 2.5)):
        column = probe.to_arrays(name, order_by="probe")
        for values in (column, records[name]):
            assert values.dtype == np.float64
            assert values[0] == first
            assert np.isnan(values[1])
    assert records["n"].tolist() == [3, None]


def test_fetch1_of_a_list_says_how(schema: Any) -> None:
    probe = table(schema, "probe : int32\n---\nx : int32")
    probe.insert1((1, 5))
    with pytest.raises(dj.QueryError, match="one by one"):
        probe.fetch1(["x"])
    with pytest.raises(dj.QueryError, match="to_arrays takes names one by one"):
        probe.fetch(["x"])


def test_bytes_with_an_extension_are_an_object(
    database_url: str, schema_prefix: str, tmp_path: Path
) -> None:
    stores = dj.Stores({"main": {"protocol": "file", "location": str(tmp_path / "store")}})
    connection = dj.Connection(database_url, stores=stores)
    schema = dj.Schema(f"{schema_prefix}objects", connection=connection)
    probe = table(schema, "probe : int32\n---\nx : <object@main>")
    probe.insert1((1, (".bin", b"abc")))
    found = probe.fetch1("x")
    assert (found.read(), found.ext) == (b"abc", ".bin")
    assert found.path.endswith(".bin")
    for wrong in ((".a/b", b"x"), ("bin", b"x"), (".bin", "text")):
        with pytest.raises((dj.DataJointError, TypeError)):
            probe.insert1((2, wrong))
    assert len(probe) == 1
    connection.close()


def test_a_folder_is_not_attached(schema: Any, tmp_path: Path) -> None:
    probe = table(schema, "probe : int32\n---\nx : <attach>")
    with pytest.raises(dj.DataJointError, match="is a folder"):
        probe.insert1((1, tmp_path))


def test_a_projection_has_the_members_of_its_table(schema: Any) -> None:
    @schema
    class Animal(dj.Manual):
        definition = """
        animal : int
        ---
        born : date
        weight = null : float
        """

        limit = 5

        def days(self, day: dt.date) -> list[int]:
            return [(day - born).days for born in self.to_arrays("born", order_by="KEY")]

    @schema
    class Visit(dj.Manual):
        definition = """
        -> Animal
        """

    day = dt.date(2024, 5, 1)
    Animal.insert([{"animal": number, "born": day} for number in range(3)])
    born = Animal.proj("born", heavy="weight > 5")
    assert isinstance(born, Animal)
    assert born.heading.names == ["animal", "born", "heavy"]
    assert born.full_table_name == Animal.full_table_name
    assert born.children() == [Visit.full_table_name]
    assert (born.limit, born.describe()) == (5, Animal.describe())
    assert (born & "animal > 1").days(dt.date(2024, 5, 3)) == [2]
    assert len(Visit & born) == 0
    assert (born & "animal = 2").delete() == 1
    row = {"animal": 7, "born": day}
    for insert in (born.insert1, (born & "animal = 1").insert1, lambda one: born.insert([one])):
        with pytest.raises(dj.DataJointError, match=r"projection of .*animal.*the table itself"):
            insert(row)
    with pytest.raises(dj.DataJointError, match="without restriction"):
        born.update1(row)
    for method in (born.drop, born.alter):
        with pytest.raises(dj.DataJointError, match="takes the whole table"):
            method()
    (Animal & "animal = 7").insert1(row)
    assert len(Animal) == 3
