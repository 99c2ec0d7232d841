"""Looks that take long, cut into pieces: a tick has little time, and all gets done in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dj_dagster.errors import DataJointError
from dj_dagster.orchestration import SensorSettings
from dj_dagster.orchestration.headless import run_until_idle
from dj_dagster.orchestration.sensor.upkeep import Records, Seen
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import key_pages
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    execute,
    requested,
    run_until_quiet,
    statuses,
    submit,
    tick,
)
from tests.services.process import eventually

MODULE = "dj_dagster.orchestration"
ONE_PIECE = SensorSettings(tick_seconds=0.0, sweep=1e9)
ALL_AT_ONCE = SensorSettings(tick_seconds=1e9, sweep=1e9)
TABLES = ("session", "raw_data", "processed", "processed/peak", "filtered")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few keys, so that a small lab has many, and no pauses between them."""
    monkeypatch.setattr(f"{MODULE}.tables.partitions.PAGE", 3)
    monkeypatch.setattr(f"{MODULE}.tables.partitions.ENCODED_AT_ONCE", 3)
    monkeypatch.setattr(f"{MODULE}.tables.partitions.CHUNK", 3)
    monkeypatch.setattr(f"{MODULE}.tables.partitions.LISTED", 3)
    monkeypatch.setattr(f"{MODULE}.sensor.upkeep.MARKS", 2)
    monkeypatch.setattr(f"{MODULE}.sensor.sensor_settings.SHARE", 0)


def goes_on(result: dg.SensorResult) -> bool:
    return bool(result.run_requests) or "goes on" in str(result.skip_reason)


def tick_until_done(defs: dg.Definitions, instance: dg.DagsterInstance) -> int:
    """Tick until nothing is left to be looked at; returns how often."""
    for count in range(1, 300):
        if not goes_on(tick(defs, instance)):
            return count
    raise AssertionError("the look at everything does not end")


def state(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, Any]:
    return {name: statuses(defs, instance, lab.asset(*name.split("/"))) for name in TABLES}


def made_outside(lab: Lab, sessions: Iterable[int]) -> None:
    """Fill all tables as a person without Dagster does."""
    lab.add_sessions(sessions)
    for table in (lab.RawData, lab.Processed, lab.Filtered):
        table.populate()


