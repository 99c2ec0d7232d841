"""What a definition may say, checked before any table is made; and how little a table costs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import dj_dagster as dj
from tests.lab import connect


def declare(schema: Any, name: str, definition: str, **attributes: Any) -> Any:
    return schema(type(name, (dj.Manual,), {"definition": definition, **attributes}))


@pytest.fixture
def lab(schema: Any) -> Any:
    schema.context = {}
    schema.context["Subject"] = declare(schema, "Subject", "subject : int32\nvisit : int32")
    return schema


def test_counters(lab: Any) -> None:
    counted = declare(lab, "Counted", "id : int unsigned auto_increment\n---\nx : int32")
    counted.insert([{"x": 5}, {"x": 6}])
    assert counted.to_dicts(order_by="KEY") == [{"id": 1, "x": 5}, {"id": 2, "x": 6}]
    with pytest.raises(dj.DefinitionError, match="'id' counts by itself"):
        declare(lab, "Second", "x : int32\nid : int auto_increment")
    assert "second" not in lab.list_tables()


def test_who_refers_to_a_counter_does_not_count(lab: Any) -> None:
    for name, kind in (("Counted", "int unsigned auto_increment"), ("Serial", "serial")):
        lab.context[name] = declare(lab, name, f"id : {kind}\n---\nx = 0 : int32")
        lab.context[name].insert([{"x": 5}, {"x": 6}])
        child = declare(lab, f"{name}Child", f"-> {name}\n---\ny = 0 : int8")
        assert not child.heading.has_autoincrement
        with pytest.raises(dj.MissingAttributeError, match="needs a value for 'id'"):
            child.insert1({"y": 1})
        child.insert1({"id": 2, "y": 1})
        assert child.describe() == f"-> {name}\n---\ny = 0                : int8\n"
        assert not child.alter(prompt=False)


@pytest.mark.parametrize(
    "line",
    [
        "c = CURRENT_TIMESTAMP : char(50)",
        "n = CURRENT_TIMESTAMP(3) : int32",
        "g = 300 : int8",
        "f = 1e400 : float32",
        "d = 1000 : decimal(4,2)",
        "v = 'abc' : char(2)",
    ],
)
def test_a_default_that_does_not_fit_is_refused(lab: Any, line: str) -> None:
    with pytest.raises(dj.DefinitionError, match=rf"line 3, table Wide.*\.wide\.{line[0]} : "):
        declare(lab, "Wide", f"id : int32\n---\n{line}")
    assert "wide" not in lab.list_tables()


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("time", "9:30", timedelta(hours=9, minutes=30)),
        ("time", "-1:00:00", timedelta(hours=-1)),
        ("time", "100:00:00", timedelta(hours=100)),
        ("time(2)", "0:00:01.25", timedelta(seconds=1.25)),
        ("datetime(3)", "2024-01-05 10:00", datetime(2024, 1, 5, 10)),
    ],
)
def test_a_default_is_stored_as_such_a_value_is(
    lab: Any, kind: str, default: str, value: timedelta | datetime
) -> None:
    timed = declare(lab, "Timed", f"id : int32\n---\nt = '{default}' : {kind}")
    timed.insert([{"id": 1}, {"id": 2, "t": value}])
    assert timed.to_arrays("t").tolist() == [value, value]
    assert len(timed & {"t": value}) == 2
    assert not timed.alter(prompt=False)


def test_no_table_refers_to_another_database(lab: Any, tmp_path: Path) -> None:
    other = dj.Connection(f"sqlite:///{tmp_path}/other.sqlite")
    elsewhere = dj.Schema("elsewhere", connection=other, context=lab.context)
    with pytest.raises(dj.DefinitionError, match="in another database"):
        declare(elsewhere, "Child", "-> Subject")
    other.close()


def test_defaults_that_a_type_cannot_have(lab: Any) -> None:
    uuid = "'8f14e45f-ceea-467f-9575-8f1c2f2d6b1e'"
    for line in (f"u = {uuid} : uuid", "b = 'x' : <blob>", "j = '1' : json", "d = abc : int8"):
        with pytest.raises(dj.DefinitionError):
            declare(lab, "Wrong", f"id : int32\n---\n{line}")
    assert lab.list_tables() == ["subject"]


def test_longest_names(lab: Any) -> None:
    longest = declare(
        lab, "L" + "x" * 63, "-> Subject\n---\n-> [nullable] Subject.proj(a='subject', b='visit')"
    )
    assert longest.table_name == "l" + "x" * 63
    attribute = "a" * 64
    wide = declare(lab, "Wide", f"id : int32\n---\n{attribute} : int32\nindex({attribute})")
    assert wide.heading.secondary_attributes == [attribute]


def test_names_that_are_too_long(lab: Any) -> None:
    part = type("P" + "x" * 40, (dj.Part,), {"definition": "-> master"})
    with pytest.raises(dj.DefinitionError, match="characters"):
        declare(lab, "M" + "x" * 30, "id : int32", Part=part)
    with pytest.raises(dj.DefinitionError, match="characters"):
        declare(lab, "M" * 1 + "x" * 64, "id : int32")
    with pytest.raises(dj.DefinitionError, match="characters"):
        declare(lab, "Child", f"-> Subject.proj({'z' * 65}='subject')")
    assert lab.list_tables() == ["subject"]


@pytest.mark.parametrize(
    ("definition", "described"),
    [
        ("(s, v) -> Subject(subject, visit)", "-> Subject.proj(s='subject', v='visit')\n---\n"),
        ("(s) -> Subject(subject)", "-> Subject.proj(s='subject')\n---\n"),
        ("-> Subject.proj()", "-> Subject\n---\n"),
        ("visit : int32\n(other) -> Subject", None),
    ],
)
def test_old_foreign_keys(lab: Any, definition: str, described: str | None) -> None:
    if described is None:
        with pytest.raises(dj.DefinitionError, match="does not say what it renames"):
            declare(lab, "Child", definition)
    else:
        assert declare(lab, "Child", definition).describe() == described


def test_indexes_of_reserved_words_and_of_json(lab: Any, connection: dj.Connection) -> None:
    order = "id : int32\n---\norder : varchar(30)\nunique index(id, order (5))"
    table = declare(lab, "Ordered", order)
    assert "unique index(id, order(5))" in table.describe()
    with connection.cursor() as session:
        maria = getattr(session.dialect, "is_mariadb", False)
    inside = "id : int32\n---\nj : json\nindex(j.device.name:varchar(20))"
    if maria:
        with pytest.raises(dj.DefinitionError, match="MariaDB has no indexes of expressions"):
            declare(lab, "Inside", inside)
        assert "inside" not in lab.list_tables()
    else:
        made = declare(lab, "Inside", inside)
        assert re.search(r"index\(\(json_\w+\(.*device.name", made.describe())
    with pytest.raises(dj.DefinitionError, match="names 'k'"):
        declare(lab, "Wrong", "id : int32\n---\nj : json\nindex(k.device)")


def test_an_index_of_the_beginning_of_a_text(lab: Any) -> None:
    lines = "id : int32\n---\nname : varchar(30)\nunique index(name (3))\nindex(id, name(8))"
    table = declare(lab, "Named", lines)
    assert not table.alter(prompt=False)
    assert "unique index(name(3))\n" in table.describe()
    assert "\nindex(id, name(8))\n" in table.describe()
    table.insert1((1, "abcd"))
    with pytest.raises(dj.DuplicateError):
        table.insert1((2, "abce"))
    table.insert1((2, "abce"), replace=True)
    assert table.fetch1("name") == "abce"


def test_declaring_asks_the_server_little(lab: Any, connection: dj.Connection) -> None:
    declare(lab, "First", "-> Subject")
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement.split()[0])

    event.listen(connection.engine, "before_cursor_execute", note)
    made = declare(lab, "Child", "-> Subject\nn : int32\n---\nx = 1.5 : decimal(4,2)\nindex(x)")
    assert made.heading.names == ["subject", "visit", "n", "x"]
    assert made.foreign_keys[0].primary
    if connection.backend.name == "sqlite":
        expected = ["BEGIN", "SELECT", "CREATE", "CREATE", "INSERT", "COMMIT"]
    else:
        expected = ["CREATE", "DELETE", "REPLACE"]
    assert statements == expected


def test_what_another_process_declared_meanwhile_is_seen(
    lab: Any, database_url: str, tmp_path: Any
) -> None:
    assert lab.list_tables() == ["subject"]
    elsewhere = connect(database_url, tmp_path)
    theirs = dj.Schema(lab.name, connection=elsewhere)
    declare(theirs, "Late", "id : int32\n---\ntheirs : int32")
    mine = declare(lab, "Late", "id : int32\n---\nmine : int32")
    assert mine.heading.names == ["id", "theirs"]
    elsewhere.close()


def test_a_table_that_is_there_may_refer_to_others_that_are_there(
    lab: Any, database_url: str, tmp_path: Path
) -> None:
    """As where the classes of one schema are in several modules, and one lacks an import."""
    declare(lab, "Session", "-> Subject\nsession : int32")
    connection = connect(database_url, tmp_path)
    other: Any = dj.Schema(lab.name, connection=connection, context={})
    session = declare(other, "Session", "-> Subject\nsession : int32")
    assert session.foreign_keys[0].parent.table == "subject"
    with pytest.raises(dj.DefinitionError, match="not a table known here"):
        declare(other, "Later", "-> Subject\nlater : int32")
    connection.close()
