"""What orchestration costs: the whole path of a key, a tick of the sensor, a code location.

Run it from the repository: ``uv run python -m benchmarks.orchestration path ticks location grain``.
All peers are measured in the same run, on the same machine: DataJoint's reserved `populate` over
the same tables on the same MariaDB server, one Dagster run per key, assets written by hand.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

import dj_dagster as dj
from dj_dagster.orchestration import SensorSettings, build_definitions
from dj_dagster.orchestration.headless import tick
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark
from tests.orchestration.fault_lab import FaultLab, fault_lab
from tests.services.database_server import database_server
from tests.services.mariadb import MariaDBServer, mariadb
from tests.services.postgres import postgres
from tests.services.process import eventually

DATAJOINT = """
import sys, time
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
import datajoint as dj
dj.config["database.host"], dj.config["database.port"] = url.hostname, url.port
dj.config["database.user"], dj.config["database.password"] = "root", ""
dj.config["safemode"] = False
schema = dj.Schema("peer")
@schema
class Item(dj.Manual):
    definition = "item : int32"
@schema
class Measured(dj.Computed):
    definition = '''
    -> Item
    ---
    pid : int32
    '''
    def make(self, key):
        self.insert1({**key, "pid": 1})
@schema
class Analysed(dj.Computed):
    definition = '''
    -> Measured
    ---
    pid : int32
    '''
    def make(self, key):
        self.insert1({**key, "pid": 1})
count = int(sys.argv[2])
Item.insert({"item": n} for n in range(count))
began = time.time()
for table in (Measured, Analysed):
    table.populate(reserve_jobs=True)
print(time.time() - began)
"""


def path(keys: int, singles: int) -> None:
    """Print the seconds from INSERT to all materialised, and those of the peers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        database_server(MariaDBServer, durable=True) as database,
        fault_lab(_new(folder, "one"), database, batch=1, seconds=0) as lab,
    ):
        per_key = _whole_path(lab, singles) / singles
        peer = _datajoint(lab.database.url, keys) / keys
    print(f"{'':<34}{'s per key':>12}{'vs DataJoint':>14}{'vs a run per key':>18}")
    _line("one run per key", per_key, peer, per_key)
    _line("DataJoint, populate(reserve_jobs)", peer, peer, per_key)
    with postgres() as url:
        for name, storage in (("SQLite", None), ("PostgreSQL", url)):
            with (
                tempfile.TemporaryDirectory() as folder,
                database_server(MariaDBServer, durable=True) as database,
                fault_lab(
                    _new(folder, "all"), database, batch=1000, seconds=0, storage=storage
                ) as lab,
            ):
                _line(f"dj_dagster, {name} events", _whole_path(lab, keys) / keys, peer, per_key)


def _whole_path(lab: FaultLab, keys: int) -> float:
    # The daemon is up when the sensor has shown the empty tables once.
    with lab.instance() as instance:
        eventually(lambda: any(map(has_ticked, instance.all_instigator_state())), timeout=120)
        began = time.monotonic()
        lab.insert(keys)
        storage = instance.event_log_storage
        eventually(lambda: _marks(storage) >= 3 * keys, timeout=3600, every=0.5)
        return time.monotonic() - began


def has_ticked(state: Any) -> bool:
    """Whether a sensor has been evaluated."""
    data = state.instigator_data
    return bool(data and getattr(data, "last_tick_timestamp", None))


def _marks(storage: Any) -> int:
    table = SqlEventLogStorageTable.c
    select = sa.select(sa.func.count()).where(
        table.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        table.partition.is_not(None),
    )
    with storage.index_connection() as connection:
        return connection.execute(select).scalar_one()


