"""The real side of the truth machine: a database, a store, a code location, Dagster instances."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import pymysql
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.dagster_run import DagsterRun

import dj_dagster as dj
from dj_dagster.orchestration import build_definitions
from tests.orchestration.conftest import SETTINGS
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    requested,
    statuses,
    submit,
    tick,
)
from tests.orchestration.truth_pipeline import COMPUTED, KEYS, RIG, Key, load_pipeline
from tests.services.database_server import drop_databases
from tests.services.process import PATIENCE

ORDER = ("Session", "Param", "Made", "Grade", "Below", "Chosen", "Fine")
"""The tables, parents first."""

STATES = {"MATERIALIZED": "materialised", "FAILED": "failed", "MISSING": "missing"}


@dataclass(frozen=True)
class Bench:
    """Where worlds are made.

    Attributes
    ----------
    url
        The database server, or None for a SQLite file for each world.
    dagster_home
        A folder with the empty databases of an instance.
    folder
        Of the worlds.
    """

    url: str | None
    dagster_home: Path
    folder: Path


class World:
    """One pipeline that is used, on one database and one Dagster instance after the other."""

    def __init__(self, bench: Bench, codes: Mapping[str, int]) -> None:
        self._bench = bench
        self.folder = bench.folder / uuid.uuid4().hex[:8]
        (self.folder / "store").mkdir(parents=True)
        self.schema_name = f"t{uuid.uuid4().hex[:8]}_truth"
        self.url = bench.url or f"sqlite:///{self.folder / 'lab.sqlite'}"
        self.enforced = bench.url is not None
        self._modules: list[ModuleType] = []
        self._connection: dj.Connection | None = None
        self._instances = 0
        RIG.reset()
        self.load(codes)
        self.begin_instance()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self.instance.dispose()
        for module in self._modules:
            del sys.modules[module.__name__]
        if self.enforced:
            drop_databases(self.url, self.schema_name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, codes: Mapping[str, int]) -> None:
        """Load the code location anew, as a restarted code server does."""
        if self._connection is not None:
            self._connection.close()
        local = {"protocol": "file", "location": str(self.folder / "store")}
        stores = dj.Stores({"default": "local", "local": local})
        connection = dj.Connection(self.url, stores=stores, safemode=False)
        self._connection = connection
        self.module = load_pipeline(self.folder, dict(codes))
        self._modules.append(self.module)
        self.schema = dj.Schema(self.schema_name, connection=connection, context=vars(self.module))
        for name in ORDER:
            self.schema(getattr(self.module, name))
        self.defs = build_definitions(self.schema)

    def begin_instance(self) -> None:
        """Begin with an instance that knows nothing: the old one is lost."""
        if self._instances:
            self.instance.dispose()
        self._instances += 1
        home = self.folder / f"dagster_home{self._instances}"
        shutil.copytree(self._bench.dagster_home, home)
        self.instance = dg.DagsterInstance.local_temp(str(home), overrides=SETTINGS)

    # --- our client

    def table(self, name: str) -> Any:
        return getattr(self.module, name)

    def insert(self, table: str, key: Key, values: Sequence[Any]) -> None:
        self.table(table).insert1((*key, *values))

    def update(self, table: str, key: Key, values: Sequence[Any]) -> None:
        names = self.table(table)().heading.names
        self.table(table)().update1(dict(zip(names, (*key, *values), strict=True)))

    def delete(self, table: str, keys: Iterable[Key]) -> None:
        (self.table(table) & [named(table, key) for key in keys]).delete(prompt=False)

    def populate(self, table: str, *, reserve: bool) -> None:
        self.table(table).populate(reserve_jobs=reserve, suppress_errors=True)

    def retry(self, table: str) -> None:
        self.table(table).jobs.errors.delete()

    # --- outside clients

    def outside(self, statement: str, *values: object) -> None:
        """Execute SQL as a client that knows nothing of us, with foreign keys off in SQLite."""
        with closing(self._client()) as client:
            marked = statement.replace("?", "%s") if self.enforced else statement
            client.cursor().execute(marked, values)
            client.commit()

    def _client(self) -> Any:
        if not self.enforced:
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=PATIENCE)
        parts = urlparse(self.url)
        return pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            charset="utf8mb4",
        )

    def outside_insert(
        self, table: str, key: Key, values: Sequence[Any], verb: str = "INSERT"
    ) -> None:
        marks = ", ".join("?" for _ in (*key, *values))
        self.outside(f"{verb} INTO {self._sql_name(table)} VALUES ({marks})", *key, *values)

    def outside_restore(self, table: str, rows: Iterable[tuple[Key, Sequence[Any]]]) -> None:
        """Restore a table as a dump does, which has foreign keys off on a server too."""
        name = self._sql_name(table)
        texts = [", ".join(map(str, (*key, *values))) for key, values in rows]
        inserts = [f"INSERT INTO {name} VALUES ({text})" for text in texts]
        with closing(self._client()) as client:
            cursor = client.cursor()
            if self.enforced:
                cursor.execute("SET foreign_key_checks = 0")
            for statement in (f"DELETE FROM {name}", *inserts):
                cursor.execute(statement)
            client.commit()

    def outside_update(self, table: str, key: Key, values: Sequence[Any]) -> None:
        names = self.table(table)().heading.secondary_attributes
        sets = ", ".join(f"{name} = ?" for name in names)
        where = " AND ".join(f"{name} = ?" for name in KEYS[table])
        self.outside(f"UPDATE {self._sql_name(table)} SET {sets} WHERE {where}", *values, *key)

    def outside_rename(self, table: str, old: Key, new: Key) -> None:
        sets = ", ".join(f"{name} = ?" for name in KEYS[table])
        where = " AND ".join(f"{name} = ?" for name in KEYS[table])
        self.outside(f"UPDATE {self._sql_name(table)} SET {sets} WHERE {where}", *new, *old)

    def outside_delete(self, table: str, key: Key) -> None:
        where = " AND ".join(f"{name} = ?" for name in KEYS[table])
        for name in ("Made.Piece", "Made") if table == "Made" else (table,):
            self.outside(f"DELETE FROM {self._sql_name(name)} WHERE {where}", *key)

    def outside_truncate(self, table: str) -> None:
        verb = "TRUNCATE TABLE" if self.enforced else "DELETE FROM"
        self.outside(f"{verb} {self._sql_name(table)}")

    def _sql_name(self, table: str) -> str:
        found: Any = self.module
        for name in table.split("."):
            found = getattr(found, name)
        return found.full_table_name

    # --- runs and the daemon

    def create(
        self,
        tables: Sequence[str],
        start: str,
        end: str,
        *,
        recompute: bool = False,
    ) -> DagsterRun:
        """Create a run as the UI does, of one partition or of a range."""
        tags = {"dagster/partition": start}
        if end != start:
            tags = {
                "dagster/asset_partition_range_start": start,
                "dagster/asset_partition_range_end": end,
            }
        config = {"on_existing": "recompute"} if recompute else {}
        ops = {f"{self.schema_name}__{table.lower()}": {"config": config} for table in tables}
        assets = [self.asset(table) for table in tables]
        assets += [self.asset("Made/Piece")] if "Made" in tables else []
        return create_run(self.defs, self.instance, assets, run_config={"ops": ops}, tags=tags)

    def execute(self, run: DagsterRun) -> bool:
        return execute(self.defs, self.instance, run)

    def tick(self) -> list[DagsterRun]:
        """Let the daemon look once, and execute what it asks for."""
        runs = [submit(self.defs, self.instance, each) for each in self.ask()]
        for run in runs:
            self.execute(run)
        return runs

    def ask(self) -> list[dg.RunRequest]:
        return requested(tick(self.defs, self.instance))

    def executed(self, run: DagsterRun, table: str) -> bool:
        """Whether the step of a table has begun in a run."""
        step = f"{self.schema_name}__{table.lower()}"
        stats = self.instance.get_run_step_stats(run.run_id, [step])
        return any(each.start_time is not None for each in stats)

    # --- what is there

    def rows(self, table: str) -> dict[Key, tuple[Any, ...]]:
        """The rows of a table; what they refer to in the store is read and verified."""
        found: Any = self.module
        for name in table.split("."):
            found = getattr(found, name)
        width = len(KEYS[table.split(".")[0]]) + ("." in table)
        rows = (tuple(row.values()) for row in found().to_dicts())
        return {row[:width]: row[width:] for row in rows}

    def failed(self, table: str) -> set[Key]:
        """The keys of which the job queue has an error."""
        errors = self.table(table).jobs.errors.to_dicts()
        return {tuple(row[name] for name in KEYS[table]) for row in errors}

    def partitions(self, grain: str) -> list[str]:
        return list(self.instance.get_dynamic_partitions(f"{self.schema_name}.{grain}"))

    def states(self, asset: str) -> dict[str, str]:
        name = self.asset(asset).to_user_string()
        found = statuses(self.defs, self.instance, name)
        return {each: STATES.get(state, state) for state, all_ in found.items() for each in all_}

    def stale(self, table: str, partitions: Collection[str]) -> dict[str, bool]:
        graph = self.defs.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(
            self.instance, graph, LoadingContextForTest(self.instance)
        )
        key = self.asset(table)
        return {each: resolver.get_status(key, each) is StaleStatus.STALE for each in partitions}

    def asset(self, name: str) -> dg.AssetKey:
        return key_of(f"{self.schema_name}/{name.lower()}")


def named(table: str, key: Key) -> dict[str, int]:
    """Return a key with its names."""
    return dict(zip(KEYS[table], key, strict=True))


def spelled(table: str, key: Key) -> str:
    """Return the partition of a key."""
    return "/".join(f"{name}={value}" for name, value in named(table, key).items())


def read(partition: str) -> Key:
    """Return the key of a partition."""
    return tuple(int(part.split("=")[1]) for part in partition.split("/"))


GRAINS = {
    table: "Fine" if table == "Fine" else "Session" for table in (*COMPUTED, "Session", "Grade")
}
GRAINS["Param"] = "Param"
"""The grain of each table."""
