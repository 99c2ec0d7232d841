"""Keys of each type, in spellings that the database takes for one: each is made and shown once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dj_dagster.orchestration import build_definitions, recompute
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed
from tests.orchestration.running import run_until_quiet, statuses

CODE = "11111111-1111-1111-1111-111111111111"

KINDS: dict[str, tuple[str, Any, Any, str]] = {
    "Padded": ("char(5)", "a  ", "a", "a"),
    "Exact": ("decimal(6,2)", "2.5", 2.50, "2.50"),
    "Single": ("float32", 0.1, "0.1", "0.1"),
    "Zero": ("float64", -0.0, 0, "0.0"),
    "Moment": (
        "datetime(3)",
        "2026-01-01 00:00:00.5",
        "2026-01-01 0:00:00.500",
        "2026-01-01T00:00:00.500000",
    ),
    "Day": ("date", "2026-1-5", "2026-01-05", "2026-01-05"),
    "Clock": ("time", "1:02:03", "01:02:03", "01:02:03"),
    "Side": ("enum('Left','Right')", "left", "LEFT", "Left"),
    "Code": ("uuid", "1" * 32, CODE, CODE),
    "Flag": ("bool", True, 1, "1"),
    "Number": ("int32", "7", 7.0, "7"),
}
"""By table: the type of the key, a value, the same value in another form, and its partition."""


@pytest.fixture
def schema(database_url: str, schema_prefix: str) -> Iterator[Schema]:
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}values", connection=connection)
    for name, (kind, *_) in KINDS.items():
        schema(type(name, (Manual,), {"definition": f"{name.lower()} : {kind}"}))

        def make(self: Any, key: dict[str, Any]) -> None:
            self.insert1(key)

        of = {"definition": f"-> {name}", "make": make}
        schema(type(f"Of{name}", (Computed,), of))
        schema(type(f"Below{name}", (Computed,), {**of, "definition": f"-> Of{name}"}))
    yield schema
    connection.close()


def test_each_key_is_one_partition_however_it_is_written(
    schema: Schema, instance: dg.DagsterInstance
) -> None:
    for name, (_, value, again, _) in KINDS.items():
        schema.tables[name].insert1({name.lower(): value})
        keys = [{name.lower(): again}]
        assert schema.tables[f"Of{name}"].populate(keys=keys)["success_count"] == 1, name
        assert len(schema.tables[f"Of{name}"] & keys[0]) == 1, name
    defs = build_definitions(schema)
    assert all(run_until_quiet(defs, instance))
    made = [progress.counts for progress in recompute(schema, stale=False, instance=instance)]
    assert made == [{"made": 1}] * (2 * len(KINDS))
    assert not run_until_quiet(defs, instance)
    for name, (*_, partition) in KINDS.items():
        for table in (name, f"Of{name}", f"Below{name}"):
            words = table.replace("Of", "of_").replace("Below", "below_").lower()
            shown = statuses(defs, instance, f"{schema.name}/{words}")
            assert shown == {"MATERIALIZED": {f"{name.lower()}={partition}"}}, table
