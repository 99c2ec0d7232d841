"""Marks are stored in batches, in short, and Dagster reads them as its own events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._serdes import deserialize_value, serialize_value

from dj_dagster.orchestration._dagster import CODE_VERSION_TAG, DATA_VERSION_TAG
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Batch, Mark, Origin
from tests.orchestration.conftest import SETTINGS

KEY = dg.AssetKey(["lab", '50% of "it"'])
ORIGIN = Origin("9d1c6d0e-8f0c-4b3e-9b53-1f7a5f3c2d11", "populate", "lab__it")

METADATA: dict[str, Any] = {
    "rows": 3,
    "seconds_make": 0.25,
    "bytes": dg.MetadataValue.int(2**40),
    "whole": True,
    "values": dg.MetadataValue.text('name = "50 %s" \\ \n µ\U0001f600'),
    "preview": dg.MetadataValue.md("| a |\n|---|\n| %(time)s |"),
    "plain %s": "text",
    "empty": "",
    "json": {"a": None, "b": [], "c": {"d": 1}},
    "none": None,
    "link": dg.MetadataValue.url("https://example.org/?a=1&b=%20"),
    "asset": dg.MetadataValue.asset(dg.AssetKey(["lab", "other"])),
    "table": dg.MetadataValue.table([dg.TableRecord({"a": 1})]),
}

ODD = ["id=1", "name=50%25/s=%s", 'quote="', "back\\slash", "µ\U0001f600", "\ufdd1", "%(note)s"]
"""Partitions with characters that mean something in templates."""


def alike(partition: str | None) -> list[list[Mark]]:
    """Marks of each kind and shape of one partition."""
    tags = {CODE_VERSION_TAG: "a%s", DATA_VERSION_TAG: f"of {partition}"}
    return [
        [Mark(KEY, partition)],
        [Mark(KEY, partition, METADATA, tags=tags), Mark(KEY, partition, {"rows": 4})],
        [Mark(KEY, partition, {"rows": None}, tags={})],
        [Mark(KEY, partition, planned=True)],
        [Mark(KEY, partition, METADATA, note=f"Failed: {partition} %s"), Mark(KEY, None, note="")],
        [Mark(KEY, partition, note="seen", tags=tags)],
    ]


@pytest.mark.parametrize("origin", [ORIGIN, Origin()], ids=["in a run", "outside"])
def test_each_kind_of_mark_is_read_as_the_event_that_dagster_would_write(origin: Origin) -> None:
    for partition in (None, *ODD):
        for marks in alike(partition):
            batch = Batch(marks, [1.7e9 + n / 1000 for n in range(len(marks))], origin)
            read = [deserialize_value(text, EventLogEntry) for text in batch.texts()]
            assert read == batch.entries()


def test_a_batch_that_begins_plainly_has_what_its_other_marks_say() -> None:
    marks = [Mark(KEY, p, {"rows": n, "of": p}) for n, p in enumerate(ODD)]
    batch = Batch(marks, [1.5 + n for n in range(len(marks))], ORIGIN)
    assert [deserialize_value(text, EventLogEntry) for text in batch.texts()] == batch.entries()


def test_a_mark_is_stored_without_what_its_reading_fills_in() -> None:
    tags = {CODE_VERSION_TAG: "a1b2", DATA_VERSION_TAG: ORIGIN.run_id}
    metadata = {"rows": 1, "seconds_make": 0.1, "values": dg.MetadataValue.text("a = 1")}
    for mark in (Mark(KEY, "id=1", metadata, tags=tags), Mark(KEY, "id=1", planned=True)):
        batch = Batch([mark], [1.7e9], ORIGIN)
        assert len(batch.texts()[0]) < 0.8 * len(serialize_value(batch.last))


def test_what_dagster_refuses_is_refused() -> None:
    for metadata in ({"odd": object()}, {3: 4}):
        with pytest.raises(Exception, match=r"metadata|Expected"):
            Batch([Mark(KEY, "id=1", metadata)], [1.0], ORIGIN).texts()


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def any_instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    if request.param == "sqlite":
        yield request.getfixturevalue("instance")
    elif request.param == "memory":
        with dg.DagsterInstance.ephemeral() as made:
            yield made
    else:
        url = request.getfixturevalue("postgres_url")
        storage = {"postgres": {"postgres_url": url}}
        overrides = {**SETTINGS, "storage": storage}
        with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as made:
            # The server is that of other tests.
            made.event_log_storage.wipe()
            yield made


def test_stored_marks_are_found_by_everything_that_dagster_asks(
    any_instance: dg.DagsterInstance,
) -> None:
    instance, storage = any_instance, any_instance.event_log_storage
    run = dg.DagsterRun("populate", ORIGIN.run_id, status=dg.DagsterRunStatus.FAILURE)
    instance.add_run(run)
    plans = [Mark(KEY, partition, planned=True) for partition in ODD]
    assert write_marks(instance, plans, ORIGIN) == len(ODD)
    assert instance.get_materialized_partitions(KEY) == set()
    assert instance.get_latest_materialization_event(KEY) is None
    # Each has data of its own, two lack a version.
    made = [
        Mark(KEY, p, {"place": n, **METADATA}, tags={DATA_VERSION_TAG: f"v{n}"} if n > 1 else None)
        for n, p in enumerate(ODD[:-1])
    ]
    write_marks(instance, made, ORIGIN)
    notes = [Mark(KEY, ODD[-1], {"error": "it"}, note="Failed: it")]
    write_marks(instance, notes, ORIGIN)
    assert instance.get_materialized_partitions(KEY) == set(ODD[:-1])
    definition = dg.DynamicPartitionsDefinition(name="grain")
    instance.add_dynamic_partitions("grain", ODD)
    states = instance.get_status_by_partition(KEY, ODD, definition)
    assert states is not None
    assert {p: state.value for p, state in states.items() if state is not None} == {
        **dict.fromkeys(ODD[:-1], "MATERIALIZED"),
        ODD[-1]: "FAILED",
    }
    kinds = dg.DagsterEventType
    versions = storage.get_latest_tags_by_partition(
        KEY, kinds.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    assert versions == {p: {DATA_VERSION_TAG: f"v{n}"} for n, p in enumerate(ODD[:-1]) if n > 1}
    for place, partition in enumerate(ODD[:-1]):
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(KEY, asset_partitions=[partition]), limit=5
        ).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["place"].value == place
        assert record.run_id == ORIGIN.run_id
    (noted,) = instance.fetch_observations(KEY, limit=5).records
    assert noted.asset_observation is not None
    assert noted.asset_observation.description == "Failed: it"
    (entry,) = [each.asset_entry for each in instance.get_asset_records([KEY])]
    last = entry.last_materialization_record
    assert last is not None
    assert last.partition_key == ODD[-2]
    assert last.storage_id == max(
        storage.get_latest_storage_id_by_partition(KEY, kinds.ASSET_MATERIALIZATION).values()
    )
    assert entry.last_run_id == ORIGIN.run_id
    # The page of a run lists what it has marked.
    logged = instance.get_records_for_run(ORIGIN.run_id).records
    assert len(logged) == 2 * len(ODD)
    assert {each.event_log_entry.step_key for each in logged} == {ORIGIN.step_key}


def test_marks_outside_of_runs_are_shown_too(any_instance: dg.DagsterInstance) -> None:
    tags = {DATA_VERSION_TAG: "v"}
    write_marks(any_instance, [Mark(KEY, p, {"rows": 1}, tags=tags) for p in ODD])
    assert any_instance.get_materialized_partitions(KEY) == set(ODD)
    records = any_instance.fetch_materializations(KEY, limit=50).records
    assert [record.partition_key for record in records] == ODD[::-1]
    tagged = any_instance.event_log_storage.get_event_tags_for_asset(KEY, tags)
    assert tagged == [tags] * len(ODD)
