"""What a mark of a key costs in Dagster's event log: CPU time and bytes, in both storages.

Run it from the repository: ``uv run python -m benchmarks.marks``. Dagster's own ways write the same
materialisations in the same run: one by one by `log_event`, and as the result of one ranged run,
with and without its batches of 1,000 events.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.utils import make_new_run_id

from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark, Origin
from tests.services.postgres import postgres

AT_ONCE = 1000
"""Marks that a populate step writes together."""

QUIET = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}

KEY, PARENT = dg.AssetKey(["lab", "measured"]), dg.AssetKey(["lab", "item"])


@dataclass(frozen=True)
class Cost:
    """What some marks have cost.

    Attributes
    ----------
    client, server
        CPU seconds of this process and of PostgreSQL's processes.
    size
        Bytes on the disk, indexes included.
    """

    marks: int
    client: float
    server: float
    seconds: float
    size: int


class Storage:
    """An instance on an empty storage, with its clocks and its size."""

    def __init__(self, folder: Path, url: str | None) -> None:
        overrides: dict[str, Any] = dict(QUIET)
        if url is not None:
            overrides["storage"] = {"postgres": {"postgres_url": url}}
        self.folder, self.url, self.overrides = folder, url, overrides

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the instance."""
        with dg.DagsterInstance.local_temp(str(self.folder), overrides=self.overrides) as made:
            yield made

    def cost(self, instance: dg.DagsterInstance, marks: int, write: Callable[[], None]) -> Cost:
        """Return what an action costs that writes some marks."""
        before = self._size(instance)
        client, server, began = time.process_time(), self._server(), time.perf_counter()
        write()
        seconds = time.perf_counter() - began
        client, server = time.process_time() - client, self._server() - server
        return Cost(marks, client, server, seconds, self._size(instance) - before)

    def _server(self) -> float:
        """CPU seconds of the server, with those of its processes that have ended."""
        if self.url is None:
            return 0.0
        # A process that has just ended may not have been counted yet.
        time.sleep(0.2)
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            place = connection.exec_driver_sql("SHOW data_directory").scalar_one()
        engine.dispose()
        first = int((Path(place) / "postmaster.pid").read_text().split()[0])
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if first in (int(stat.parent.name), int(fields[1])):
                ended = fields[13:15] if int(stat.parent.name) == first else []
                ticks += sum(map(int, [*fields[11:13], *ended]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _size(self, instance: dg.DagsterInstance) -> int:
        if self.url is None:
            for file in self.folder.rglob("*.db"):
                engine = sa.create_engine(f"sqlite:///{file}")
                with engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                engine.dispose()
            return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        storage = instance.event_log_storage
        assert isinstance(storage, SqlEventLogStorage)
        size = "pg_total_relation_size('event_logs') + pg_total_relation_size('asset_event_tags')"
        with storage.index_connection() as connection:
            return connection.exec_driver_sql(f"SELECT {size}").scalar_one()


def metadata(number: int) -> dict[str, Any]:
    """Return what a populate step says of a key whose table has one number."""
    return {
        "rows": 1,
        "seconds_make": round(0.000123 + number / 1e6, 6),
        "values": dg.MetadataValue.text("pid = 1"),
    }


def tags(run_id: str) -> dict[str, str]:
    """Return what Dagster compares to find stale partitions."""
    return {
        CODE_VERSION_TAG: "a1b2c3d4e5f60718",
        DATA_VERSION_TAG: run_id,
        get_input_data_version_tag(PARENT): "INITIAL",
        get_input_event_pointer_tag(PARENT): "NULL",
    }


def ours(instance: dg.DagsterInstance, partitions: Sequence[str]) -> None:
    """Write marks as a populate step does."""
    run_id = make_new_run_id()
    origin, alike = Origin(run_id, "populate", "lab__measured"), tags(run_id)
    for start in range(0, len(partitions), AT_ONCE):
        some = enumerate(partitions[start : start + AT_ONCE], start)
        write_marks(instance, [Mark(KEY, p, metadata(n), tags=alike) for n, p in some], origin)


def theirs(
    instance: dg.DagsterInstance, partitions: Sequence[str], *, one_by_one: bool = False
) -> None:
    """Run an asset that writes the same materialisations by Dagster alone."""
    spec = dg.AssetSpec(
        KEY, partitions_def=dg.DynamicPartitionsDefinition(name="lab.Item"), skippable=one_by_one
    )

    @dg.multi_asset(name="lab__measured", specs=[spec], can_subset=False)
    def measured(context):  # noqa: ANN001
        alike = tags(context.run_id)
        if one_by_one:
            for n, p in enumerate(partitions):
                context.log_event(dg.AssetMaterialization(KEY, None, metadata(n), p, alike))
        else:
            yield dg.MaterializeResult(KEY, metadata=metadata(1))

    ends = {
        "dagster/asset_partition_range_start": partitions[0],
        "dagster/asset_partition_range_end": partitions[-1],
    }
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    of_run = {} if one_by_one else ends
    dg.materialize([measured], instance=instance, run_config=quiet, tags=of_run)


def main() -> None:
    """Measure both storages and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marks", type=int, default=10_000)
    parser.add_argument("--singles", type=int, default=1_000, help="of Dagster's single writes")
    parser.add_argument("--ours", action="store_true", help="leave Dagster's own ways out")
    chosen = parser.parse_args()
    print(
        f"{'':<40}{'client ms':>11}{'server ms':>11}{'bytes':>8}{'per s':>8}"
        f"{'CPU vs ours':>13}{'bytes':>7}"
    )
    with postgres() as url:
        for name, place in (("SQLite", None), ("PostgreSQL", url)):
            with tempfile.TemporaryDirectory() as folder:
                _measure(name, Storage(Path(folder), place), chosen)


def _measure(name: str, storage: Storage, chosen: argparse.Namespace) -> None:
    with storage.instance() as instance:
        names = [f"item={number}" for number in range(chosen.marks)]
        few = names[: chosen.singles]
        instance.add_dynamic_partitions("lab.Item", names)
        # The first marks load what all others find loaded.
        ours(instance, ["first"])
        own = storage.cost(instance, len(names), lambda: ours(instance, names))
        _line(f"dj_dagster, {name}", own, own)
        if chosen.ours:
            return
        by_one = storage.cost(instance, len(few), lambda: theirs(instance, few, one_by_one=True))
        _line(f"log_event one by one, {name}", by_one, own)
        ranged = storage.cost(instance, len(few), lambda: theirs(instance, few))
        _line(f"MaterializeResult of a range, {name}", ranged, own)
        if storage.url is not None:
            os.environ["DAGSTER_EVENT_BATCH_SIZE"] = str(AT_ONCE)
            try:
                batched = storage.cost(instance, len(names), lambda: theirs(instance, names))
            finally:
                del os.environ["DAGSTER_EVENT_BATCH_SIZE"]
            _line(f"the same in batches, {name}", batched, own)


def _line(name: str, cost: Cost, own: Cost) -> None:
    client, server = cost.client / cost.marks, cost.server / cost.marks
    per_mark, ours = client + server, (own.client + own.server) / own.marks
    print(
        f"{name:<40}{client * 1e3:>11.3f}{server * 1e3:>11.3f}{cost.size / cost.marks:>8.0f}"
        f"{cost.marks / cost.seconds:>8.0f}{per_mark / ours:>12.1f}x"
        f"{cost.size / cost.marks / (own.size / own.marks):>6.1f}x",
        flush=True,
    )


if __name__ == "__main__":
    main()
