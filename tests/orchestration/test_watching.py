"""The sensor between ticks: what it sees without looking at everything, and what it finds again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dj_dagster.model.names import TableName
from dj_dagster.orchestration import SensorSettings, build_definitions
from dj_dagster.orchestration.sensor.changes import ChangeMarks, KeyWatch
from dj_dagster.orchestration.sensor.sensor_settings import Pause
from dj_dagster.relational.backends.mysql_server import SETTLED
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import (
    execute,
    requested,
    run_until,
    run_until_quiet,
    statuses,
    submit,
    tick,
)
from tests.services.process import eventually

NEVER_SWEEP = SensorSettings(sweep=1e9)


def test_rows_of_another_client_anywhere_in_the_key_are_seen(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions([5, 10])
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    other = Connection(any_lab.schema.connection._url, safemode=False)
    session = Schema(any_lab.schema.name, connection=other)
    table = f"`{session.name}`.`session`"
    if other.backend.name == "sqlite":
        table = f'"{session.name}.session"'
    other.query(f"INSERT INTO {table} (subject_id, session_id, session_date) "
                "VALUES (1, 7, '2026-01-01'), (1, 2, '2026-01-01')")  # fmt: skip
    run_until_quiet(defs, instance)
    assert len(any_lab.Processed()) == 4
    assert set(instance.get_dynamic_partitions(f"{session.name}.Session")) == partitions(
        [2, 5, 7, 10]
    )
    assert set(statuses(defs, instance, any_lab.asset("session"))) == {"MATERIALIZED"}
    other.close()


def test_deleted_and_replaced_rows_are_seen(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(4))
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    (any_lab.Session & {"session_id": 3}).delete(prompt=False)
    any_lab.add_sessions([9])
    run_until_quiet(defs, instance)
    name = any_lab.schema.name
    assert set(instance.get_dynamic_partitions(f"{name}.Session")) == partitions([0, 1, 2, 9])
    assert len(any_lab.Filtered()) == 8
    assert len(instance.get_dynamic_partitions(f"{name}.Filtered")) == 8


def test_a_deleted_result_is_made_again(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(4))
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    (any_lab.Processed & {"session_id": 2}).delete(prompt=False)
    any_lab.calls.clear()
    run_until_quiet(defs, instance)
    assert any_lab.calls == [("Processed", 2)]


def test_a_key_whose_error_is_cleared_is_asked_for(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.broken = {1}
    any_lab.add_sessions(range(3))
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    any_lab.broken = set()
    any_lab.RawData().jobs.errors.delete()
    run_until_quiet(defs, instance)
    assert any_lab.calls.count(("RawData", 1)) == 2
    assert len(any_lab.Filtered()) == 6


def test_a_key_that_is_put_off_is_made_once_it_is_due(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    """Nothing is written to the database when its time comes."""
    any_lab.add_sessions(range(2))
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    any_lab.add_sessions([2])
    due = time.monotonic() + 5
    any_lab.RawData.jobs.refresh(delay=5)
    run_until_quiet(defs, instance)
    assert (("RawData", 2) in any_lab.calls) <= (time.monotonic() > due)
    run_until(defs, instance, lambda: len(any_lab.Filtered()) == 6)
    assert time.monotonic() > due
    assert any_lab.calls.count(("RawData", 2)) == 1


def test_a_request_that_no_run_came_of_is_made_again(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(2))
    defs = lab.definitions(sensor_settings=NEVER_SWEEP)
    asked = [requested(tick(defs, instance)) for _ in range(3)]
    assert len({request.run_key for (request,) in asked}) == 1


def test_a_run_that_ended_unseen_leaves_its_keys_to_the_next(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(2))
    defs = lab.definitions(sensor_settings=NEVER_SWEEP)
    (first,) = requested(tick(defs, instance))
    instance.report_run_canceled(submit(defs, instance, first))
    (second,) = requested(tick(defs, instance))
    assert second.run_key != first.run_key
    assert second.run_config == first.run_config


def test_another_process_goes_on_where_one_was_killed(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(3))
    (request,) = requested(tick(lab.definitions(), instance))
    restarted = lab.definitions()
    run = submit(restarted, instance, request)
    assert requested(tick(restarted, instance)) == []
    execute(restarted, instance, run)
    run_until_quiet(lab.definitions(), instance)
    assert len(lab.calls) == len(set(lab.calls)) + 3  # Filtered has two keys a session
    assert len(lab.Filtered()) == 6


def test_what_no_database_tells_is_found_by_the_sweep(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dj_dagster.orchestration.sensor.sensor_settings.SHARE", 0)
    lab.add_sessions([0])
    defs = lab.definitions(sensor_settings=SensorSettings(sweep=0.0))
    run_until_quiet(defs, instance)
    instance.delete_dynamic_partition("lab.Session", partition(0))
    tick(defs, instance)
    assert instance.get_dynamic_partitions("lab.Session") == [partition(0)]


def test_a_tick_without_changes_reads_no_table(
    any_lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_lab.add_sessions(range(3))
    defs = any_lab.definitions(sensor_settings=NEVER_SWEEP)
    run_until_quiet(defs, instance)
    # Within these seconds the server cannot tell two changes from one.
    for _ in range(2):
        time.sleep(
            SETTLED.total_seconds() / 2 + 0.6
            if any_lab.schema.connection.backend.name == "mysql"
            else 0
        )
        tick(defs, instance)
    looked: list[Any] = []
    for name in ("appended", "compare"):
        monkeypatch.setattr(KeyWatch, name, lambda self, name=name: looked.append(name))
    tick(defs, instance)
    assert looked == []


@pytest.fixture
def numbers(database_url: str, schema_prefix: str) -> Any:
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}numbers", connection=connection)

    @schema
    class Number(Manual):
        definition = """
        number : int32
        letter : varchar(10)
        """

    yield Number
    connection.close()


def rows(*values: int) -> list[dict[str, Any]]:
    return [{"number": value, "letter": "a"} for value in values]


def test_marks_tell_of_changes_of_any_client(numbers: Any, database_url: str) -> None:
    connection = numbers().connection
    marks = ChangeMarks(connection, [numbers().name])
    assert marks.changed() == {numbers().name}
    eventually(lambda: not marks.changed(), every=0.1)
    other = Connection(database_url, safemode=False)
    FreeTable(other, numbers().name).insert(rows(1))
    assert marks.changed() == {numbers().name}
    other.close()


@pytest.fixture
def viewed(database_url: str, schema_prefix: str) -> Iterator[tuple[Schema, Any]]:
    """A table of one schema, and in another a view of a view of it."""
    connection = Connection(database_url, safemode=False)
    raw = Schema(f"{schema_prefix}raw", connection=connection)
    lab = Schema(f"{schema_prefix}lab", connection=connection)

    @raw
    class Item(Manual):
        definition = """
        item : int32
        ---
        approved = 0 : int8
        """

    sql, table = connection.backend.full_name, Item.full_table_name
    known, good = (sql(TableName(lab.name, name)) for name in ("known", "good"))
    connection.query(f"CREATE VIEW {known} AS SELECT i.item, i.approved FROM {table} AS i")
    connection.query(f"CREATE VIEW {good} AS SELECT item FROM {known} WHERE approved = 1")
    yield lab, Item
    for view in (good, known):
        connection.query(f"DROP VIEW {view}")
    connection.close()


def test_what_a_view_selects_is_seen(
    viewed: tuple[Schema, Any], instance: dg.DagsterInstance
) -> None:
    lab, Item = viewed
    good = FreeTable(lab.connection, TableName(lab.name, "good"))

    @lab
    class Checked(Computed):
        definition = "-> Item"

        @property
        def key_source(self) -> Any:
            return Item().restrict(good, semantic_check=False)

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Item.insert([(1, 1), (2, 0)])
    defs = build_definitions(lab, sensor_settings=NEVER_SWEEP)
    eventually(lambda: run_until_quiet(defs, instance) == [])
    assert Checked.keys() == [{"item": 1}]
    Item.insert1((3, 1))
    run_until(defs, instance, lambda: len(Checked()) == 2)
    Item.update1({"item": 2, "approved": 1})
    run_until(defs, instance, lambda: len(Checked()) == 3)


def test_marks_tell_of_views(viewed: tuple[Schema, Any], database_url: str) -> None:
    """A view changes with what it selects from, and not with other tables; one that nobody can
    look into may change at any time."""
    lab, Item = viewed

    @lab
    class Other(Manual):
        definition = "other : int32"

    good = TableName(lab.name, "good")
    marks = ChangeMarks(Connection(database_url), [good])
    assert marks.changed() == {good}
    eventually(lambda: not marks.changed())
    Item.insert1((5, 0))
    eventually(lambda: good in marks.changed())
    eventually(lambda: not marks.changed())
    Other.insert1((1,))
    assert bool(marks.changed()) == (lab.connection.backend.name == "sqlite")
    if lab.connection.backend.name == "mysql":
        Item.drop()
        blind = ChangeMarks(Connection(database_url), [good])
        assert [blind.changed() for _ in range(3)] == [{good}] * 3


def test_keys_as_far_apart_as_integers_can_be(database_url: str, schema_prefix: str) -> None:
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}far", connection=connection)

    @schema
    class Far(Manual):
        definition = """
        number : int64
        """

    ends = [-(2**63), 2**63 - 1]
    Far.insert([[end] for end in ends])
    watch = KeyWatch(connection, Far().name)
    watch.compare()
    assert watch.compare() is None
    for value in (0, -1, 1, -(2**62), 2**62):
        Far.insert1([value])
        found = {key["number"] for key in watch.appended() or ()}
        difference = watch.compare()
        ranges = difference.region.ranges if difference is not None else ()
        assert value in found or any(low <= value <= high for low, high in ranges)
        assert watch.compare() is None
    connection.close()


@pytest.mark.parametrize("letters", ["ab", "ba"])
def test_values_exchanged_between_rows_are_seen(
    database_url: str, schema_prefix: str, letters: str
) -> None:
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}exchanged", connection=connection)

    @schema
    class Noted(Manual):
        definition = """
        number : int32
        ---
        note : varchar(10)
        """

    Noted.insert([(n, "ab"[n % 2]) for n in range(10)])
    watch = KeyWatch(connection, Noted().name)
    watch.compare()
    for number, letter in zip((2, 3), letters, strict=True):
        Noted.update1({"number": number, "note": letter})
    difference = watch.compare()
    assert (difference is not None) == (letters == "ba")
    assert difference is None or not difference.keys
    connection.close()


def test_a_look_at_few_rows_is_not_slow_however_busy_the_machine() -> None:
    pause = Pause()
    pause.took(5.0, rows=1000)
    assert pause.over
    pause.took(5.0, rows=100_000)
    assert not pause.over


def test_ranges_cover_all_numbers_without_overlap(numbers: Any) -> None:
    table = numbers()
    values = [*range(-3000, 3000, 7), 10**6]
    numbers.insert(rows(*values))
    watch = KeyWatch(table.connection, table.name)
    assert (first := watch.compare()) is not None
    assert first.region.whole
    assert watch.compare() is None
    for value in (-2998, -1, 1, 2998, -5000, 999_999):
        numbers.insert(rows(value))
        appended = watch.appended()
        found = watch.compare()
        if appended:
            assert [key["number"] for key in appended] == [value]
            assert found is None
        else:
            assert found is not None
            assert found.keys
            region = found.region
            assert any(low <= value <= high for low, high in region.ranges)
            assert region.ranges[0][1] - region.ranges[0][0] < 3000


def test_a_row_exchanged_for_another_is_seen(numbers: Any) -> None:
    numbers.insert(rows(*range(100)))
    watch = KeyWatch(numbers().connection, numbers().name)
    watch.compare()
    for gone, come in itertools.pairwise([99, 100, 200, 101]):
        (numbers & {"number": gone}).delete(prompt=False)
        numbers.insert(rows(come), skip_duplicates=True)
        found = {key["number"] for key in watch.appended() or ()}
        difference = watch.compare()
        assert difference is not None
        region = difference.region
        assert region.whole or come in found or any(a <= come <= b for a, b in region.ranges)
