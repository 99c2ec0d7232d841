"""How the rows of computed tables came to be, kept in a hidden table ``~provenance`` of the schema.

A note says of one key which code made it, and what the rows were like that it refers to. So it can
be told in any process, and after any loss elsewhere, which keys are stale. Notes are written some
time after the rows, many together: of the last keys of a worker that was killed there are none.
Keys without a note were made by it, by DataJoint itself, or before there were notes; they count as
unknown.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from dj_dagster.definition import parse_definition
from dj_dagster.errors import (
    ConnectionFailedError,
    DataJointError,
    PopulateError,
    TransientError,
)
from dj_dagster.model.names import NOTES_TABLE, TableName
from dj_dagster.relational.algebra.nodes import All, Condition, In, all_rows, restrict
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.inserting.encode import encode_rows
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.workflow.inputs import Inputs

Key = Mapping[str, Any]

AT_ONCE = 1000
"""Notes that are written, or read, together at most."""

SECONDS = 2.0
"""How long a note waits for others, about."""

_DEFINITION = """
# How rows of computed tables came to be
table_name : varchar(64)  # name of the table
key_hash : uuid  # of the key that make was given
---
code_version : varchar(64)  # of make and what it uses, empty if unknown
inputs : uuid  # digest of the rows that the key refers to
"""


@dataclass(frozen=True, slots=True)
class Note:
    """How the rows of one key came to be.

    Attributes
    ----------
    code
        The version of the code, see `dj_dagster.workflow.code_version`; empty if unknown.
    inputs
        What the rows were like that the key refers to, see `Inputs`.
    """

    code: str
    inputs: UUID


class Notes:
    """The notes on one computed table.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._connection = table.connection
        self._table = table.name
        self._names = sorted(names)

    def read(self, keys: Sequence[Key]) -> dict[tuple[Any, ...], Note]:
        """Return the notes on some keys, by the values of these."""
        stored = self._found()
        if stored is None:
            return {}
        hashes = {self._hash(key): tuple(key.values()) for key in keys}
        found: dict[tuple[Any, ...], Note] = {}
        wanted = list(hashes)
        for start in range(0, len(wanted), AT_ONCE):
            for key_hash, code, inputs in self._read(stored, wanted[start : start + AT_ONCE]):
                found[hashes[key_hash]] = Note(code, inputs)
        return found

    def write(self, notes: Sequence[tuple[Key, Note]]) -> None:
        """Write notes on keys, in the place of older ones.

        Raises
        ------
        DataJointError
            If the hidden table cannot be created or written.
        """
        rows = [
            {
                "table_name": self._table.table,
                "key_hash": self._hash(key),
                "code_version": note.code,
                "inputs": note.inputs,
            }
            for key, note in notes
        ]
        stored = self._created
        for start in range(0, len(rows), AT_ONCE):
            chunk = rows[start : start + AT_ONCE]
            encoded = encode_rows(self._connection, stored, chunk, mode="replace")
            write.submit(self._connection, encoded)

    def forget(self, keys: Sequence[Key]) -> None:
        """Remove the notes on keys that are deleted."""
        stored = self._found()
        if stored is None:
            return
        hashes = [self._hash(key) for key in keys]
        for start in range(0, len(hashes), AT_ONCE):
            lowering = Lowering(self._connection.backend)
            base = all_rows(stored.name, stored.heading)
            target, over = lowering.target(base)
            condition = self._of(hashes[start : start + AT_ONCE])
            where = lowering.where(condition, over, stored.heading)
            self._connection.execute(sa.delete(target).where(where))

    def _found(self) -> StoredTable | None:
        name = TableName(self._table.schema, NOTES_TABLE)
        stored = self._connection.catalog.find(name)
        if stored is None:
            # Another process may have created it since the schema was read.
            self._connection.catalog.forget(self._table.schema)
            stored = self._connection.catalog.find(name)
        return stored

    def _read(self, stored: StoredTable, hashes: Sequence[UUID]) -> Sequence[Sequence[Any]]:
        node = restrict(all_rows(stored.name, stored.heading), self._of(hashes))
        return fetch.rows(self._connection, node, ["key_hash", "code_version", "inputs"])

    def _of(self, hashes: Sequence[UUID]) -> Condition:
        mine = In(("table_name",), ((self._table.table,),))
        return All((mine, In(("key_hash",), tuple((key_hash,) for key_hash in hashes))))

    @cached_property
    def _created(self) -> StoredTable:
        return _ensure(self._connection, TableName(self._table.schema, NOTES_TABLE))

    def _hash(self, key: Key) -> UUID:
        text = "\0".join([f"{name}={_spelled(key[name])}" for name in self._names])
        return UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest())


class NoteTaker:
    """Takes notes on the keys of a table as they are made, and writes them many at a time.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    code
        The version of its code, None if unknown.
    """

    def __init__(self, table: Table, names: Sequence[str], code: str | None) -> None:
        self._table = table
        self._notes = Notes(table, names)
        self._inputs = Inputs(table, names)
        self._code = code or ""
        self._before: dict[tuple[Any, ...], UUID] = {}
        self._waiting: list[tuple[Key, Note]] = []
        self._written = time.monotonic()
        self._refused = False

    def look(self, keys: Sequence[Key]) -> None:
        """Look at the rows that keys refer to, before they are made."""
        if not self._refused:
            with self._told():
                self._before = self._inputs.of(keys)

    def note(self, key: Key) -> None:
        """Take note of a key that was looked at, and is made."""
        inputs = self._before.get(tuple(key.values()))
        if inputs is not None:
            self._waiting.append((key, Note(self._code, inputs)))

    def write_if_due(self) -> None:
        """Write the notes that wait, if they are many or have waited long."""
        waited = time.monotonic() - self._written
        if len(self._waiting) >= AT_ONCE or waited >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write all notes that wait.

        A database that refuses them is no reason to fail: the keys count as unknown then.
        """
        if self._waiting and not self._refused:
            with self._told():
                self._notes.write(self._waiting)
                self._waiting = []
        self._written = time.monotonic()

    def close(self) -> None:
        """Write what waits: no more keys are made."""
        self.write()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Turn an error of the database into a warning, given once."""
        try:
            yield
        except (ConnectionFailedError, TransientError):
            # What could not be written is tried again with the next notes.
            return
        except DataJointError as error:
            self._refused = True
            warnings.warn(
                f"Which code makes the keys of {self._table.name} is not noted, so that they are "
                f"not shown as stale later: {error} Grant CREATE, SELECT, INSERT and DELETE on "
                f"{self._table.name.schema}.{NOTES_TABLE} to have it noted.",
                stacklevel=2,
            )


def _ensure(connection: Connection, name: TableName) -> StoredTable:
    stored = connection.catalog.find(name)
    if stored is not None:
        return stored
    definition = parse_definition(_DEFINITION, table=str(name))

    def no_parents(item: object) -> StoredTable:
        raise PopulateError(f"{NOTES_TABLE} has no foreign keys: {item!r}.")

    connection.catalog.forget(name.schema)
    declare.ensure_table(connection, name, definition, no_parents)
    stored = connection.catalog.find(name)
    if stored is None:
        raise PopulateError(f"{name} was dropped while it was created: try again.")
    return stored


def _spelled(value: Any) -> str:
    """Return a key's value as text that is the same whichever way the key was read."""
    match value:
        case bool():
            return str(int(value))
        case Decimal():
            return format(value.normalize(), "f")
        case float():
            return repr(float(value))
        case bytes():
            return value.hex()
        case _:
            return str(value)
