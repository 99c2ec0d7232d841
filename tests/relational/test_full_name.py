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
