"""Full table names: they go into SQL as they are, and find their tables."""

from __future__ import annotations

from typing import Any

import pytest

import dj_dagster as dj


@pytest.fixture
def method(schema: dj.Schema) -> Any:
    @schema
    class Method(dj.Lookup):
        definition = "method : varchar(8)"
        contents = (("fast",), ("slow",))

    return Method


def test_a_full_name_can_be_written_into_sql(method: Any, connection: dj.Connection) -> None:
    name = method.full_table_name
    assert connection.query(f"SELECT count(*) FROM {name}").fetchone()[0] == 2
    chosen = method & f"method IN (SELECT max(method) FROM {name})"
    assert chosen.keys() == [{"method": "slow"}]


@pytest.mark.parametrize("spelling", ["`{0}`.`{1}`", "`{0}` . `{1}`"])
def test_schema_and_table_of_mysql_can_be_written_into_sql(
    method: Any, connection: dj.Connection, spelling: str
) -> None:
    name, query = spelling.format(*method().name), connection.query
    assert query(f"SELECT count(*) FROM {name}").fetchone()[0] == 2
    assert query(f"SELECT {name}.method FROM {name} WHERE method = %s", ("slow",)).fetchall() == [
        ("slow",)
    ]
    alias = f"SELECT `one`.`method` FROM {name} AS `one` JOIN {name} AS `two` USING (method)"
    assert len(query(alias).fetchall()) == 2
    assert query(f"SELECT '{name}' AS said").fetchall() == [(name,)]
    query(f"INSERT INTO {name} VALUES ('new')")
    query(f"UPDATE {name} SET method = 'newer' WHERE method = 'new'")
    chosen = method & f"method IN (SELECT max({name}.method) FROM {name})"
    assert chosen.keys() == [{"method": "slow"}]
    assert len(method & f"NOT EXISTS (SELECT * FROM {name} WHERE method = '{name}')") == 3
    query(f"DELETE FROM {name} WHERE method = 'newer'")
    assert len(method()) == 2


def test_names_without_quotes_can_be_written_into_sql(
    schema: dj.Schema, connection: dj.Connection
) -> None:
    @schema
    class Trial(dj.Lookup):
        definition = "trial : int32"
        contents = ((1,), (2,))

    class Session(dj.Manual):
        definition = "session : int32"

    schema(Session).insert([{"session": number} for number in (2, 3)])
    trial, session = (f"{schema.name}.{name}" for name in ("#trial", "session"))
    quoted = f"{schema.name}.`#trial`"
    query = f"SELECT {session}.session FROM {session} JOIN {quoted} ON trial = session"
    assert connection.query(query).fetchall() == [(2,)]
    query = f"SELECT s.session, trial FROM {session}, {quoted}, {session} AS s WHERE trial = 1"
    assert len(connection.query(query).fetchall()) == 4
    assert (Trial & f"trial IN (SELECT session FROM {session})").keys() == [{"trial": 2}]
    # As on a server, this is a comment.
    with pytest.raises(dj.QueryError):
        connection.query(f"SELECT * FROM {trial}")


def test_a_table_that_another_client_has_made_since_can_be_written_into_sql(
    schema: dj.Schema, connection: dj.Connection, database_url: str
) -> None:
    connection.catalog.tables(schema.name)
    other = dj.Connection(database_url)

    @dj.Schema(schema.name, connection=other)
    class Late(dj.Lookup):
        definition = "late : int32"
        contents = ((1,),)

    assert connection.query(f"SELECT * FROM `{schema.name}`.`#late`").fetchall() == [(1,)]
    other.close()


@pytest.mark.parametrize(
    "spelling",
    ["{0}.{1}", "`{0}`.`{1}`", "`{0}.{1}`", '"{0}.{1}"', '"{0}"."{1}"'],
)
def test_a_table_is_found_by_any_spelling(
    method: Any, connection: dj.Connection, spelling: str
) -> None:
    table = dj.FreeTable(connection, spelling.format(*method().name))
    assert len(table) == 2
    assert table.full_table_name == method.full_table_name
