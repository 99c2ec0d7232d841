"""Notes on how computed rows came to be, in a hidden table ``~provenance``, and stale keys.

A note has the version of the code that made one key, a digest of the rows that the key refers to,
and the run of Dagster that made it. Any process can thereby find the stale keys, also after losses
elsewhere. Notes are written some time after the rows, many together, so that the last keys of a
killed worker are without notes. Keys without a note were made by such a worker, by DataJoint
itself, or before there were notes; their age is unknown.

The digest of a key's inputs covers the rows of the tables that the table's foreign keys refer to by
the key, and, where people entered those, the rows that they refer to in turn. The database computes
it; see `Backend.row_digest` for what it covers.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from dj_dagster.definition import parse_definition
from dj_dagster.errors import (
    ConnectionFailedError,
    DataJointError,
    PopulateError,
    TransientError,
)
from dj_dagster.model.heading import Heading, Key, Value, Values
from dj_dagster.model.names import NOTES_TABLE, TableName, Tier, parse_table_name
from dj_dagster.relational.algebra.nodes import All, Condition, In
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import alter, declare
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.inserting.encode import encode_rows
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.sql.select import make_window
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.collation import has_spellings, matched, paired

AT_ONCE = 1000
"""Notes that are written, or read, together at most."""

SECONDS = 2.0
"""Seconds that a note waits for others, about."""

_DEFINITION = """
# How rows of computed tables came to be
table_name : varchar(64)  # name of the table
key_hash : uuid  # of the key that make was given
---
code_version : varchar(64)  # of make and what it uses, empty if unknown
inputs : uuid  # digest of the rows that the key refers to
run_id="" : varchar(64)  # of the run of Dagster that made it, empty if none did
"""

_RUN: ContextVar[str] = ContextVar("run", default="")


def current_run() -> str:
    """Return the run of Dagster that makes keys here, empty if none does."""
    return _RUN.get()


@contextmanager
def noted_run(run_id: str) -> Generator[None]:
    """Note a run of Dagster with the keys that are made inside the block."""
    token = _RUN.set(run_id)
    try:
        yield
    finally:
        _RUN.reset(token)


@dataclass(frozen=True, slots=True)
class Note:
    """The origin of the rows of one key.

    Attributes
    ----------
    code
        The version of the code, see `dj_dagster.workflow.code_version`; empty if unknown.
    inputs
        A digest of the rows that the key refers to, see `Inputs`.
    run
        The run of Dagster that made the key; empty if none did, or if that is unknown.
    """

    code: str
    inputs: UUID
    run: str = ""


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

    def read(self, keys: Sequence[Mapping[str, Value]]) -> dict[Values, Note]:
        """Return the notes on some keys, by the keys' values."""
        stored = self._found()
        if stored is None:
            return {}
        hashes = {self._hash(key): tuple(key.values()) for key in keys}
        found: dict[Values, Note] = {}
        wanted = list(hashes)
        for start in range(0, len(wanted), AT_ONCE):
            for key_hash, *values in self._read(stored, wanted[start : start + AT_ONCE]):
                found[hashes[key_hash]] = Note(*values)
        return found

    def write(self, notes: Sequence[tuple[Mapping[str, Value], Note]]) -> None:
        """Write notes on keys, in the place of older ones.

        Raises
        ------
        DataJointError
            If the hidden table cannot be created or written.
        """
        stored = self._created
        rows = [
            {
                "table_name": self._table.table,
                "key_hash": self._hash(key),
                "code_version": note.code,
                "inputs": note.inputs,
                **({"run_id": note.run} if "run_id" in stored.heading.attributes else {}),
            }
            for key, note in notes
        ]
        for start in range(0, len(rows), AT_ONCE):
            chunk = rows[start : start + AT_ONCE]
            encoded = encode_rows(self._connection, stored, chunk, mode="replace")
            write.submit(self._connection, encoded)

    def forget(self, keys: Sequence[Mapping[str, Value]]) -> None:
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
        return self._connection.catalog.find_anew(TableName(self._table.schema, NOTES_TABLE))

    def _read(self, stored: StoredTable, hashes: Sequence[UUID]) -> Sequence[Values]:
        node = restrict(all_rows(stored.name, stored.heading), self._of(hashes))
        names = ["key_hash", "code_version", "inputs", "run_id"]
        known = [name for name in names if name in stored.heading.attributes]
        return fetch.rows(self._connection, node, known)

    def _of(self, hashes: Sequence[UUID]) -> Condition:
        mine = In(("table_name",), ((self._table.table,),))
        return All((mine, In(("key_hash",), tuple((key_hash,) for key_hash in hashes))))

    @cached_property
    def _created(self) -> StoredTable:
        return _ensure(self._connection, TableName(self._table.schema, NOTES_TABLE))

    def _hash(self, key: Mapping[str, Value]) -> UUID:
        text = "\0".join([f"{name}={_spelled(key[name])}" for name in self._names])
        return UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest())


