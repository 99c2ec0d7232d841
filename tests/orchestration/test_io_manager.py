"""Rows to and from ordinary assets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dj_dagster.orchestration import build_definitions
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual, Table
from dj_dagster.workflow.computed import Imported
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import key_of, materialize, tick

Taken = list[Any]


def reader(lab: Lab, kind: Any, taken: Taken, table: str = "processed", **options: Any) -> Any:
    """An asset that takes the rows of a table, annotated as `kind`."""

    def reads(rows: Any) -> None:
        taken.append(rows)

    if kind is not None:
        reads.__annotations__["rows"] = kind
    else:
        del reads.__annotations__["rows"]
    ins = {"rows": dg.AssetIn([lab.schema.name, table])}
    return dg.asset(name="reads", ins=ins, **options)(reads)


def writer(returned: Callable[[], Any], table: str = "subject") -> dg.AssetsDefinition:
    """An asset whose rows go into a Manual table."""

    @dg.asset(key=["lab", table], io_manager_key="table_io_manager")
    def writes():
        return returned()

    return writes


def error_text(instance: dg.DagsterInstance) -> str:
    (run,) = instance.get_runs(limit=1)
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return str(events[0].get_dagster_event().step_failure_data.error_display_string)


@pytest.fixture
def filled(lab: Lab, instance: dg.DagsterInstance) -> Lab:
    lab.add_sessions(range(3))
    for table in (lab.RawData, lab.Processed, lab.Filtered):
        table.populate()
    tick(lab.definitions(), instance)
    return lab


def test_a_frame_has_all_attributes_as_columns(filled: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    defs = filled.definitions(assets=[reader(filled, pd.DataFrame, taken)])
    assert materialize(defs, instance, "reads")
    (frame,) = taken
    assert list(frame.columns) == ["subject_id", "session_id", "total"]
    assert list(frame["session_id"]) == [0, 1, 2]
    assert list(frame["total"]) == [5, 6, 7]


def test_an_empty_table_is_a_frame_with_columns(lab: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    assert materialize(
        lab.definitions(assets=[reader(lab, pd.DataFrame, taken)]), instance, "reads"
    )
    assert list(taken[0].columns) == ["subject_id", "session_id", "total"]


@pytest.mark.parametrize("kind", [list[dict], list, None])
def test_rows_come_as_dicts(filled: Lab, instance: dg.DagsterInstance, kind: Any) -> None:
    taken: Taken = []
    defs = filled.definitions(assets=[reader(filled, kind, taken)])
    assert materialize(defs, instance, "reads")
    assert taken == [[{"subject_id": 1, "session_id": n, "total": n + 5} for n in range(3)]]


def test_blobs_come_as_python_objects(filled: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    defs = filled.definitions(assets=[reader(filled, None, taken, table="raw_data")])
    assert materialize(defs, instance, "reads")
    assert taken[0][1]["data"] == [1, 2, 3]


def with_partitions_of(lab: Lab, table: str) -> dict[str, Any]:
    specs = {spec.key: spec for spec in lab.definitions().resolve_all_asset_specs()}
    return {"partitions_def": specs[key_of(lab.asset(table))].partitions_def}


def test_a_partition_gets_its_own_row(filled: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    options = with_partitions_of(filled, "session")
    defs = filled.definitions(assets=[reader(filled, dict, taken, **options)])
    assert materialize(defs, instance, "reads", partition=partition(1))
    assert taken == [{"subject_id": 1, "session_id": 1, "total": 6}]


def test_a_range_of_partitions_gets_its_rows(filled: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    options = with_partitions_of(filled, "session")
    reads = reader(filled, None, taken, backfill_policy=dg.BackfillPolicy.single_run(), **options)
    defs = filled.definitions(assets=[reads])
    assert materialize(defs, instance, "reads", partition=partition(1), through=partition(2))
    assert [row["session_id"] for row in taken[0]] == [1, 2]


@pytest.mark.parametrize(
    ("grain", "chosen", "table", "rows"),
    [
        ("session", partition(1), "filtered", 2),
        ("subject", "subject_id=1", "session", 3),
        ("filtered", f"{partition(1)}/filter_id=2", "session", 1),
    ],
)
def test_another_grain_gets_the_rows_that_agree(
    filled: Lab, instance: dg.DagsterInstance, grain: str, chosen: str, table: str, rows: int
) -> None:
    taken: Taken = []
    options = with_partitions_of(filled, grain)
    nothing = dg.SpecificPartitionsPartitionMapping([])
    reads = reader(filled, None, taken, table=table, **options)
    reads = reads.map_asset_specs(
        lambda spec: spec.replace_attributes(
            deps=[dg.AssetDep(dep.asset_key, partition_mapping=nothing) for dep in spec.deps]
        )
    )
    defs = filled.definitions(assets=[reads])
    assert materialize(defs, instance, "reads", partition=chosen)
    assert len(taken[0]) == rows


def test_a_dict_needs_exactly_one_row(filled: Lab, instance: dg.DagsterInstance) -> None:
    defs = filled.definitions(assets=[reader(filled, dict, [])])
    assert not materialize(defs, instance, "reads")
    assert "lab.Processed has 3 rows for this input" in error_text(instance)


def test_an_annotation_that_rows_cannot_have(filled: Lab, instance: dg.DagsterInstance) -> None:
    defs = filled.definitions(assets=[reader(filled, str, [])])
    assert not materialize(defs, instance, "reads")
    assert "annotate the input as list[dict], dict for a single row" in error_text(instance)


FRAME = pd.DataFrame({"subject_id": [1, 2], "sex": ["F", "M"]})
ROWS = FRAME.to_dict("records")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (FRAME, 2),
        (FRAME.set_index("subject_id"), 2),
        (ROWS, 2),
        (ROWS[0], 1),
        ([], 0),
        (FRAME.head(0), 0),
        (None, 0),
        (pl.DataFrame(ROWS), 2),
        (pl.DataFrame(ROWS).lazy(), 2),
        (pa.Table.from_pylist(ROWS), 2),
        (np.array([(1, "F"), (2, "M")], dtype=[("subject_id", "i4"), ("sex", "U1")]), 2),
    ],
)
def test_what_an_asset_returns_is_inserted(
    lab: Lab, instance: dg.DagsterInstance, value: Any, count: int
) -> None:
    defs = lab.definitions(assets=[writer(lambda: value)])
    assert materialize(defs, instance, "lab/subject")
    assert lab.Subject.to_dicts(order_by="KEY") == ROWS[:count]
    event = instance.get_latest_materialization_event(key_of("lab/subject"))
    metadata = event.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["rows_inserted"].value == count
    assert metadata["dagster/row_count"].value == count


def test_new_keys_are_partitions_at_once(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions([0])
    rows = [{"subject_id": 1, "session_id": n, "session_date": "2026-11-20"} for n in (1, 2)]
    defs = lab.definitions(assets=[writer(lambda: rows, "session")])
    assert materialize(defs, instance, "lab/session")
    assert set(instance.get_dynamic_partitions("lab.Session")) == partitions([1, 2])
    tick(defs, instance)
    assert set(instance.get_dynamic_partitions("lab.Session")) == partitions([0, 1, 2])


def test_an_asset_can_run_again_and_leaves_rows_as_they_are(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    rows = [dict(ROWS[0])]
    defs = lab.definitions(assets=[writer(lambda: rows)])
    assert materialize(defs, instance, "lab/subject")
    rows[:] = [{"subject_id": 1, "sex": "M"}, {"subject_id": 2, "sex": "M"}]
    assert materialize(defs, instance, "lab/subject")
    assert lab.Subject.to_dicts(order_by="KEY") == ROWS
    event = instance.get_latest_materialization_event(key_of("lab/subject"))
    assert event.asset_materialization.metadata["rows_left"].value == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"subject_id": 1, "sex": "F"}, {"subject_id": 2}], ["sex"]),
        ([{"sex": "F"}], ["subject_id"]),
        ([{"subject_id": 1, "sex": "F"}, {"subject_id": 2, "sex": "X"}], ["sex", "'X'"]),
        ([{"subject_id": 1, "sex": "F", "age": 3}], ["age"]),
        ([{"subject_id": 1, "sex": "F"}] * 2, ["subject_id"]),
        ("a text", ["takes a DataFrame"]),
    ],
)
def test_rows_that_do_not_fit_are_refused_all_together(
    lab: Lab, instance: dg.DagsterInstance, rows: Any, words: list[str]
) -> None:
    defs = lab.definitions(assets=[writer(lambda: rows)])
    assert not materialize(defs, instance, "lab/subject")
    assert len(lab.Subject()) == 0
    text = error_text(instance)
    assert "ubject" in text  # the table, as lab.subject or lab.Subject
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([{**ROWS[0], "age": 3}], "age"),
        ([{"subject_id": 1, "sex": "X"}], "'X'"),
        ([{"subject_id": 1}], "sex"),
        (pd.DataFrame(columns=["age"]), "age"),
        (pl.LazyFrame({"age": []}), "age"),
        ("a query", "session_id"),
    ],
)
def test_rows_that_do_not_fit_are_refused_though_none_is_new(
    lab: Lab, instance: dg.DagsterInstance, returned: Any, words: str
) -> None:
    lab.Subject.insert1(ROWS[0])
    defs = lab.definitions(
        assets=[writer(lambda: lab.Session() if isinstance(returned, str) else returned)]
    )
    assert not materialize(defs, instance, "lab/subject")
    assert words in error_text(instance)
    assert "lab.subject" in error_text(instance)


def test_rows_come_down_through_two_tables_in_one_run(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    taken: Taken = []
    defs = lab.definitions(
        assets=[writer(lambda: FRAME), reader(lab, pd.DataFrame, taken, table="subject")]
    )
    assert materialize(defs, instance, "lab/subject", "reads")
    assert list(taken[0]["sex"]) == ["F", "M"]


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame, pa.Table])
def test_rows_come_as_other_frames(filled: Lab, instance: dg.DagsterInstance, kind: Any) -> None:
    taken: Taken = []
    defs = filled.definitions(assets=[reader(filled, kind, taken)])
    assert materialize(defs, instance, "reads")
    frame = taken[0].collect() if kind is pl.LazyFrame else taken[0]
    assert isinstance(taken[0], kind)
    rows = frame.to_pylist() if kind is pa.Table else frame.to_dicts()
    assert rows == [{"subject_id": 1, "session_id": n, "total": n + 5} for n in range(3)]


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame, pa.Table, pd.DataFrame])
def test_json_goes_through_frames(lab: Lab, instance: dg.DagsterInstance, kind: Any) -> None:
    definition = "note : int32\n---\ninfo = null : json"
    note, copy = (
        lab.schema(type(name, (Manual,), {"definition": definition})) for name in ("Note", "Copy")
    )
    rows = [{"note": n, "info": info} for n, info in enumerate(({"x": [1]}, "5", 5, None))]
    note.insert(rows)

    def copied(taken: Any) -> Any:
        return taken

    copied.__annotations__["taken"] = kind
    asset = dg.asset(
        key=["lab", "copy"],
        ins={"taken": dg.AssetIn(["lab", "note"])},
        io_manager_key="table_io_manager",
    )(copied)
    assert materialize(lab.definitions(assets=[asset]), instance, "lab/copy")
    assert copy.to_dicts(order_by="KEY") == rows


def test_an_arrow_table_with_a_name_twice_is_refused(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    table = pa.table([[1], ["F"], ["M"]], names=["subject_id", "sex", "sex"])
    defs = lab.definitions(assets=[writer(lambda: table)])
    assert not materialize(defs, instance, "lab/subject")
    assert "'sex' twice" in error_text(instance)


def test_a_query_is_not_fetched(filled: Lab, instance: dg.DagsterInstance) -> None:
    taken: Taken = []
    options = with_partitions_of(filled, "session")
    defs = filled.definitions(assets=[reader(filled, Table, taken, **options)])
    assert materialize(defs, instance, "reads", partition=partition(1))
    (query,) = taken
    assert isinstance(query, Table)
    assert (query & "total > 100").to_dicts() == []
    assert query.fetch1("total") == 6


ARRAY = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def scans(lab: Lab) -> Schema:
    schema = Schema("scans", connection=lab.schema.connection, context=lab.schema.tables)

    @schema
    class Scan(Imported):
        definition = """
        -> Session
        ---
        image : <blob>
        """

    lab.add_sessions(range(3))
    return schema


def test_an_array_is_the_blob_of_the_partition(
    lab: Lab, scans: Schema, instance: dg.DagsterInstance
) -> None:
    """An Imported table without `make` takes its rows from an asset, and hands them on."""
    taken: Taken = []
    session = with_partitions_of(lab, "session")

    @dg.asset(key=["scans", "scan"], io_manager_key="table_io_manager", **session)
    def scan(context) -> np.ndarray:
        return ARRAY * int(context.partition_key[-1])

    @dg.asset(ins={"image": dg.AssetIn(["scans", "scan"])}, **session)
    def look(image: np.ndarray) -> None:
        taken.append(image)

    defs = build_definitions([lab.schema, scans], assets=[scan, look])
    tick(defs, instance)
    assert materialize(defs, instance, "scans/scan", "look", partition=partition(2))
    assert np.array_equal(taken[0], 2 * ARRAY)
    assert scans.tables["Scan"].keys() == [{"subject_id": 1, "session_id": 2}]


def test_rows_of_another_partition_are_refused(
    lab: Lab, scans: Schema, instance: dg.DagsterInstance
) -> None:
    @dg.asset(
        key=["scans", "scan"],
        io_manager_key="table_io_manager",
        backfill_policy=dg.BackfillPolicy.single_run(),
        **with_partitions_of(lab, "session"),
    )
    def scan() -> list[dict[str, Any]]:
        return [{"subject_id": 1, "session_id": n, "image": ARRAY} for n in (0, 2)]

    defs = build_definitions([lab.schema, scans], assets=[scan])
    tick(defs, instance)
    assert not materialize(
        defs, instance, "scans/scan", partition=partition(0), through=partition(1)
    )
    assert "is of subject_id=1/session_id=2; the asset ran for" in error_text(instance)
    assert len(scans.tables["Scan"]()) == 0
    assert materialize(defs, instance, "scans/scan", partition=partition(0), through=partition(2))
    assert len(scans.tables["Scan"]()) == 2


def test_partitions_are_spelled_as_the_keys_that_are_stored(
    database_url: str, schema_prefix: str, instance: dg.DagsterInstance
) -> None:
    """Rows are left by the next run, in whatever way it gives their keys."""
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}odd", connection=connection)

    @schema
    class Event(Manual):
        definition = """
        at : datetime
        clock : time
        day : date
        code : char(6)
        side : enum('left', 'right')
        number : varchar(9)
        word : varchar(9)
        price : decimal(5, 2)
        gain : float32
        """

    row: dict[str, Any] = {
        "at": dt.datetime(2026, 1, 5, 10, 0, 0, 700_000),
        "clock": np.timedelta64(62, "s"),
        "day": "2026-1-5",
        "code": "ab  ",
        "side": "LEFT",
        "number": True,
        "word": "ab",
        "price": "1.005",
        "gain": 1 / 3,
    }

    @dg.asset(key=[schema.database, "event"], io_manager_key="table_io_manager")
    def event() -> list[dict[str, Any]]:
        return [row]

    defs = build_definitions(schema, assets=[event])
    for _ in range(2):
        assert materialize(defs, instance, f"{schema.database}/event")
        assert len(Event()) == 1
        if not connection.backend.tells_text_apart:
            row["word"] = "AB"
    registered = instance.get_dynamic_partitions(f"{schema.database}.Event")
    assert len(registered) == 1
    tick(defs, instance)
    assert instance.get_dynamic_partitions(f"{schema.database}.Event") == registered


@pytest.mark.parametrize("key", ["id : int auto_increment", "id = 7 : int32"])
def test_a_key_of_the_database_is_a_partition_with_the_next_tick(
    lab: Lab, instance: dg.DagsterInstance, key: str
) -> None:
    schema = Schema("numbered", connection=lab.schema.connection)
    schema(type("Event", (Manual,), {"definition": f"{key}\n---\nx : int32"}))

    @dg.asset(key=["numbered", "event"], io_manager_key="table_io_manager")
    def event() -> list[dict[str, Any]]:
        return [{"x": 1}]

    defs = build_definitions(schema, assets=[event])
    assert materialize(defs, instance, "numbered/event")
    (row,) = schema["Event"].keys()
    tick(defs, instance)
    assert instance.get_dynamic_partitions("numbered.Event") == [f"id={row['id']}"]


@pytest.fixture
def entities(lab: Lab) -> Schema:
    """Notes of subjects, and people whose attribute has the name of the subjects'."""
    schema = Schema("others", connection=lab.schema.connection, context=lab.schema.tables)
    for name, definition in {
        "Note": "note_id : int32\n---\n-> [nullable] Subject",
        "Person": "subject_id : int32\n---\nname : varchar(9)",
    }.items():
        schema(type(name, (Manual,), {"definition": definition}))
    lab.Subject.insert(ROWS)
    return schema


