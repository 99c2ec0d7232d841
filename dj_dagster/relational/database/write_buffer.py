"""Rows that a unit of work has collected and not yet written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.model.table_name import TableName
from dj_dagster.objects.keeping import StoredObjects
from dj_dagster.relational.backends.insert_statement import InsertMode


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Checked and encoded rows of one table, ready for the driver.

    Attributes
    ----------
    columns
        The names that `values` gives, in order.
    values
        One sequence a column; `DEFAULT` stands for the column's default.
    count
        Number of rows, which `values` does not tell where there are no columns.
    bytes
        Size of the packed blobs among the values, objects in stores included.
    objects
        What was written to stores for these rows.
    """

    table: TableName
    columns: tuple[str, ...]
    values: tuple[Sequence[Any], ...]
    count: int
    key: tuple[str, ...]
    mode: InsertMode = "insert"
    bytes: int = 0
    objects: StoredObjects | None = None


@dataclass(slots=True)
class WriteBuffer:
    """What one unit of work collects.

    Attributes
    ----------
    allowed
        The tables that a `make` fills: its own and its parts.
    pending
        What is not yet written, in order of the insert calls.
    written
        Number of rows by table, pending ones included.
    failed
        Why collected rows could not be written: there is no good end any more.
    transaction
        Holds the transaction once one had to be opened; its owner commits or rolls back.
    """

    allowed: frozenset[TableName] = frozenset()
    pending: list[EncodedRows] = field(default_factory=list[EncodedRows])
    written: dict[TableName, int] = field(default_factory=dict[TableName, int])
    bytes: int = 0
    failed: DataJointError | None = None
    transaction: ExitStack = field(default_factory=ExitStack)

    def add(self, encoded: EncodedRows) -> None:
        """Collect rows."""
        self.pending.append(encoded)
        self.note(encoded.table, encoded.count)
        self.bytes += encoded.bytes

    def note(self, table: TableName, rows: int) -> None:
        """Count rows as written."""
        self.written[table] = self.written.get(table, 0) + rows

    def touches(self, tables: frozenset[TableName]) -> bool:
        """Whether a query over these tables would miss a collected row."""
        return any(encoded.table in tables for encoded in self.pending)

    def take(self) -> list[EncodedRows]:
        """Return what is pending and forget it."""
        taken, self.pending = self.pending, []
        return taken