def _datajoint(url: str, keys: int) -> float:
    command = [sys.executable, "-W", "ignore", "-c", DATAJOINT, url, str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _line(name: str, seconds: float, peer: float, single: float) -> None:
    print(
        f"{name:<34}{seconds:>12.5f}{seconds / peer:>13.2f}x{single / seconds:>17.1f}x", flush=True
    )


def ticks(sizes: list[int]) -> None:
    """Print the milliseconds of a tick of the sensor, by number of keys."""
    print(
        f"{'tables in':<12}{'keys':>10}{'first look':>12}{'longest tick':>14}"
        f"{'nothing new':>13}{'100 new':>10}{'after':>10}"
    )
    with mariadb() as url, tempfile.TemporaryDirectory() as folder:
        for name, place in (("SQLite", f"sqlite:///{folder}/lab.sqlite"), ("MariaDB", url)):
            for keys in sizes:
                _ticks(name, place, keys, Path(folder) / f"{name}{keys}")


def _ticks(name: str, url: str, keys: int, home: Path) -> None:
    home.mkdir()
    connection = dj.Connection(url, safemode=False)
    schema = dj.Schema(f"ticks{keys}", connection=connection)

    @schema
    class Item(dj.Manual):
        definition = """
        item : int32
        """

    @schema
    class Result(dj.Computed):
        definition = """
        -> Item
        ---
        size : int32
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "size": 1})

    for start in range(0, keys, 100_000):
        Item.insert((number,) for number in range(start, min(start + 100_000, keys)))
    _fill(connection, Result)
    settings = SensorSettings(sweep=1e9)
    defs = build_definitions(schema, sensor_settings=settings)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        _register(instance, schema.name, [f"item={number}" for number in range(keys)])
        longest, whole = _first_look(lambda: tick(defs, instance=instance))
        time.sleep(3)
        for _ in range(20):
            tick(defs, instance=instance)
            time.sleep(0.3)
        quiet = min(_timed(lambda: tick(defs, instance=instance)) for _ in range(5))
        Item.insert((keys + number,) for number in range(100))
        asked: list[Any] = []
        new = _timed(lambda: asked.extend(tick(defs, instance=instance)))
        assert len(asked) == 1, asked
        after = _timed(lambda: tick(defs, instance=instance))
    connection.close()
    print(
        f"{name:<12}{keys:>10}"
        f"{whole * 1e3:>12.0f}{longest * 1e3:>14.0f}{quiet * 1e3:>13.1f}"
        f"{new * 1e3:>10.0f}{after * 1e3:>10.0f}",
        flush=True,
    )


def _first_look(evaluate: Callable[[], Any]) -> tuple[float, float]:
    """Tick until a code server knows all keys; return the longest tick's seconds, and all."""
    times = [_timed(evaluate)]
    while times[-1] > 0.1 or len(times) < 2:
        times.append(_timed(evaluate))
    return max(times), sum(times)


def _fill(connection: dj.Connection, result: Any) -> None:
    quoted = result().full_table_name
    parent = quoted.replace("__result", "item")
    connection.query(f"INSERT INTO {quoted} (item, size) SELECT item, 1 FROM {parent}")


def _register(instance: dg.DagsterInstance, schema: str, partitions: list[str]) -> None:
    """Register partitions and their marks, the latter copied in SQL from a real one each."""
    for start in range(0, len(partitions), 10_000):
        instance.add_dynamic_partitions(f"{schema}.Item", partitions[start : start + 10_000])
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    names = [dg.AssetKey([schema, name]) for name in ("item", "result")]
    write_marks(instance, [Mark(name, partitions[0]) for name in names])
    table = SqlEventLogStorageTable.name
    with storage.index_connection() as connection:
        columns = [c.name for c in SqlEventLogStorageTable.c if c.name not in ("id", "partition")]
        listed = ", ".join(columns)
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({listed}, partition) SELECT {listed}, d.partition "
            f"FROM {table} e JOIN dynamic_partitions d ON d.partition <> e.partition "
            "WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION'"
        )


LOCATION = """
import json, resource, sys, time
began = time.perf_counter()
import dagster as dg
{imports}
loaded = time.perf_counter()
{body}
repository = defs.get_repository_def()
assert len(list(repository.asset_graph.get_all_asset_keys())) == {tables}
seconds = time.perf_counter() - loaded
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""

IMPORTS = """
import dj_dagster as dj
from dj_dagster.orchestration import build_definitions
"""

OURS = """
connection = dj.Connection("sqlite:///{folder}/lab.sqlite", safemode=False)
schemas = []
for s in range(6):
    context = {{}}
    schema = dj.Schema(f"lab{{s}}", context, connection=connection)
    schemas.append(schema)
    for n in range(50):
        def make(self, key):
            self.insert1({{**key, "size": 1}})
        parent = f"-> T{{n - 1}}" if n else "item : int32"
        base = dj.Computed if n else dj.Manual
        body = {{"definition": parent + "\\n---\\nsize : int32"}}
        if n:
            body["make"] = make
        context[f"T{{n}}"] = type(f"T{{n}}", (base,), body)
        schema(context[f"T{{n}}"])
