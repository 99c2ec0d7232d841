"""The rows that a unit of work collects, and the call of `make` that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.heading import Value
from dj_dagster.model.names import TableName
from dj_dagster.objects.collection import StoredObjects
from dj_dagster.relational.stored import InsertMode


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Checked and encoded rows of one table, ready for the driver.

    Attributes
    ----------
    columns
        The names of the columns in `values`, in order.
    values
        One sequence a column; `DEFAULT` stands for the column's default.
    count
        Number of rows, which `values` does not show without columns.
    bytes
        Size of the packed blobs among the values, objects in stores included.
    objects
        The objects that were written to stores for these rows.
    before
        Rows of hidden tables that these rows refer to, which are written first.
    """

    table: TableName
    columns: tuple[str, ...]
    values: tuple[Sequence[Value], ...]
    count: int
    key: tuple[str, ...]
    mode: InsertMode = "insert"
    bytes: int = 0
    objects: StoredObjects | None = None
    before: tuple[EncodedRows, ...] = ()


@dataclass(frozen=True, slots=True)
class MakeCall:
    """The call of `make` that a unit of work is for.

    Attributes
    ----------
    key
        The key that it was called with.
    stored_key
        The key as the database stores it.
    readable, writable
        The tables that it may read and insert into; None where that is not checked.
    """

    table: TableName
    key: Mapping[str, Value]
    stored_key: Mapping[str, Value] = field(default_factory=dict[str, Value])
    readable: frozenset[TableName] | None = None
    writable: frozenset[TableName] | None = None

    def check_read(self, tables: frozenset[TableName]) -> None:
        """Refuse to read tables that the made one does not refer to."""
        if self.readable is None:
            return
        others = sorted(str(t) for t in tables - self.readable if not t.table.startswith("~"))
        if others:
            raise QueryError(
                f"strict_provenance: the make of {self.table} is not permitted to read the "
                f"undeclared {', '.join(others)}. Add a foreign key to what it reads, and use "
                "self.upstream[Table]."
            )

    def check_write(self, table: TableName) -> None:
        """Refuse to write a table other than the made one and its parts."""
        if self.writable is not None and table not in self.writable:
            raise QueryError(
                f"strict_provenance: the make of {self.table} is not permitted to write {table}: "
                "only the table itself and its parts."
            )

    def check_rows(self, rows: EncodedRows) -> None:
        """Refuse rows of another key."""
        given = dict(zip(rows.columns, rows.values, strict=True))
        for name, wanted in self.stored_key.items():
            other = next((v for v in given.get(name, ()) if v != wanted), wanted)
            if other != wanted:
                raise QueryError(
                    f"strict_provenance: a row for {rows.table} has {name}={other!r}, which does "
                    f"not match the current make() key: {dict(self.key)}."
                )


@dataclass(slots=True)
class WriteBuffer:
    """The rows that one unit of work collects.

    Attributes
    ----------
    allowed
        The tables that a `make` fills: its own and its parts.
    call
        The call of `make`, where the provenance of its rows is recorded or checked; otherwise None.
    pending
        The rows that are not yet written, in order of the insert calls.
    written
        Number of rows by table, pending ones included.
    failed
        The error for which collected rows could not be written, after which the unit of work fails.
    transaction
        The transaction once one had to be opened; its owner commits or rolls back.
    flush
        Writes the pending rows of a buffer, in a transaction that is open to the end of its unit of
        work.
    is_transaction
        Whether the code that runs is told to be in a transaction.
    """

    allowed: frozenset[TableName]
    flush: Callable[[WriteBuffer], None]
    pending: list[EncodedRows] = field(default_factory=list[EncodedRows])
    written: dict[TableName, int] = field(default_factory=dict[TableName, int])
    bytes: int = 0
    failed: DataJointError | None = None
    transaction: ExitStack = field(default_factory=ExitStack)
    call: MakeCall | None = None
    is_transaction: bool = False

    def add(self, encoded: EncodedRows) -> None:
        """Collect rows."""
        if self.call is not None:
            self.call.check_rows(encoded)
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
        """Return the pending rows and forget them."""
        taken, self.pending = self.pending, []
        return taken
