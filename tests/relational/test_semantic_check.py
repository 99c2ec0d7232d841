"""Names that mean different things: refused, or matched all the same where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dj_dagster as dj


@pytest.fixture
def loose(database_url: str) -> Iterator[dj.Connection]:
    """A connection on which names alone decide, as they did in DataJoint 0.14."""
    connection = dj.Connection(database_url, safemode=False, semantic_check=False)
    yield connection
    connection.close()


def declare(connection: dj.Connection, prefix: str) -> tuple[Any, Any]:
    schema = dj.Schema(f"{prefix}lab", connection=connection)

    @schema
    class Region(dj.Manual):
        definition = """
        region : int32
        ---
        name = '' : varchar(8)
        """

    @schema
    class Imported(dj.Manual):
        definition = """
        region : int32
        ---
        parent = null : int32
        """

    return Region, Imported


def test_names_alone_decide(loose: dj.Connection, schema_prefix: str) -> None:
    region, imported = declare(loose, schema_prefix)
    region.insert([(1, "a"), (2, "b")])
    imported.insert([(2, None), (3, 1)])
    assert (region & imported).keys() == [{"region": 2}]
    assert (region - imported).keys() == [{"region": 1}]
    assert (region & [imported & "region = 2"]).keys() == [{"region": 2}]
    assert (region * imported).to_dicts() == [{"region": 2, "name": "b", "parent": None}]
    assert (region.aggr(imported, n="count(parent)") & "region = 2").fetch1("n") == 0
    assert len(region.proj() + imported.proj()) == 3
    with pytest.raises(dj.QueryError, match="not the same thing"):
        region.restrict(imported, semantic_check=True)


def test_meanings_are_compared_by_default(connection: dj.Connection, schema_prefix: str) -> None:
    region, imported = declare(connection, schema_prefix)
    for refused in (
        lambda: region & imported,
        lambda: region - imported,
        lambda: region * imported,
        lambda: region.aggr(imported, n="count(*)"),
    ):
        with pytest.raises(dj.QueryError, match="semantic_check"):
            refused()