def test_many_short_ticks_do_what_a_long_one_does(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    made_outside(any_lab, range(10))
    name = any_lab.schema.name
    instance.add_dynamic_partitions(f"{name}.Session", [partition(5), partition(77), "by hand"])
    defs = any_lab.definitions(sensor_settings=ONE_PIECE)
    assert tick_until_done(defs, instance) > 20
    assert set(instance.get_dynamic_partitions(f"{name}.Session")) == partitions(range(10))
    assert len(instance.get_dynamic_partitions(f"{name}.Filtered")) == 20
    pieces = state(any_lab, defs, instance)
    assert all(set(found) == {"MATERIALIZED"} for found in pieces.values())
    assert tick_until_done(any_lab.definitions(sensor_settings=ALL_AT_ONCE), instance) == 1
    assert state(any_lab, defs, instance) == pieces
    records = instance.fetch_materializations(dg.AssetKey([name, "session"]), limit=99).records
    assert len(records) == 10


def test_a_new_session_is_asked_for_before_the_look_at_all_others_is_over(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    made_outside(any_lab, range(40))
    defs = any_lab.definitions(sensor_settings=ONE_PIECE)
    for _ in range(12):
        tick(defs, instance)
    any_lab.add_sessions([99])
    asked = next(filter(None, (requested(tick(defs, instance)) for _ in range(3))))
    assert [op["config"]["keys"] for op in asked[0].run_config["ops"].values()] == [
        [partition(99)]
    ] * 2
    grain = f"{any_lab.schema.name}.Session"
    registered = instance.get_dynamic_partitions(grain)
    assert partition(99) in registered
    assert len(registered) < 41
    assert execute(defs, instance, submit(defs, instance, asked[0]))
    assert any_lab.calls.count(("RawData", 99)) == 1


def test_a_code_server_killed_in_the_middle_goes_on(lab: Lab, instance: dg.DagsterInstance) -> None:
    made_outside(lab, range(8))
    lab.add_sessions(range(8, 16))
    lab.calls.clear()
    before = 0
    for _ in range(4):
        defs = lab.definitions(sensor_settings=ONE_PIECE)
        for _ in range(15):
            for request in requested(tick(defs, instance)):
                assert execute(defs, instance, submit(defs, instance, request))
        now = len(instance.get_dynamic_partitions("lab.Session"))
        assert now >= before
        before = now
    defs = lab.definitions(sensor_settings=ONE_PIECE)
    for run in run_until_idle(defs, instance=instance):
        assert run.is_success
    assert all(set(found) == {"MATERIALIZED"} for found in state(lab, defs, instance).values())
    assert sorted(lab.calls) == sorted(
        [(table, n) for table in ("RawData", "Processed") for n in range(8, 16)]
        + [("Filtered", n) for n in range(8, 16) for _ in range(2)]
    )


def test_rows_that_come_and_go_behind_a_sweep_are_not_lost(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    made_outside(lab, range(0, 12, 2))
    tick_until_done(lab.definitions(sensor_settings=ONE_PIECE), instance)
    defs = lab.definitions(sensor_settings=ONE_PIECE)
    for step in range(24):
        if step % 4 == 0:
            (lab.Session & {"session_id": step // 2}).delete(prompt=False)
            lab.add_sessions([step // 2 + 1])
        # No run comes of what is asked for: it is asked for again.
        tick(defs, instance)
    run_until_quiet(defs, instance, ticks=30)
    wanted = partitions(range(1, 12, 2))
    assert set(instance.get_dynamic_partitions("lab.Session")) == wanted
    assert statuses(defs, instance, "lab/processed") == {"MATERIALIZED": wanted}
    for table in ("RawData", "Processed"):
        numbers = [number for name, number in lab.calls if name == table]
        assert len(numbers) == len(set(numbers)) == 12


def test_a_partition_that_a_person_removes_while_the_sensor_removes_others_is_missed(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    """Or it would be of the number that is counted next, and never come back."""
    grain, records = Grain("lab.Session", ()), Records()
    instance.add_dynamic_partitions(grain.name, list(map(partition, range(6))))
    assert records.look(instance, [grain], []) == Seen()
    instance.delete_dynamic_partition(grain.name, partition(0))
    assert not records.recount(instance, grain, 1)
    instance.delete_dynamic_partition(grain.name, partition(4))
    instance.delete_dynamic_partition(grain.name, partition(1))
    instance.add_dynamic_partitions(grain.name, [partition(9)])
    assert records.recount(instance, grain, 1)
    assert not records.recount(instance, grain, 0)


def test_a_partition_removed_just_before_another_is_registered_comes_back(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's table gives the number of its last line to the next one, where that is gone."""
    for limit in ("SHORTEST", "LONGEST"):
        monkeypatch.setattr(f"{MODULE}.sensor.upkeep.{limit}", 1e9)
    lab.add_sessions([1])
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.add_sessions([2])
    tick(defs, instance)
    instance.delete_dynamic_partition("lab.Session", partition(2))
    lab.add_sessions([3])

    def all_are_there() -> bool:
        tick(defs, instance)
        return set(instance.get_dynamic_partitions("lab.Session")) == partitions([1, 2, 3])

    eventually(all_are_there, every=0.1)


def test_an_error_in_the_middle_begins_the_look_anew(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_outside(lab, range(10))
    defs = lab.definitions(sensor_settings=ONE_PIECE)
    for _ in range(15):
        tick(defs, instance)
    with monkeypatch.context() as broken:
        broken.setattr(f"{MODULE}.tables.partitions._page", lambda *_: 1 / 0)
        with pytest.raises(DataJointError, match="division by zero"):
            tick_until_done(defs, instance)
    tick_until_done(defs, instance)
    assert all(set(found) == {"MATERIALIZED"} for found in state(lab, defs, instance).values())


KEYS = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "varchar(12)": st.text("aBé /-_0", max_size=6).map(str.strip),
    "date": st.dates(),
    "decimal(6, 2)": st.decimals(-999, 999, places=2),
    "uuid": st.uuids(),
    "enum('z', 'm', 'a')": st.sampled_from("zma"),
    "float64": st.floats(-1e6, 1e6),
}


@pytest.mark.parametrize("kind", KEYS)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_pages_have_each_key_once_whatever_its_type(
    database_url: str, schema_prefix: str, kind: str, data: st.DataObject
) -> None:
    with_connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}pages", connection=with_connection)

    @schema
    class Thing(Manual):
        definition = f"""
        place : int32
        thing : {kind}
        number : int32
        """

    values = data.draw(st.lists(KEYS[kind], min_size=1, max_size=8, unique_by=str))
    wanted = {(place, value) for place in (1, 2) for value in values}
    rows = [(*key, number) for key in wanted for number in range(2)]
    Thing.delete_quick()
    Thing.insert(rows, skip_duplicates=True)
    table = Thing()
    stored = set(zip(*table.to_arrays("place", "thing"), strict=True))
    for names in (["place", "thing"], ["thing", "place"], ["place"]):
        found = [tuple(row) for page in key_pages(table, names) for row in page]
        assert len(found) == len(set(found))
        at = [["place", "thing"].index(name) for name in names]
        assert set(found) == {tuple(row[n] for n in at) for row in stored}
    with_connection.close()