class NoteTaker:
    """A writer of notes on the keys of a table, which are collected while the keys are made.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    code
        The version of its code, None if unknown.
    run
        The run of Dagster that makes the keys, empty if none does.
    """

    def __init__(self, table: Table, names: Sequence[str], code: str | None, run: str = "") -> None:
        self._table = table
        self._notes = Notes(table, names)
        self._inputs = Inputs(table, names)
        self._code, self._run = code or "", run
        self._before: dict[Values, UUID] = {}
        self._waiting: list[tuple[Mapping[str, Value], Note]] = []
        self._written = time.monotonic()
        self._refused = False

    def look(self, keys: Sequence[Mapping[str, Value]]) -> None:
        """Look at the rows that keys refer to, before they are made."""
        if not self._refused:
            with self._told():
                self._before = self._inputs.of(keys)

    def note(self, key: Mapping[str, Value]) -> None:
        """Take a note on a key that was looked at and is now made."""
        inputs = self._before.get(tuple(key.values()))
        if inputs is not None:
            self._waiting.append((key, Note(self._code, inputs, self._run)))

    def write_if_due(self) -> None:
        """Write the waiting notes, if they are many or have waited long."""
        waited = time.monotonic() - self._written
        if len(self._waiting) >= AT_ONCE or waited >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write all waiting notes.

        If the database refuses them, a warning is given, and the age of the keys is unknown.
        """
        if self._waiting and not self._refused:
            with self._told():
                self._notes.write(self._waiting)
                self._waiting = []
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the waiting notes, after all keys are made."""
        self.write()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Turn an error of the database into a warning, given once."""
        try:
            yield
        except (ConnectionFailedError, TransientError):
            # Notes that could not be written are tried again with the next ones.
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
    if stored is not None and "run_id" in stored.heading.attributes:
        return stored
    definition = parse_definition(_DEFINITION, table=str(name))

    def no_parents(item: object) -> StoredTable:
        raise PopulateError(f"{NOTES_TABLE} has no foreign keys: {item!r}.")

    if stored is not None:
        # An earlier version made it. If it cannot be altered, runs are not noted.
        with suppress(DataJointError):
            plan = declare.planned(connection, name, definition, no_parents)
            alter.alter_table(connection, plan, None)
        return connection.catalog.find(name) or stored
    connection.catalog.forget(name.schema)
    declare.ensure_table(connection, name, definition, no_parents)
    stored = connection.catalog.find(name)
    if stored is None:
        raise PopulateError(f"{name} was dropped while it was created: try again.")
    return stored


def _spelled(value: Value) -> str:
    """Return a key's value as text, which does not depend on how the key was read."""
    match value:
        case bool():
            return str(int(value))
        case Decimal():
            # `normalize` would round to 28 digits.
            text = format(value, "f")
            return text.rstrip("0").rstrip(".") if "." in text else text
        case float():
            return repr(float(value))
        case bytes():
            return value.hex()
        case _:
            return str(value)


ENTERED = (Tier.MANUAL, Tier.LOOKUP)

CHUNK = 1000
"""Rows that are read by one statement, at most."""


@dataclass(frozen=True)
class Input:
    """A table whose rows are referred to.

    Attributes
    ----------
    attributes
        ``{attribute there: attribute of what refers to it}``.
    columns
        The attributes that a digest covers.
    inputs
        The tables that its rows refer to in turn.
    """

    name: TableName
    heading: Heading
    attributes: Mapping[str, str]
    columns: tuple[str, ...]
    inputs: tuple[Input, ...]


