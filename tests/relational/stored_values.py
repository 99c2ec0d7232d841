"""Values of all types on all ways into a table: each comes back equal, or is refused by name.

A long run on all databases, with services that are installed:
``python -m tests.relational.stored_values --values 100000``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import json
import random
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa

import dj_dagster as dj
from dj_dagster.orchestration import TableIOManager, build_definitions
from tests.lab import connect
from tests.objects.equality import same
from tests.relational.type_values import REFUSED, makers
from tests.services.database_server import drop_databases
from tests.services.mariadb import mariadb
from tests.services.mysql import mysql

Values = list[Any]
Way = Callable[["Walk", str, Values], Values]
Entries = list[tuple[str, Any]]
EntryWay = Callable[["Walk", Entries], Values]

COLUMNS = {kind: f"v{number}" for number, kind in enumerate(makers(rounds=False))}
DEFINITION = "\n".join(
    ["id : int32", "---", *(f"{name} = null : {kind}" for kind, name in COLUMNS.items())]
)


class Walk:
    """A table with an attribute of each type.

    Attributes
    ----------
    ways
        How many values went each way.
    """

    def __init__(self, connection: dj.Connection, schema: str, folder: Path) -> None:
        made = dj.Schema(schema, connection=connection)
        self.table: Any = made(type("Value", (dj.Manual,), {"definition": DEFINITION}))
        self.copy: Any = made(type("Copy", (dj.Manual,), {"definition": DEFINITION}))
        self.makers = makers(rounds=_rounds(connection))
        self.folder = folder
        self.definitions = build_definitions(made, entry_folders=[folder])
        self.job = f"insert__{schema}__value"
        self.key = dg.AssetKey([schema, "value"])
        self.manager = TableIOManager(connection=connection)
        self.instance = dg.DagsterInstance.ephemeral()
        self.ways: dict[str, int] = {}

    def differences(self, source: random.Random, count: int) -> Iterator[str]:
        """Yield what does not come back as it must, among so many values of each type."""
        entered: Entries = []
        for kind, make in self.makers.items():
            pairs = [make(source) for _ in range(count)]
            wrong = [value for value, kept in pairs if kept is REFUSED]
            right = [pair for pair in pairs if pair[1] is not REFUSED]
            given, kept = [value for value, _ in right], [value for _, value in right]
            for way in GIVEN:
                yield from self._compared(way, kind, given, kept)
            for way in (way for way, kinds in KEPT.items() if kind not in kinds):
                yield from self._compared(way, kind, kept, kept)
            yield from self._accepted(source, kind, wrong)
            entered += [(kind, value) for value in kept]
        for way, kinds in ENTERED.items():
            some = [entry for entry in entered if entry[0] not in kinds]
            yield from self._entered(way, some)

    def _compared(self, way: Way, kind: str, given: Values, kept: Values) -> Iterator[str]:
        """Let values go a way, all at once; where that fails, look for those that do."""
        self.ways[way.__name__] = self.ways.get(way.__name__, 0) + len(given)
        found = self._tried(lambda: way(self, kind, given))
        if isinstance(found, Exception):
            if len(given) > 1:
                half = len(given) // 2
                yield from self._compared(way, kind, given[:half], kept[:half])
                yield from self._compared(way, kind, given[half:], kept[half:])
            else:
                yield f"{kind} {way.__name__}: {_shown(given[0])} refused: {found!r:.200}"
            return
        if len(found) != len(kept):
            yield f"{kind} {way.__name__}: {len(found)} of {len(kept)}"
        for value, wanted, got in zip(given, kept, found, strict=False):
            if not _same(kind, got, wanted):
                yield f"{kind} {way.__name__}: {_shown(value)} came back as {_shown(got)}"

    def _accepted(self, source: random.Random, kind: str, wrong: Values) -> Iterator[str]:
        """Yield what should be refused and is not, or without a name."""
        for value in wrong:
            way = source.choice(GIVEN)
            self.ways["refused"] = self.ways.get("refused", 0) + 1
            found = self._tried(partial(way, self, kind, [value]))
            where = f"{kind} {way.__name__}: {_shown(value)}"
            if not isinstance(found, Exception):
                yield f"{where} is taken, as {_shown(found)}"
            elif not isinstance(found, dj.DataJointError):
                yield f"{where} is not an error of ours: {found!r:.200}"
            elif COLUMNS[kind] not in str(found):
                yield f"{where} is refused without a name: {found}"

    def _entered(self, way: EntryWay, entries: Entries) -> Iterator[str]:
        """Let values of all types go a way at once that takes as long as a hundred inserts."""
        self.ways[way.__name__] = self.ways.get(way.__name__, 0) + len(entries)
        found = self._tried(partial(way, self, entries))
        if isinstance(found, Exception):
            if len(entries) > 1:
                half = len(entries) // 2
                yield from self._entered(way, entries[:half])
                yield from self._entered(way, entries[half:])
            else:
                kind, value = entries[0]
                yield f"{kind} {way.__name__}: {_shown(value)} refused: {found!r:.200}"
            return
        for (kind, value), row in zip(entries, found, strict=True):
            if not _same(kind, row[COLUMNS[kind]], value):
                got = row[COLUMNS[kind]]
                yield f"{kind} {way.__name__}: {_shown(value)} came back as {_shown(got)}"

    def _tried(self, way: Callable[[], Values]) -> Values | Exception:
        """Return what a way gives, and leave the table empty."""
        try:
            return way()
        except Exception as error:
            return error
        finally:
            self.table.delete_quick()

    def read(self, kind: str) -> Values:
        """Return what the table holds, in order."""
        name = COLUMNS[kind]
        return [row[name] for row in self.table.proj(name).to_dicts(order_by="id")]


def _rounds(connection: dj.Connection) -> bool:
    if connection.backend.name == "sqlite":
        return False
    ((version,),) = connection.query("SELECT version()")
    return "MariaDB" not in version


def _same(kind: str, one: Any, other: Any) -> bool:
    # MySQL sorts the keys of JSON.
    return same(_sorted(one), _sorted(other)) if kind == "json" else same(one, other)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except RecursionError:
        return "a deep value"


def _rows(kind: str, values: Values) -> list[dict[str, Any]]:
    return [{"id": number, COLUMNS[kind]: value} for number, value in enumerate(values)]


def insert1(walk: Walk, kind: str, values: Values) -> Values:
    """Insert each row alone."""
    for row in _rows(kind, values):
        walk.table.insert1(row)
    return walk.read(kind)


def insert(walk: Walk, kind: str, values: Values) -> Values:
    """Insert all rows at once, and find those that can be compared by their values."""
    rows = _rows(kind, values)
    walk.table.insert(rows)
    if not kind.startswith(("json", "<", "bytes", "float32")):
        # A number with more digits than are kept equals no row.
        is_cut = kind.startswith(("decimal", "double", "float("))
        sought = _rows(kind, walk.read(kind)) if is_cut else rows
        found = (walk.table & sought).proj().to_dicts(order_by="id")
        assert len(found) == len(rows), f"{len(found)} of {len(rows)} rows are found by value"
    return walk.read(kind)


def update1(walk: Walk, kind: str, values: Values) -> Values:
    """Give rows other values."""
    walk.table.insert([{"id": number} for number in range(len(values))])
    for row in _rows(kind, values):
        walk.table.update1(row)
    return walk.read(kind)


def frame(walk: Walk, kind: str, values: Values) -> Values:
    """Insert a pandas frame whose column is of objects."""
    column = pd.Series(values, dtype=object)
    walk.table.insert(pd.DataFrame({"id": range(len(values)), COLUMNS[kind]: column}))
    return walk.read(kind)


def typed_frame(walk: Walk, kind: str, values: Values) -> Values:
    """Insert a pandas frame whose column has the type that pandas finds; read one."""
    ids = range(len(values))
    walk.table.insert(pd.DataFrame({"id": ids, COLUMNS[kind]: pd.Series(values)}))
    found = walk.table.proj(COLUMNS[kind]).to_pandas(order_by="id")[COLUMNS[kind]].tolist()
    read = walk.read(kind)
    for one, other in zip(found, read, strict=True):
        # pandas has moments of its own, and shows nan for null.
        assert one == other or same(one, other), f"to_pandas gives {one!r}, not {other!r}"
    return read


def copied(walk: Walk, kind: str, values: Values) -> Values:
    """Insert the rows of a query."""
    walk.copy.insert(_rows(kind, values))
    try:
        walk.table.insert(walk.copy.proj(COLUMNS[kind]))
    finally:
        walk.copy.delete_quick()
    return walk.read(kind)


def csv_file(walk: Walk, kind: str, values: Values) -> Values:
    """Insert a CSV file."""
    path = walk.folder / "values.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", COLUMNS[kind]])
        writer.writerows([n, _csv_text(kind, value)] for n, value in enumerate(values))
    walk.table.insert(path)
    # Of a nullable text "" is null there.
    return ["" if value is None else value for value in walk.read(kind)]


def polars(walk: Walk, kind: str, values: Values) -> Values:
    """Insert a polars frame; read one."""
    values = [json.dumps(value) for value in values] if kind == "json" else values
    given = pl.DataFrame({"id": range(len(values)), COLUMNS[kind]: values}, strict=False)
    walk.table.insert(given)
    return walk.read(kind)


def arrow(walk: Walk, kind: str, values: Values) -> Values:
    """Insert an arrow table; read one."""
    values = [json.dumps(value) for value in values] if kind == "json" else values
    walk.table.insert(pa.table({"id": list(range(len(values))), COLUMNS[kind]: pa.array(values)}))
    return walk.read(kind)


def _sparse(entries: Entries) -> list[dict[str, Any]]:
    return [{"id": n, COLUMNS[kind]: value} for n, (kind, value) in enumerate(entries)]


def io_manager(walk: Walk, entries: Entries) -> Values:
    """Return rows from an ordinary asset; take them in another."""
    walk.manager.handle_output(dg.build_output_context(asset_key=walk.key), _sparse(entries))
    return walk.manager.load_input(dg.build_input_context(asset_key=walk.key))


def io_manager_frame(walk: Walk, entries: Entries) -> Values:
    """Return a frame from an ordinary asset; take it in another."""
    given = pd.DataFrame(_sparse(entries), dtype=object)
    walk.manager.handle_output(dg.build_output_context(asset_key=walk.key), given)
    form = dg.PythonObjectDagsterType(pd.DataFrame)
    context = dg.build_input_context(asset_key=walk.key, dagster_type=form)
    taken = walk.manager.load_input(context)
    for place, (kind, value) in enumerate(entries):
        got = taken[COLUMNS[kind]].iloc[place]
        assert same(got, value) or got == value, f"{kind}: a frame has {got!r} for {value!r}"
    return walk.table.to_dicts(order_by="id")


def launchpad(walk: Walk, entries: Entries) -> Values:
    """Enter rows in the launchpad."""
    rows = json.loads(json.dumps(_sparse([(kind, _entry(value)) for kind, value in entries])))
    config = {
        "ops": {f"{walk.job}__rows": {"config": {"rows": rows}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    job = walk.definitions.resolve_job_def(walk.job)
    job.execute_in_process(config, instance=walk.instance)
    return walk.table.to_dicts(order_by="id")


def _csv_text(kind: str, value: Any) -> str:
    return json.dumps(value) if kind == "json" else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dt.timedelta):
        seconds, micros = divmod(abs(value) // dt.timedelta(microseconds=1), 1_000_000)
        sign = "-" if value < dt.timedelta() else ""
        clock = f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{clock}.{micros:06d}" if micros else clock
    return str(value)


def _entry(value: Any) -> Any:
    is_json = isinstance(value, bool | int | float | str | list | dict)
    return value if is_json else _plain(value)


_PACKED = ("<blob>", "<blob@local>")
_DURATIONS = ("time", "time(3)")
_TIMED = ("date", "datetime", "datetime(3)", "datetime(6)", "timestamp")

GIVEN: Sequence[Way] = (insert1, insert, update1, frame)
"""Ways for values of any form."""

KEPT: dict[Way, Sequence[str]] = {
    typed_frame: ("json", *_PACKED, *_DURATIONS),
    copied: (),
    csv_file: ("bytes", *_PACKED),
    polars: ("uuid", "decimal(40,9)", *_PACKED, *_DURATIONS),
    arrow: ("uuid", "decimal(40,9)", *_PACKED, *_DURATIONS),
}
"""Ways for values as they come back, and the types that have no such way."""

ENTERED: dict[EntryWay, Sequence[str]] = {
    io_manager: (),
    io_manager_frame: (),
    launchpad: ("bytes", *_PACKED),
}
"""The same for values of all types at once; the launchpad has JSON."""


@contextlib.contextmanager
def walking(url: str, schema: str, folder: Path) -> Generator[Walk]:
    """Give a walk over a database."""
    connection = connect(url, folder)
    try:
        yield Walk(connection, schema, folder)
    finally:
        connection.close()


def main() -> int:
    """Walk over so many values on all databases; print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    source = random.Random(options.seed)
    found, total = 0, 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {"MariaDB": stack.enter_context(mariadb()), "MySQL": stack.enter_context(mysql())}
        urls = {"SQLite": f"sqlite:///{folder / 'lab.sqlite'}", **servers}
        schema = f"t{uuid.uuid4().hex[:8]}_lab"
        for url in servers.values():
            stack.callback(drop_databases, url, schema)
        walks = {
            name: stack.enter_context(walking(url, schema, folder)) for name, url in urls.items()
        }
        while total < options.values:
            for name, walk in walks.items():
                for line in walk.differences(source, 40):
                    print(f"{name} {line}", flush=True)
                    found += 1
            total = sum(sum(walk.ways.values()) for walk in walks.values())
    print(f"{found} differ of {total}: { ({n: w.ways for n, w in walks.items()}) }")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
