"""What the sensor sees at once: each kind of change, by our client and by others; docs/changes.md.

No sweep comes to help, and the server has forgotten nothing: see `Changed.settle`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pymysql
import pytest
import sqlalchemy as sa

from dj_dagster.orchestration import SensorSettings, build_definitions
from dj_dagster.relational.backends.mysql_server import SETTLED
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed
from tests.orchestration.running import execute, requested, statuses, submit, tick
from tests.services.process import PATIENCE, eventually

Key = tuple[int, int]

APPROVED = {(1, 1), (1, 2), (1, 3), (1, 4), (3, 1)}
OTHER = (1, 5)


@dataclass
class Changed:
    """Items, those chosen that are approved, and a daemon that never sweeps."""

    url: str
    prefix: str
    instance: dg.DagsterInstance
    calls: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = Connection(self.url, safemode=False)
        schema = self.schema = Schema(f"{self.prefix}lab", connection=self.connection)
        calls = self.calls

        @schema
        class Item(Manual):
            definition = """
            subject : int32
            number : int32
            ---
            approved = 0 : int8
            """

        @schema
        class Chosen(Computed):
            definition = """
            -> Item
            """

            @property
            def key_source(self) -> Any:
                return Item & "approved = 1"

            def make(self, key: dict[str, Any]) -> None:
                calls.append((key["subject"], key["number"]))
                self.insert1(key)

        self.item: Any = Item
        self.chosen: Any = Chosen
        self.enter(*APPROVED)
        self.enter(OTHER, approved=0)
        self.defs = build_definitions(schema, sensor_settings=SensorSettings(sweep=1e9))

    @property
    def on_sqlite(self) -> bool:
        return self.connection.backend.name == "sqlite"

    def enter(self, *keys: Key, approved: int = 1) -> None:
        self.item.insert([(*key, approved) for key in keys])

    def outside(self, *statements: str) -> None:
        """Run SQL in a client of its own, which enforces no foreign keys on SQLite."""
        url = sa.make_url(self.url)
        if self.on_sqlite:
            with closing(sqlite3.connect(url.database or "", timeout=PATIENCE)) as client, client:
                for statement in statements:
                    client.execute(statement)
            return
        host, port = url.host or "", url.port or 3306
        with closing(pymysql.connect(host=host, port=port, user=url.username)) as client:
            with client.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            client.commit()

    def asked(self, statement: str) -> list[str]:
        with self.connection.cursor() as session:
            return [str(row[-1]) for row in session.exec_driver_sql(statement)]

    def definitions_of(self, table: Any) -> str:
        """Return the CREATE TABLE of a table, as a dump has it."""
        if self.on_sqlite:
            name = table.full_table_name.strip("`")
            return self.asked(f"SELECT sql FROM sqlite_master WHERE name = '{name}'")[0]
        created = self.asked(f"SHOW CREATE TABLE {table.full_table_name}")[0]
        return created.replace("CREATE TABLE ", f"CREATE TABLE `{self.schema.database}`.", 1)

    def step(self) -> None:
        """Tick, and execute what is asked for."""
        for request in requested(tick(self.defs, self.instance)):
            execute(self.defs, self.instance, submit(self.defs, self.instance, request))

    def settle(self) -> None:
        """Tick until nothing is left of the first look, and the server tells changes apart."""
        eventually(lambda: self.step() or self.is_shown(APPROVED))
        until = time.monotonic() + (0 if self.on_sqlite else SETTLED.total_seconds() + 1)
        while time.monotonic() < until:
            self.step()
            time.sleep(0.2)
        self.calls.clear()

    def is_shown(self, approved: set[Key], *, orphans: bool = False) -> bool:
        """Whether these are chosen, and shown so, and there are no others but orphans."""
        wanted = {f"subject={subject}/number={number}" for subject, number in approved}
        items = {f"subject={a}/number={b}" for a, b in self.keys(self.item)}
        made, name = self.keys(self.chosen), self.schema.name
        shown = statuses(self.defs, self.instance, f"{name}/chosen").get("MATERIALIZED", set())
        entered = statuses(self.defs, self.instance, f"{name}/item")
        if orphans:
            return approved <= made and wanted <= shown and items <= entered["MATERIALIZED"]
        return approved == made and wanted == shown and entered == {"MATERIALIZED": items}

    def keys(self, table: Any) -> set[Key]:
        return {(row["subject"], row["number"]) for row in table().proj().to_dicts()}


@pytest.fixture
def changed(
    database_url: str, schema_prefix: str, instance: dg.DagsterInstance
) -> Iterator[Changed]:
    made = Changed(database_url, schema_prefix, instance)
    made.settle()
    yield made
    made.connection.close()


def restored(lab: Changed, item: str, chosen: str) -> list[str]:
    """Return a dump of both tables with one more row, whose client checks no foreign keys."""
    check = "PRAGMA foreign_keys = OFF" if lab.on_sqlite else "SET foreign_key_checks = 0"
    rows = ", ".join(str((*key, 1)) for key in sorted({*APPROVED, (5, 5)}))
    tables = {item: lab.definitions_of(lab.item), chosen: lab.definitions_of(lab.chosen)}
    return [
        check,
        *(f"DROP TABLE {name}" for name in tables),
        *tables.values(),
        f"INSERT INTO {item} (subject, number, approved) VALUES {rows}",
    ]


def exchange(lab: Changed, gone: Key, come: Key) -> None:
    """Give a row another key, which our client does by another row."""
    with lab.connection.transaction:
        (lab.item & dict(zip(("subject", "number"), gone, strict=True))).delete()
        lab.enter(come)


def restore(lab: Changed) -> None:
    with lab.connection.transaction:
        lab.item.delete()
        lab.enter(*APPROVED, (5, 5))


@dataclass
class Change:
    """How our client makes it, how others do, and what is approved then."""

    ours: Callable[[Changed], object]
    outside: Callable[[Changed, str, str], list[str]]
    approved: set[Key]
    again: bool = False
    """Whether all is made again."""


def approve(lab: Changed) -> None:
    lab.item.update1({"subject": 1, "number": 5, "approved": 1})


CHANGES = {
    "insert": Change(
        lambda lab: lab.enter((2, 7)),
        lambda lab, item, chosen: [f"INSERT INTO {item} VALUES (2, 7, 1)"],
        APPROVED | {(2, 7)},
    ),
    "delete": Change(
        lambda lab: (lab.item & {"subject": 1, "number": 2}).delete(),
        lambda lab, item, chosen: [
            f"DELETE FROM {name} WHERE subject = 1 AND number = 2" for name in (chosen, item)
        ],
        APPROVED - {(1, 2)},
    ),
    "key update": Change(
        lambda lab: exchange(lab, (1, 2), (1, 9)),
        lambda lab, item, chosen: [
            f"UPDATE {item} SET number = 9 WHERE subject = 1 AND number = 2"
        ],
        APPROVED - {(1, 2)} | {(1, 9)},
    ),
    "secondary update": Change(
        approve,
        lambda lab, item, chosen: [f"UPDATE {item} SET approved = 1 WHERE number = 5"],
        APPROVED | {OTHER},
    ),
    "truncate": Change(
        lambda lab: lab.chosen().delete_quick(),
        lambda lab, item, chosen: [
            f"DELETE FROM {chosen}" if lab.on_sqlite else f"TRUNCATE TABLE {chosen}"
        ],
        APPROVED,
        again=True,
    ),
    "replace": Change(
        lambda lab: lab.item.insert1((*OTHER, 1), replace=True),
        lambda lab, item, chosen: [f"REPLACE INTO {item} VALUES (1, 5, 1)"],
        APPROVED | {OTHER},
    ),
    "rename": Change(
        lambda lab: exchange(lab, (3, 1), (4, 1)),
        lambda lab, item, chosen: [f"UPDATE {item} SET subject = 4 WHERE subject = 3"],
        APPROVED - {(3, 1)} | {(4, 1)},
    ),
    "dump restored": Change(restore, restored, APPROVED | {(5, 5)}, again=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_our_client_is_seen(changed: Changed, name: str) -> None:
    change = CHANGES[name]
    change.ours(changed)
    eventually(lambda: changed.step() or changed.is_shown(change.approved))
    assert not change.again or set(changed.calls) == change.approved


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_another_client_is_seen(changed: Changed, name: str) -> None:
    change = CHANGES[name]
    tables = changed.item.full_table_name, changed.chosen.full_table_name
    changed.outside(*change.outside(changed, *tables))
    # Rows below a key that SQLite's own client has changed stay, without a parent.
    orphans = changed.on_sqlite and name in ("key update", "rename")
    eventually(lambda: changed.step() or changed.is_shown(change.approved, orphans=orphans))
    assert not change.again or set(changed.calls) == change.approved


def test_a_sqlite_file_that_another_takes_the_place_of_is_seen(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    file, copy = tmp_path / "lab.sqlite", tmp_path / "copy.sqlite"
    lab = Changed(f"sqlite:///{file}", "own_", instance)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute(f"UPDATE {lab.item.full_table_name} SET approved = 1 WHERE number = 5")
        target.commit()
    lab.settle()
    lab.enter((7, 7))
    eventually(lambda: lab.step() or lab.is_shown(APPROVED | {(7, 7)}))
    for suffix in ("-wal", "-shm"):
        # They belong to the file that goes.
        Path(f"{file}{suffix}").unlink()
    copy.replace(file)
    eventually(lambda: lab.step() or lab.is_shown(APPROVED | {OTHER}))
    lab.enter((8, 8))
    eventually(lambda: lab.step() or lab.is_shown(APPROVED | {OTHER, (8, 8)}))
    lab.connection.close()
