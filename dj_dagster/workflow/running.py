"""Running one `make`: all of its rows, or none."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from dj_dagster.errors import PopulateError
from dj_dagster.relational.database.write import unit_of_work
from dj_dagster.relational.database.write_buffer import Making, WriteBuffer
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.row_sources import Batch
from dj_dagster.workflow.content_hash import content_hash
from dj_dagster.workflow.make import Makes, in_three_parts
from dj_dagster.workflow.surroundings import surroundings_kept
from dj_dagster.workflow.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Made:
    """What a `make` wrote.

    Attributes
    ----------
    own_rows
        Rows of the table itself.
    rows
        Rows of all tables.
    bytes
        Size of the packed blobs among them, in the rows and in stores.
    """

    own_rows: int
    rows: int
    bytes: int


class MakeRunner:
    """Calls a table's `make` for key after key.

    Parameters
    ----------
    must_insert
        Whether a make that inserts no row of the table is an error.
    make_kwargs
        Passed to each `make`, or to `make_fetch` alone where the make is in three parts.
    """

    def __init__(
        self,
        table: Makes,
        *,
        must_insert: bool = False,
        make_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.table = table
        self._must_insert = must_insert
        self._kwargs = dict(make_kwargs or {})
        self._allowed = frozenset(
            {table.name, *(part().name for part in type(table).part_classes())}
        )
        # The name of the 0.12 era.
        self._make: Callable[..., Any] = getattr(table, "_make_tuples", None) or table.make
        self._three_parts = in_three_parts(table) and not hasattr(table, "_make_tuples")

    def run(self, key: Mapping[str, Any]) -> Made:
        """Make a key and write what was inserted, in one short transaction.

        Raises
        ------
        Exception
            What the make raised; nothing has been written then.
        """
        table = self.table
        with (
            unit_of_work(table.connection, self._allowed, self._making(key)) as buffer,
            table.making(key),
            surroundings_kept(),
        ):
            if self._three_parts:
                self._in_three_parts(key, buffer)
            else:
                started = self._make(dict(key), **self._kwargs)
                if isinstance(started, Generator):
                    self._as_generator(started, key, buffer)
            if self._must_insert and not buffer.written.get(table.name):
                raise PopulateError(
                    f"make() of {table.name} inserted no row for {key}. Insert one, or leave such "
                    "keys out by defining key_source."
                )
        written = buffer.written
        return Made(written.get(table.name, 0), sum(written.values()), buffer.bytes)

    def _making(self, key: Mapping[str, Any]) -> Making | None:
        """Return what is noted and checked of where the rows of a key come from."""
        table, wanted = self.table, self.table.connection.provenance
        if not wanted.strict:
            return Making(table.name, key) if wanted.capture else None
        row = Batch({name: [value] for name, value in key.items()}, 1)
        (encoded,) = RowEncoder(table.connection, table.stored, partial=True).encode([row])
        values = (column[0] for column in encoded.values)
        return Making(
            table.name,
            key,
            dict(zip(encoded.columns, values, strict=True)),
            readable=self._allowed | Upstream(table, key).tables,
            writable=self._allowed,
        )

    def _in_three_parts(self, key: Mapping[str, Any], buffer: WriteBuffer) -> None:
        table: Any = self.table
        fetched = self._tuple(table.make_fetch(dict(key), **self._kwargs), "make_fetch")
        before = content_hash(fetched)
        computed = self._tuple(table.make_compute(dict(key), *fetched), "make_compute")
        del fetched
        self._begin(buffer)
        again = self._tuple(table.make_fetch(dict(key), **self._kwargs), "make_fetch")
        self._compare(before, again, key)
        table.make_insert(dict(key), *computed)

    def _as_generator(
        self, started: Generator[Any, Any, Any], key: Mapping[str, Any], buffer: WriteBuffer
    ) -> None:
        try:
            before = content_hash(next(started))
            computed = next(started)
        except StopIteration:
            raise PopulateError(
                f"make() of {self.table.name} is a generator: it must yield what it fetched, then "
                "what it computed, and insert after that."
            ) from None
        started.close()
        self._begin(buffer)
        again = self._make(dict(key), **self._kwargs)
        self._compare(before, next(again), key)
        try:
            again.send(computed)
        except StopIteration:
            return
        again.close()

    def _begin(self, buffer: WriteBuffer) -> None:
        """Open the transaction in which inputs are read again and rows are written."""
        if not self.table.connection.in_transaction:
            buffer.transaction.enter_context(self.table.connection.open_transaction())

    def _compare(self, before: bytes, again: Any, key: Mapping[str, Any]) -> None:
        if content_hash(again) != before:
            raise PopulateError(
                f"The inputs of {self.table.name} for {dict(key)} have changed while it was "
                "computed: what was fetched the second time differs. Nothing was written; make the "
                "key again."
            )

    def _tuple(self, value: Any, step: str) -> tuple[Any, ...]:
        if isinstance(value, tuple | list):
            return tuple(value)
        raise PopulateError(
            f"{step} of {self.table.name} returned {type(value).__name__}, not a tuple: write "
            "return (value,) for a single one."
        )
