"""Inputs hold the rows of the partitions that their mapping names; managers made by hand."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import TableIOManager
from dj_dagster.relational.database.connection import Connection
from tests.orchestration.lab import Lab, declare_lab, partition
from tests.orchestration.running import key_of, materialize, tick

DAYS = dg.DailyPartitionsDefinition("2026-01-01")


@pytest.fixture
def filled(lab: Lab, instance: dg.DagsterInstance) -> Lab:
    lab.add_sessions(range(3))
    for table in (lab.RawData, lab.Processed, lab.Filtered):
        table.populate()
    tick(lab.definitions(), instance)
    return lab


def taken(
    lab: Lab,
    instance: dg.DagsterInstance,
    mapping: dg.PartitionMapping | None,
    partitions_def: Any = None,
    table: str = "processed",
    **run: str,
) -> list[int] | None:
    """The sessions of the rows that an asset is given; None if its run fails."""
    got: list[int] = []

    @dg.asset(
        ins={"rows": dg.AssetIn(["lab", table], partition_mapping=mapping)},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run() if "through" in run else None,
    )
    def reads(rows: list[dict[str, Any]]) -> None:
        got.extend(row["session_id"] for row in rows)

    done = materialize(lab.definitions(assets=[reads]), instance, "reads", **run)
    return got if done else None


def partitions_of(lab: Lab, table: str) -> Any:
    specs = {spec.key: spec for spec in lab.definitions().resolve_all_asset_specs()}
    return specs[key_of(lab.asset(table))].partitions_def


NAMED = dg.SpecificPartitionsPartitionMapping([partition(0), partition(2)])
MAPPINGS = [
    (NAMED, [0, 2]),
    (dg.LastPartitionMapping(), [2]),
    (dg.AllPartitionMapping(), [0, 1, 2]),
]


@pytest.mark.parametrize("of", ["nothing", "days", "table", "range", "another grain"])
def test_the_mapping_says_which_rows(filled: Lab, instance: dg.DagsterInstance, of: str) -> None:
    runs: dict[str, tuple[Any, dict[str, str]]] = {
        "nothing": (None, {}),
        "days": (DAYS, {"partition": "2026-01-02"}),
        "table": (partitions_of(filled, "processed"), {"partition": partition(1)}),
        "range": (
            partitions_of(filled, "processed"),
            {"partition": partition(0), "through": partition(1)},
        ),
        "another grain": (partitions_of(filled, "subject"), {"partition": "subject_id=1"}),
    }
    partitions_def, run = runs[of]
    for mapping, sessions in MAPPINGS:
        assert taken(filled, instance, mapping, partitions_def, **run) == sessions


def test_dimensions_are_mapped_each(filled: Lab, instance: dg.DagsterInstance) -> None:
    """A partition of day and session is given the rows of its session, by Dagster's own mapping."""
    both = dg.MultiPartitionsDefinition(
        {"day": DAYS, "session": partitions_of(filled, "processed")}
    )
    run = {"partition": f"2026-01-02|{partition(1)}"}
    assert taken(filled, instance, None, both, **run) == [1]
    nothing = dg.SpecificPartitionsPartitionMapping([])
    assert taken(filled, instance, nothing, both, table="filtered", **run) == [1, 1]


def test_a_named_partition_that_is_none_fails_the_run(
    filled: Lab, instance: dg.DagsterInstance
) -> None:
    wrong = dg.SpecificPartitionsPartitionMapping(["subject_id=1/sesion_id=2"])
    assert taken(filled, instance, wrong) is None


def test_the_empty_mapping_names_no_rows_without_partitions(
    filled: Lab, instance: dg.DagsterInstance
) -> None:
    assert taken(filled, instance, dg.SpecificPartitionsPartitionMapping([])) == []


def test_settings_go_with_every_partition(filled: Lab, instance: dg.DagsterInstance) -> None:
    """A Lookup table without partitions is read whole by an asset that shares nothing with it."""
    got: list[Any] = []

    @dg.asset(ins={"rows": dg.AssetIn(["lab", "filter_params"])}, partitions_def=DAYS)
    def reads(rows: list[dict[str, Any]]) -> None:
        got.extend(rows)

    defs = filled.definitions(assets=[reads])
    assert materialize(defs, instance, "reads", partition="2026-01-02")
    assert len(got) == 2


@pytest.fixture
def by_hand(
    database_url: str, schema_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Lab, str]:
    """A lab in the database that the default connection is of."""
    connection = Connection(database_url, safemode=False)
    monkeypatch.setattr("dj_dagster.orchestration.io_manager.conn", lambda: connection)
    name = f"{schema_prefix}lab"
    return declare_lab(connection, name), name


def test_a_manager_made_by_hand_writes_and_reads(by_hand: tuple[Lab, str]) -> None:
    lab, name = by_hand
    got: list[Any] = []

    @dg.asset(key=[name, "subject"], io_manager_key="table_io_manager")
    def subjects() -> list[dict[str, Any]]:
        return [{"subject_id": 1, "sex": "F"}]

    @dg.asset(ins={"rows": dg.AssetIn([name, "subject"])})
    def reads(rows: list[dict[str, Any]]) -> None:
        got.extend(rows)

    manager = TableIOManager()
    assert dg.materialize([subjects, reads], resources={"table_io_manager": manager}).success
    assert got == lab.Subject.to_dicts() == [{"subject_id": 1, "sex": "F"}]


def test_a_manager_made_by_hand_takes_contexts_made_by_hand(by_hand: tuple[Lab, str]) -> None:
    lab, name = by_hand
    manager = TableIOManager(connection=lab.schema.connection)
    written = dg.build_output_context(asset_key=[name, "subject"])
    manager.handle_output(written, [{"subject_id": n, "sex": "F"} for n in (1, 2)])
    assert len(manager.load_input(dg.build_input_context(asset_key=[name, "subject"]))) == 2
    one = dg.build_input_context(asset_key=[name, "subject"], partition_key="subject_id=2")
    assert manager.load_input(one) == [{"subject_id": 2, "sex": "F"}]


def test_a_manager_made_by_hand_refuses_what_make_fills(by_hand: tuple[Lab, str]) -> None:
    _, name = by_hand
    with pytest.raises(ConfigurationError, match="its rows come from make"):
        TableIOManager().handle_output(dg.build_output_context(asset_key=[name, "processed"]), [])
    with pytest.raises(ConfigurationError, match=f"{name}/sesion.*{name}/session"):
        TableIOManager().load_input(dg.build_input_context(asset_key=[name, "sesion"]))
