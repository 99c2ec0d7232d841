"""Old events are compacted, and what Dagster shows of keys stays, for any history."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.runs.schema import RunsTable
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import dj_dagster as dj
from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import CompactedTable, compact_events
from dj_dagster.orchestration._dagster import CODE_VERSION_TAG, DATA_VERSION_TAG
from dj_dagster.orchestration.inspection.project import dagster_instance
from dj_dagster.orchestration.runs.event_storage import store_batch
from dj_dagster.orchestration.runs.marks import Batch, Mark, Origin
from dj_dagster.orchestration.runs.shown_marks import shown
from dj_dagster.orchestration.runs.superseded import delete, superseded
from tests.command_line import Command, inside
from tests.orchestration.conftest import SETTINGS

__all__ = ["inside"]

KEY = dg.AssetKey(["lab", "item"])
OTHER = dg.AssetKey(["lab", "other"])
PARTITIONS = [f"item={number}" for number in range(4)]
DEFINITION = dg.DynamicPartitionsDefinition(name="lab.Item")
STATUSES = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.STARTED,
    None,
]
"""The runs of a history; the last has been deleted."""

LIMIT = 12
"""The step of a history from which on events are too young to go."""

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Step:
    """An event of a table or of one of its partitions, or a wipe of the table."""

    what: str
    partition: str | None
    run: int | None
    tagged: bool

    def mark(self, place: int) -> Mark:
        tags = {DATA_VERSION_TAG: f"v{place}", CODE_VERSION_TAG: f"c{place}"}
        return Mark(
            KEY,
            self.partition,
            {"place": place},
            planned=self.what == "planned",
            note=f"note {place}" if self.what == "noted" else None,
            tags=tags if self.tagged and self.what != "planned" else None,
        )


steps = st.builds(
    Step,
    st.sampled_from(["made", "made", "planned", "planned", "noted", "wiped"]),
    st.sampled_from([*PARTITIONS, *PARTITIONS, None]),
    st.sampled_from([None, *range(len(STATUSES))]),
    st.booleans(),
)


class History:
    """An instance with one table, whose events are written step by step, a day each."""

    def __init__(self, instance: dg.DagsterInstance, schema: dj.Schema) -> None:
        self.instance, self.schema = instance, schema
        assert isinstance(instance.event_log_storage, SqlEventLogStorage)
        self.storage = instance.event_log_storage
        instance.add_dynamic_partitions("lab.Item", PARTITIONS)
        self.runs = [
            dg.DagsterRun("job", run_id=f"00000000-0000-4000-8000-00000000000{n}", status=status)
            for n, status in enumerate(STATUSES)
            if status is not None
        ]
        for run in self.runs:
            instance.add_run(run)
        self.run_ids = [*(run.run_id for run in self.runs), "00000000-0000-4000-8000-00000000000f"]

    def write(self, *history: Step) -> None:
        """Begin anew with this history."""
        self.storage.wipe()
        self.instance.add_dynamic_partitions("lab.Item", PARTITIONS)
        for place, step in enumerate(history):
            at = self.time(place)
            if step.what == "wiped":
                self.wipe(at)
                continue
            origin = Origin() if step.run is None else Origin(self.run_ids[step.run], "job", "step")
            store_batch(self.instance, Batch([step.mark(place)], [at.timestamp()], origin))

    def time(self, place: int) -> datetime:
        return BEGIN + timedelta(days=place)

    def wipe(self, at: datetime) -> None:
        """Wipe the asset, at a time in the past."""
        self.storage.wipe_asset(KEY)
        details = {"__class__": "AssetDetails", "last_wipe_timestamp": at.timestamp()}
        with self.storage.index_connection() as connection:
            connection.execute(
                AssetKeyTable.update()
                .where(AssetKeyTable.c.asset_key == KEY.to_string())
                .values(
                    asset_details=str(details).replace("'", '"'),
                    wipe_timestamp=at.replace(tzinfo=None),
                )
            )

    def compact(self, *, keep: int = 1, dry_run: bool = False) -> CompactedTable:
        (found,) = compact_events(
            self.schema,
            "lab.Item",
            before=self.time(LIMIT),
            keep=keep,
            dry_run=dry_run,
            instance=self.instance,
        )
        return found

    def log(self, run_id: str, *, lines: int = 2) -> None:
        for n in range(lines):
            text = f"line {n}"
            self.storage.store_event(EventLogEntry(None, 20, text, run_id, BEGIN.timestamp()))

    def lines(self, run_id: str) -> int:
        return len(self.instance.get_records_for_run(run_id).records)

    def events(self, key: dg.AssetKey = KEY) -> dict[int, datetime]:
        """The times of the table's events, by their numbers."""
        columns = SqlEventLogStorageTable.c
        query = sa.select(columns.id, columns.timestamp).where(columns.asset_key == key.to_string())
        with self.storage.index_connection() as connection:
            return {number: at.replace(tzinfo=UTC) for number, at in connection.execute(query)}

    def shown(self) -> dict[str, Any]:
        """All that Dagster's pages, and this package, read of the table's partitions."""
        instance, storage = self.instance, self.storage
        made = dg.DagsterEventType.ASSET_MATERIALIZATION
        attempts = (
            storage.get_latest_asset_partition_materialization_attempts_without_materializations
        )
        storage.wipe_asset_cached_status(KEY)
        last = storage.get_latest_storage_id_by_partition(KEY, made)
        complete = dg.AssetRecordsFilter(KEY, storage_ids=sorted(last.values()) or [-1])
        of_page = {
            partition: [
                each(dg.AssetRecordsFilter(KEY, asset_partitions=[partition]), limit=1).records
                for each in (instance.fetch_materializations, instance.fetch_observations)
            ]
            for partition in PARTITIONS
        }
        return {
            "states": instance.get_status_by_partition(KEY, PARTITIONS, DEFINITION),
            "ours": shown(instance, KEY, PARTITIONS, notes=True),
            "marks": instance.fetch_materializations(complete, limit=50).records,
            "materialised": instance.get_materialized_partitions(KEY),
            "versions": storage.get_latest_tags_by_partition(KEY, made, [DATA_VERSION_TAG]),
            "either versions": storage._get_partition_data_versions(KEY, PARTITIONS),
            "pages": of_page,
            "attempts": attempts(KEY),
            "table": [
                (record.asset_entry.last_materialization_record, record.asset_entry.last_run_id)
                for record in instance.get_asset_records([KEY])
            ],
            "plans": [
                storage.get_latest_planned_materialization_info(KEY, partition)
                for partition in (None, *PARTITIONS)
            ],
        }


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def history(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("history")
    overrides: dict[str, Any] = dict(SETTINGS)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        overrides["storage"] = {"postgres": {"postgres_url": url}}
    connection = dj.Connection("sqlite:///:memory:", safemode=False)
    schema = dj.Schema("lab", connection=connection)

    @schema
    class Item(dj.Manual):
        definition = "item : int32"

    @schema
    class Other(dj.Manual):
        definition = "other : int32"

    with dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as instance:
        # PostgreSQL's storage otherwise connects anew for each statement.
        instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=5)
        yield History(instance, schema)
    connection.close()


