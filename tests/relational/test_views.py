"""Views that somebody made in the database: they are read as tables are, and not written."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.orchestration import build_definitions

TOKEN = uuid.UUID(int=7)


@pytest.fixture
def lab(schema: Any) -> Any:
    """A table, a child of it, and views: of columns, of a join, and of groups."""

    @schema
    class Probe(dj.Manual):
        definition = """
        probe : int32
        ---
        token : uuid
        good : bool
        price : decimal(6,2)
        day : date
        data : <blob>
        """

    @schema
    class Use(dj.Manual):
        definition = """
        -> Probe
        use_no : int32
        ---
        hours : float64
        """

    Probe.insert(
        [(1, TOKEN, True, "1.50", "2026-01-05", [1, 2]), (2, TOKEN, False, "2", "2026-01-06", "x")]
    )
    Use.insert([(1, 1, 0.5), (1, 2, 2.0)])
    probe, use = Probe.full_table_name, Use.full_table_name
    for name, select in {
        "chosen": f"SELECT * FROM {probe} WHERE probe < 2",
        "renamed": f"SELECT p.probe AS nr, p.token AS tag, u.hours FROM {probe} p "
        f"LEFT JOIN {use} AS u ON u.probe = p.probe",
        "total": f"SELECT probe, count(*) AS uses, sum(hours) AS hours FROM {use} GROUP BY probe",
    }.items():
        schema.connection.query(f"CREATE VIEW {_quoted(schema, name)} AS {select}")
    yield schema
    _drop_views(schema)


def _quoted(schema: Any, name: str) -> str:
    whole = schema.connection.backend.name == "sqlite"
    return f"`{schema.name}.{name}`" if whole else f"`{schema.name}`.`{name}`"


def _drop_views(schema: Any) -> None:
    for name in ("chosen", "renamed", "total"):
        schema.connection.query(f"DROP VIEW IF EXISTS {_quoted(schema, name)}")


def test_values_have_the_types_of_the_tables(lab: Any) -> None:
    (row,) = lab["chosen"].to_dicts()
    assert row["token"] == TOKEN
    assert row["good"] is True
    assert str(row["price"]) == "1.50"
    assert str(row["day"]) == "2026-01-05"
    assert row["data"] == [1, 2]
    assert sorted((r["nr"], r["tag"]) for r in lab["renamed"]) == [(1, TOKEN)] * 2 + [(2, TOKEN)]
    assert np.isnan((lab["renamed"] & "nr = 2").to_arrays("hours")[0])


def test_views_are_restricted_joined_and_shown(lab: Any) -> None:
    total = dj.FreeTable(lab.connection, f"{lab.name}.total")
    assert len(total & {"uses": 2}) == 1
    assert len(total & {"uses": 3}) == 0
    assert (total & "hours > 2").fetch1("uses") == 2
    both = lab["probe"].join(total, semantic_check=False)
    assert both.fetch1("uses") == 2
    assert "uses" in repr(total)
    assert total.to_pandas()["hours"].tolist() == [2.5]


def test_a_virtual_module_has_the_views(lab: Any) -> None:
    module: Any = dj.VirtualModule("found", lab.name, connection=lab.connection)
    assert module.Chosen.fetch1("probe") == 1
    assert {"Probe", "Use", "Chosen", "Renamed", "Total"} <= vars(module).keys()
    assert sorted(lab.list_tables()) == ["probe", "use"]
    assert dj.Diagram(module).make_mermaid()


@pytest.mark.parametrize(
    "write",
    [
        lambda view: view.insert1({"probe": 3, "uses": 1, "hours": 1}),
        lambda view: view.insert1({"probe": 3}, replace=True),
        lambda view: view.insert([], skip_duplicates=True),
        lambda view: view.insert(view),
        lambda view: view.update1({"probe": 1, "uses": 5}),
        lambda view: view.delete(),
        lambda view: (view & {"uses": 2}).delete_quick(),
        lambda view: view.drop(),
        lambda view: view.drop_quick(),
    ],
)
def test_views_are_not_written(lab: Any, write: Callable[[Any], Any]) -> None:
    view = lab["total"]
    with pytest.raises(dj.DataJointError, match=rf"{lab.name}\.total is a view"):
        write(view)
    assert view.fetch1("uses") == 2


def test_orchestration_leaves_views_out(lab: Any) -> None:
    specs = build_definitions(lab.name, connection=lab.connection).resolve_all_asset_specs()
    assert {spec.key.path[-1] for spec in specs} == {"probe", "use"}


def test_a_view_of_what_is_gone_hides_no_table(lab: Any) -> None:
    lab["use"].drop()
    assert lab["chosen"].fetch1("probe") == 1
    with pytest.raises(dj.DataJointError):
        lab["total"].to_dicts()
    assert lab.list_tables() == ["probe"]


def test_a_table_with_a_view_is_altered(lab: Any) -> None:
    definition = """
    probe : int32
    ---
    token : uuid
    good : bool
    price : decimal(6,2)
    day : date
    data : <blob>
    note = '' : varchar(20)
    """
    altered: Any = dj.Schema(lab.name, connection=lab.connection)(
        type("Probe", (dj.Manual,), {"definition": definition})
    )
    altered.alter(prompt=False)
    assert altered.to_arrays("note").tolist() == ["", ""]
    assert lab["chosen"].fetch1("token") == TOKEN


def test_a_schema_is_dropped_with_its_views(lab: Any) -> None:
    lab.drop(prompt=False)
    again = dj.Schema(lab.name, connection=lab.connection)
    assert again.list_tables() == []
    with pytest.raises(dj.DataJointError):
        again["chosen"].to_dicts()