defs = build_definitions(schemas)
"""

BY_HAND = """
assets = []
for s in range(6):
    partitions = dg.DynamicPartitionsDefinition(name=f"lab{{s}}.T0")
    assets.append(dg.AssetSpec(["lab%d" % s, "t0"], partitions_def=partitions))
    for n in range(1, 50):
        key, parent = (dg.AssetKey([f"lab{{s}}", f"t{{m}}"]) for m in (n, n - 1))
        spec = dg.AssetSpec(key, deps=[parent], partitions_def=partitions, skippable=True,
                            description="a table", kinds={{"computed", "sqlite"}})
        @dg.multi_asset(name=f"lab{{s}}__t{{n}}", specs=[spec],
                        config_schema={{"keys": dg.Field([str], is_required=False)}})
        def made(context):
            yield dg.MaterializeResult()
        assets.append(made)
defs = dg.Definitions(assets=assets, executor=dg.in_process_executor)
"""


def location() -> None:
    """Print the seconds that 300 tables take to load as a code location, and assets by hand."""
    with tempfile.TemporaryDirectory() as folder:
        ours = _script(IMPORTS, OURS.format(folder=folder))
        _run(ours)  # declares the tables
        times = {"dj_dagster": _run(ours), "by hand": _run(_script("", BY_HAND.format()))}
    by_hand = times["by hand"][0]
    print(f"{'300 tables':<14}{'s':>8}{'ratio':>8}{'MB':>8}")
    for name, (seconds, kilobytes) in times.items():
        print(f"{name:<14}{seconds:>8.2f}{seconds / by_hand:>8.2f}{kilobytes / 1024:>8.0f}")


def _script(imports: str, body: str) -> str:
    return LOCATION.format(imports=imports, body=body, tables=300)


def _run(script: str) -> list[float]:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        # A file, as a code location is, for Dagster links to the code.
        file.write(script)
        file.flush()
        command = [sys.executable, "-W", "ignore", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def grain(keys: int) -> None:
    """Print what a grain of many partitions costs Dagster: times of its queries, memory."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        partitions = [f"item={number}" for number in range(keys)]
        _register(instance, "lab", partitions)
        definition = dg.DynamicPartitionsDefinition(name="lab.Item")
        key = dg.AssetKey(["lab", "result"])

        def status() -> None:
            instance.get_status_by_partition(key, partitions, definition)

        print(f"{keys} partitions in one grain")
        listed = _timed(lambda: instance.get_dynamic_partitions("lab.Item"))
        print(f"{'list them':<34}{listed:>8.2f} s")
        print(f"{'status, first':<34}{_timed(status):>8.2f} s")
        print(f"{'status, nothing new':<34}{_timed(status):>8.2f} s")
        write_marks(instance, [Mark(key, partitions[0])])
        print(f"{'status, after one event':<34}{_timed(status):>8.2f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'memory of the process':<34}{peak:>8.0f} MB")


def _timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _new(folder: str, name: str) -> Path:
    place = Path(folder) / name
    place.mkdir()
    return place


def main() -> None:
    """Measure what is named and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="+", choices=["path", "ticks", "location", "grain"])
    parser.add_argument("--keys", type=int, default=10_000, help="of the whole path")
    parser.add_argument("--singles", type=int, default=10, help="keys that get a run each")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--partitions", type=int, default=100_000)
    chosen = parser.parse_args()
    if "path" in chosen.what:
        path(chosen.keys, chosen.singles)
    if "ticks" in chosen.what:
        ticks(chosen.sizes)
    if "location" in chosen.what:
        location()
    if "grain" in chosen.what:
        grain(chosen.partitions)


if __name__ == "__main__":
    main()