@settings(
    max_examples=10,
    deadline=None,
    # To shorten a history takes minutes, and short ones say little.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(st.lists(steps, min_size=LIMIT - 4, max_size=LIMIT + 10), st.integers(1, 2))
def test_compaction_changes_nothing_that_is_shown(
    history: History, happened: list[Step], keep: int
) -> None:
    history.write(*happened)
    before, events = history.shown(), history.events()
    said = history.compact(keep=keep, dry_run=True)
    assert history.events() == events
    assert history.compact(keep=keep) == said
    assert history.shown() == before
    assert len(history.events()) == len(events) - said.total
    # Nothing is left over, and of what is young nothing is gone.
    assert history.compact(keep=keep).total == 0
    left = history.events()
    assert {number for number, at in events.items() if at >= history.time(LIMIT)} <= left.keys()
    # SQLite has each event of a run twice, and both copies go together. A wipe leaves one of them.
    wiped = max((n for n, step in enumerate(happened) if step.what == "wiped"), default=-1)
    of_runs = [
        at
        for run in history.run_ids
        for record in history.instance.get_records_for_run(run).records
        if (at := datetime.fromtimestamp(record.timestamp, UTC)) > history.time(wiped)
    ]
    outside = {history.time(place) for place, step in enumerate(happened) if step.run is None}
    assert sorted(of_runs) == sorted(
        at for at in left.values() if at not in outside and at > history.time(wiped)
    )


def made(run: int | None = 0, partition: str | None = PARTITIONS[0]) -> Step:
    return Step("made", partition, run, tagged=True)


def planned(run: int, partition: str = PARTITIONS[0]) -> Step:
    return Step("planned", partition, run, tagged=False)


def test_of_each_kind_as_many_events_stay_as_were_asked_for(history: History) -> None:
    history.write(*[made(), planned(1), Step("noted", PARTITIONS[0], 1, tagged=False)] * 3)
    assert history.compact(keep=4).total == 0
    assert history.compact(keep=2) == CompactedTable("lab.Item", 1, 1, 1)
    assert history.compact() == CompactedTable("lab.Item", 1, 1, 1)
    assert len(history.events()) == 3


def test_runs_lose_their_lines_when_nothing_of_theirs_is_left(history: History) -> None:
    success, failed, other_failed, canceled, started, _ = history.run_ids
    history.write(
        made(0),
        planned(1),
        made(0),
        planned(2, PARTITIONS[1]),
        made(4),
        planned(3),
        made(3),
    )
    for run in (success, failed, other_failed, canceled, started):
        history.log(run)
    for run in history.runs:
        # Dagster notes the end of a run when it stores the event of it.
        end_run(history.instance, run.run_id, history.time(5))
    expected = CompactedTable("lab.Item", 2, 1, 0, 4)
    assert history.compact(dry_run=True) == expected
    assert history.compact() == expected
    lines = {run: history.lines(run) for run in history.run_ids}
    # The failed key's run keeps its plan and its lines, and an unfinished run has lost nothing.
    assert lines[success] == lines[failed] == 0
    assert (lines[other_failed], lines[canceled], lines[started]) == (3, 4, 3)


def end_run(instance: dg.DagsterInstance, run_id: str, at: datetime) -> None:
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(
            RunsTable.update().where(RunsTable.c.run_id == run_id).values(end_time=at.timestamp())
        )


def test_a_young_run_keeps_its_lines(history: History) -> None:
    history.write(made(0), made(3))
    history.log(history.run_ids[0])
    end_run(history.instance, history.run_ids[0], history.time(LIMIT))
    assert history.compact() == CompactedTable("lab.Item", 1)
    assert history.lines(history.run_ids[0]) == 2


def test_only_the_named_tables_are_compacted_and_nothing_never_means_all(
    history: History,
) -> None:
    history.write(made(), made())
    marks = [Mark(OTHER, None, {"rows": n}) for n in range(3)]
    store_batch(history.instance, Batch(marks, [1.0, 2.0, 3.0], Origin()))
    age = timedelta(days=1)
    for tables, keep in (([], 1), (["Unknown"], 1), ("all", 0), ("all", -1)):
        with pytest.raises(ConfigurationError):
            compact_events(history.schema, tables, before=age, keep=keep, instance=history.instance)
    assert (len(history.events()), len(history.events(OTHER))) == (2, 3)
    compact_events(history.schema, ["Other"], before=age, instance=history.instance)
    assert (len(history.events()), len(history.events(OTHER))) == (2, 1)
    found = compact_events(history.schema, "all", before=age, instance=history.instance)
    assert [dataclasses.astuple(each)[:2] for each in found] == [("lab.Item", 1), ("lab.Other", 0)]


def test_events_beside_the_work_stay(history: History) -> None:
    """A state that is written while events are deleted is not counted as one of them."""
    history.write(made(), made(), made())
    limit = history.time(LIMIT).replace(tzinfo=None)
    old = superseded(history.storage, KEY, before=limit, keep=1, busy=())
    assert len(old) == 2
    # The youngest goes, as when its run is deleted: the one before it is the state now.
    columns = SqlEventLogStorageTable.c
    with history.storage.index_connection() as connection:
        youngest = sa.select(sa.func.max(columns.id)).scalar_subquery()
        connection.execute(SqlEventLogStorageTable.delete().where(columns.id == youngest))
    assert [len(gone) for gone in delete(history.storage, KEY, old)] == [1]
    assert len(history.events()) == 1


TABLES = """
import dj_dagster as dj
schema = dj.Schema("lab")

@schema
class Item(dj.Manual):
    definition = "item : int32"
"""


def test_the_command_is_told_what_may_go(
    inside: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJ_DATABASE_URL", f"sqlite:///{tmp_path / 'lab.sqlite'}")
    (tmp_path / "item_tables.py").write_text(TABLES)
    shutil.copy(Path(__file__).parents[2] / "dagster.yaml", tmp_path)
    with dagster_instance() as instance:
        marks = [Mark(KEY, PARTITIONS[0], {"n": n}) for n in range(3)]
        days = [timedelta(days=n) for n in (100, 50, 1)]
        times = [(datetime.now(UTC) - age).timestamp() for age in days]
        store_batch(instance, Batch(marks, times, Origin()))

    def run(*arguments: str) -> tuple[int, str]:
        done = inside("compact-events", *arguments, "-m", "item_tables")
        return done.exit_code, done.output

    for wrong, said in (
        (["all"], "Say which events may go"),
        (["--before", "90d"], "Missing argument"),
        (["all", "--before", "soon"], "'soon' is not a time"),
        (["all", "--before", "99999999999d"], "is not a time"),
        (["all", "--before", "9999999d"], "outside of the years 1 to 9999"),
        (["all", "--before", "0001-01-01"], "outside of the years 1 to 9999"),
        (["all", "--keep", "0"], "0 is not in the range"),
        (["Unknown", "--keep", "1"], "Unknown"),
    ):
        code, output = run(*wrong)
        assert code == 2, output
        assert said in output
    code, output = run("all", "--keep", "1", "--dry-run")
    assert (code, output.splitlines()[-1]) == (0, "2 events would be deleted.")
    code, output = run("Item", "--before", "90d", "--json")
    assert (code, json.loads(output)[0]["marks"]) == (0, 1)
    code, output = run("all", "--keep", str(2**80), "--before", "2000-01-31")
    assert output.splitlines()[-1] == "0 events were deleted."
    code, output = run("all", "--keep", "1")
    assert output.splitlines()[-1] == "1 event was deleted."
    dj.conn().close()


def test_events_of_unfinished_backfills_stay(history: History) -> None:
    instance, run_id = history.instance, "00000000-0000-4000-8000-0000000000bf"
    tags = {"dagster/backfill": "one"}
    instance.add_run(
        dg.DagsterRun("job", run_id=run_id, status=dg.DagsterRunStatus.SUCCESS, tags=tags)
    )
    backfill = PartitionBackfill(
        "one", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=1.0
    )
    instance.add_backfill(backfill)
    history.write()
    marks, times = [made().mark(n) for n in range(3)], [1.0, 2.0, 3.0]
    store_batch(instance, Batch(marks, times, Origin(run_id, "job", "step")))
    assert history.compact().total == 0
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert history.compact() == CompactedTable("lab.Item", 2)