@pytest.mark.parametrize(
    ("table", "row", "words"),
    [
        ("note", {"note_id": 3}, None),
        ("note", {"note_id": 3, "subject_id": 1}, None),
        ("note", {"note_id": 3, "subject_id": 2}, "is of subject_id=2; the asset ran for"),
        ("note", {"note_id": 3, "subject_id": None}, "has no subject_id; the asset ran for"),
        ("person", {"name": "new"}, "needs a value for 'subject_id'"),
    ],
)
def test_attributes_beside_the_key_are_of_the_partition_by_their_lineage(
    lab: Lab,
    entities: Schema,
    instance: dg.DagsterInstance,
    table: str,
    row: dict[str, Any],
    words: str | None,
) -> None:
    @dg.asset(
        key=["others", table],
        io_manager_key="table_io_manager",
        **with_partitions_of(lab, "subject"),
    )
    def writes() -> list[dict[str, Any]]:
        return [row]

    entities["Note"].insert([(n, n) for n in (1, 2)])
    defs = build_definitions([lab.schema, entities], assets=[writes])
    tick(defs, instance)
    done = materialize(defs, instance, f"others/{table}", partition="subject_id=1")
    assert done is (words is None)
    if words:
        assert words in error_text(instance)
        return
    assert (entities["Note"] & "note_id = 3").fetch1("subject_id") == 1
    event = instance.get_latest_materialization_event(key_of(f"others/{table}"))
    metadata = event.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["dagster/partition_row_count"].value == 2
    assert "dagster/row_count" not in metadata


def test_an_input_is_not_restricted_by_another_entity_of_the_same_name(
    lab: Lab, entities: Schema, instance: dg.DagsterInstance
) -> None:
    entities["Person"].insert([(1, "Ann"), (2, "Bob")])
    people = dg.AssetIn(
        ["others", "person"], partition_mapping=dg.SpecificPartitionsPartitionMapping([])
    )

    @dg.asset(ins={"people": people}, **with_partitions_of(lab, "subject"))
    def report(people: list[dict[str, Any]]) -> None:
        assert people

    defs = build_definitions([lab.schema, entities], assets=[report])
    tick(defs, instance)
    assert not materialize(defs, instance, "report", partition="subject_id=1")
    assert "shares no attribute with others.Person" in error_text(instance)