class Inputs:
    """The rows that the keys of a table refer to, which are read as digests.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._connection = table.connection
        by_key = [key for key in table.foreign_keys if key.attributes.keys() <= set(names)]
        self.each = _inputs(table.connection, by_key, frozenset({table.name}))

    def tables(self) -> Iterator[tuple[TableName, Mapping[str, str] | None]]:
        """Yield the tables that are read, each with the names of its key in the keys of `make`.

        The names are ``{name there: name in the key}``, None if the key does not identify the row.
        """
        yield from _tables(self.each, None)

    def of(self, keys: Sequence[Mapping[str, Value]]) -> dict[Values, UUID]:
        """Return the digests of the rows that keys refer to, by the keys' values."""
        parts: list[list[bytes]] = [[] for _ in keys]
        for each in self.each:
            wanted = [tuple(key[own] for own in each.attributes.values()) for key in keys]
            found = _digests(self._connection, each, wanted)
            for part, row in zip(parts, wanted, strict=True):
                part.append(found.get(row, b""))
        return {
            tuple(key.values()): UUID(bytes=_digest(part))
            for key, part in zip(keys, parts, strict=True)
        }


def _tables(
    inputs: Iterable[Input], above: Mapping[str, str] | None
) -> Iterator[tuple[TableName, Mapping[str, str] | None]]:
    for each in inputs:
        names: dict[str, str] | None = dict(each.attributes)
        if above is not None:
            renamed = {there: above.get(here, "") for there, here in each.attributes.items()}
            names = renamed if all(renamed.values()) else None
        yield each.name, names
        yield from _tables(each.inputs, names or {})


def is_entered(name: TableName) -> bool:
    """Whether people enter the rows of a table; a part counts like its master."""
    parsed = parse_table_name(name.table)
    while parsed is not None and parsed.master is not None:
        parsed = parse_table_name(parsed.master)
    return parsed is not None and parsed.tier in ENTERED


def _inputs(
    connection: Connection, foreign_keys: Iterable[ForeignKey], below: frozenset[TableName]
) -> tuple[Input, ...]:
    """Return the tables that are referred to and have values to read."""
    found: list[Input] = []
    for key in sorted(foreign_keys, key=lambda key: (key.parent, sorted(key.attributes))):
        stored = None if key.parent in below else connection.catalog.find(key.parent)
        if stored is None:
            continue
        columns = tuple(stored.heading.secondary_attributes)
        further = stored.foreign_keys if is_entered(key.parent) else ()
        inputs = _inputs(connection, further, below | {key.parent})
        if columns or inputs:
            theirs = {there: here for here, there in key.attributes.items()}
            found.append(Input(key.parent, stored.heading, theirs, columns, inputs))
    return tuple(found)


def _digests(connection: Connection, source: Input, rows: Sequence[Values]) -> dict[Values, bytes]:
    """Return the digests of the rows of a table, by the values that refer to them."""
    used = dict.fromkeys(
        (*source.attributes, *(own for each in source.inputs for own in each.attributes.values()))
    )
    names, width = list(used), len(source.attributes)
    decoded = _decoder(connection, source.heading, names)
    wanted = list(dict.fromkeys(row for row in rows if None not in row))
    found: list[tuple[Values, list[bytes]]] = []
    above: list[list[Values]] = [[] for _ in source.inputs]
    for start in range(0, len(wanted), CHUNK):
        for row in _read(connection, source, names, wanted[start : start + CHUNK]):
            key = decoded(row[:-1])
            found.append((key[:width], [b"%d" % int(row[-1])]))
            for each, theirs in zip(source.inputs, above, strict=True):
                theirs.append(tuple(key[names.index(own)] for own in each.attributes.values()))
    for each, theirs in zip(source.inputs, above, strict=True):
        digests = _digests(connection, each, theirs)
        for (_, content), row in zip(found, theirs, strict=True):
            content.append(digests.get(row, b""))
    of_rows = {row: _digest(content) for row, content in found}
    node, names = all_rows(source.name, source.heading), list(source.attributes)
    pairs = paired(connection, node, names, wanted, of_rows.keys())
    return {row: of_rows[spelled] for row, spelled in pairs.items() if spelled in of_rows}


def _read(
    connection: Connection, source: Input, names: Sequence[str], rows: Sequence[Values]
) -> Sequence[Sequence[Value]]:
    """Return attributes of rows, and a number that stands for all of their values."""
    heading, backend = source.heading, connection.backend
    node = restrict(all_rows(source.name, heading), In(tuple(source.attributes), tuple(rows)))
    lowered = Lowering(backend).lower(node)
    columns = [
        lowered.columns[name]
        if (kind := heading[name].type) is None
        else backend.fetched(lowered.columns[name], kind)
        for name in names
    ]
    digest: Element = sa.literal_column("0")
    if source.columns:
        digest = backend.row_digest([(lowered.columns[n], heading[n]) for n in source.columns])
    select = sa.select(*columns, digest).select_from(lowered.source).where(*lowered.where)
    return connection.rows(select)


def _decoder(
    connection: Connection, heading: Heading, names: Sequence[str]
) -> Callable[[Sequence[Value]], Values]:
    decoders = [
        (place, decode)
        for place, name in enumerate(names)
        if (kind := heading[name].type) is not None
        and (decode := connection.backend.decoder(kind)) is not None
    ]

    def decoded(row: Sequence[Value]) -> Values:
        values = list(row)
        for place, decode in decoders:
            if values[place] is not None:
                values[place] = decode(values[place])
        return tuple(values)

    return decoded if decoders else tuple


def _digest(parts: Sequence[bytes]) -> bytes:
    """Return a hash of texts, which are separated by their lengths."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(b"%d " % len(part))
        state.update(part)
    return state.digest()


Age = Literal["current", "code", "inputs", "unknown"]
"""The age of a key.

It was made as it would be made now, by other code, from rows that have changed since, or without a
note.
"""

STALE: tuple[Age, ...] = ("code", "inputs")

AGES_TOGETHER = 10_000
"""Keys whose age is found together."""


class Staleness:
    """The ages of the keys of one table.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    source
        The class that has the `make`.
    """

    def __init__(self, table: Table, names: Sequence[str], source: type) -> None:
        self.code = code_version(source)
        self.notes = Notes(table, names)
        self._table = table
        self._names = list(names)
        self._inputs = Inputs(table, names)

    def of(self, keys: Sequence[Mapping[str, Value]]) -> dict[Values, tuple[Age, Note | None]]:
        """Return the age of keys that are in the table, and the note on each, by their values."""
        notes = self._read(keys)
        noted = [key for key in keys if tuple(key.values()) in notes]
        inputs = self._inputs.of(noted) if noted else {}
        found: dict[Values, tuple[Age, Note | None]] = {}
        for row in (tuple(key.values()) for key in keys):
            note = notes.get(row)
            found[row] = ("unknown", None) if note is None else (self._age(note, inputs[row]), note)
        return found

    def _read(self, keys: Sequence[Mapping[str, Value]]) -> dict[Values, Note]:
        notes = self.notes.read(keys)
        rest = [key for key in keys if tuple(key.values()) not in notes]
        differing = spelled_otherwise(self._table, rest)
        more = self.notes.read(list(differing.values())) if differing else {}
        found = {row: more.get(tuple(key.values())) for row, key in differing.items()}
        return notes | {row: note for row, note in found.items() if note is not None}

    def stale(self, *restrictions: object) -> list[Key]:
        """Return the stale keys among those in the table for which all restrictions hold."""
        return [
            key
            for keys in self.pages(*restrictions)
            for key, (age, _) in zip(keys, self.of(keys).values(), strict=True)
            if age in STALE
        ]

    def pages(self, *restrictions: object) -> Iterator[list[Key]]:
        """Yield the keys in the table for which all restrictions hold, page by page."""
        rows: QueryExpression = self._table
        for restriction in restrictions:
            rows = rows & restriction
        window = make_window(self._names or None, None, None, rows.heading)
        values = fetch.rows(rows.connection, rows.node, self._names, window)
        distinct = list(dict.fromkeys(map(tuple, values)))
        for start in range(0, len(distinct), AGES_TOGETHER):
            chunk = distinct[start : start + AGES_TOGETHER]
            yield [dict(zip(self._names, row, strict=True)) for row in chunk]

    def _age(self, note: Note, inputs: object) -> Age:
        if self.code and note.code and note.code != self.code:
            return "code"
        if note.inputs != inputs:
            return "inputs"
        return "current" if note.code or not self.code else "unknown"


def spelled_otherwise(table: Table, keys: Sequence[Mapping[str, Value]]) -> dict[Values, Key]:
    """Return the keys that a table spells differently, as it spells them; so are the notes."""
    names = list(keys[0]) if keys else []
    if not has_spellings(table.connection, map(table.heading.__getitem__, names)):
        return {}
    rows = [tuple(key.values()) for key in keys]
    pairs = matched(table.connection, all_rows(table.name, table.heading), names, rows)
    differing = {row: own for row, own in pairs.items() if row != own}
    return {row: dict(zip(names, own, strict=True)) for row, own in differing.items()}
