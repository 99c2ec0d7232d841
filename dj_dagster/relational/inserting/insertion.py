"""The methods of tables by which rows come in and change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.lazy import is_data_frame
from dj_dagster.model.names import TableName, Tier
from dj_dagster.relational.algebra.condition import HasNode, query_node
from dj_dagster.relational.backends.insert_statement import InsertMode
from dj_dagster.relational.database import write
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.inserting.encode import RowEncoder
from dj_dagster.relational.inserting.insert_progress import InsertProgress
from dj_dagster.relational.inserting.insert_select import can_copy, copied_names, insert_select
from dj_dagster.relational.inserting.row_batch import Batch
from dj_dagster.relational.inserting.row_sources import batches
from dj_dagster.relational.inserting.staged_insert import StagedInsert
from dj_dagster.relational.inserting.update import update_row
from dj_dagster.relational.inserting.validation import ValidationResult, validate_rows
from dj_dagster.relational.looking_again import looks_again
from dj_dagster.relational.stored import StoredTable


class Insertion(QueryExpression):
    """A table that rows can be inserted into."""

    tier: ClassVar[Tier]

    @property
    def stored(self) -> StoredTable:
        """What the database holds of the table."""
        raise NotImplementedError

    @property
    def name(self) -> TableName:
        """The schema's and the table's name in SQL."""
        raise NotImplementedError

    @looks_again
    def insert1(
        self,
        row: Any,
        replace: bool = False,
        skip_duplicates: bool = False,
        ignore_extra_fields: bool = False,
        allow_direct_insert: bool | None = None,
    ) -> None:
        """Insert one row; see `insert`, which may be a method of the class's own."""
        own = type.__getattribute__(type(self), "insert") is not _INSERT
        if type(row) is dict and not ignore_extra_fields and not own:
            if not allow_direct_insert:
                self._check_direct_insert()
            encoder = RowEncoder(self.connection, self.stored, mode=_mode(replace, skip_duplicates))
            encoded = encoder.encode_plain(row)
            if encoded is not None:
                write.submit(self.connection, [encoded])
                return
        options = {
            "replace": replace,
            "skip_duplicates": skip_duplicates,
            "ignore_extra_fields": ignore_extra_fields,
            "allow_direct_insert": allow_direct_insert,
        }
        # A method of the class's own need not know those that are not given.
        self.insert([row], **{name: value for name, value in options.items() if value})

    @looks_again
    def insert(
        self,
        rows: Any,
        replace: bool = False,
        skip_duplicates: bool = False,
        ignore_extra_fields: bool = False,
        allow_direct_insert: bool | None = None,
        chunk_size: int | None = None,
        *,
        display_progress: bool | None = None,
    ) -> None:
        """Insert rows, all of them or none.

        All rows are checked before the first is written, and are written in their order. Inside a
        `make`, rows are checked at once and written together at its end.

        Parameters
        ----------
        rows
            An iterable of dicts, of sequences in the heading's order, or of numpy records; a pandas
            or polars frame, an arrow table; the path of a CSV file whose first line has the names;
            a query or table, whose rows the server copies by itself, matched by name.
        replace
            Whether a row replaces the one with the same key.
        skip_duplicates
            Whether a row with a key or unique value that exists is left out.
        ignore_extra_fields
            Whether names that the table does not have are left out.
        allow_direct_insert
            Whether a computed table may be inserted into outside its `make`.
        chunk_size
            Insert so many rows at a time, each chunk all or none: for more rows than memory holds.
            An error says how many rows are in.
        display_progress
            Whether to show a progress bar; by default on a terminal, once it takes 2 s.

        Raises
        ------
        QueryError
            One of its kinds, naming table, attribute and key; nothing has been written.

        Examples
        --------
        ::

            Subject.insert([{"subject_id": 1, "sex": "F"}, (2, "M")])
            Subject.insert("subjects.csv", skip_duplicates=True)
        """
        if not allow_direct_insert:
            self._check_direct_insert()
        stored = self.stored
        stored.check_table("insert into")
        write.check_writable(self.connection, stored.name)
        mode = _mode(replace, skip_duplicates)
        # A list is never a query, and asking a protocol takes longer than checking a row.
        if not isinstance(rows, list | tuple) and isinstance(rows, HasNode):
            if chunk_size is not None:
                raise QueryError(
                    "chunk_size is not supported for queries, whose rows the server copies: leave "
                    "it out, or insert query.to_dicts()."
                )
            rows = self._left_to_copy(rows, mode, ignore_extra_fields)
            if rows is None:
                return
        encoder = RowEncoder(
            self.connection, stored, mode=mode, ignore_extra_fields=ignore_extra_fields
        )
        with InsertProgress(str(stored.name), display_progress) as progress:
            if chunk_size is None:
                self._write(encoder, batches(rows, stored.heading), progress)
            else:
                self._write_chunks(encoder, rows, chunk_size, progress)

    def insert_dataframe(self, df: Any, index_as_pk: bool | None = None, **options: Any) -> None:
        """Insert a data frame, as `to_pandas` gives it.

        Parameters
        ----------
        index_as_pk
            Whether the index is the primary key, in whatever order of its levels; None takes it for
            that where it has names; False leaves it out.
        **options
            As for `insert`.

        Raises
        ------
        QueryError
            If `df` is no data frame, or the index was to be the key and is not.
        """
        if not is_data_frame(df):
            raise QueryError(f"insert_dataframe requires a pandas DataFrame, not {df!r}.")
        if index_as_pk and set(df.index.names) != set(self.primary_key):
            raise QueryError(
                f"The names of the index, {list(df.index.names)}, do not match the key of "
                f"{self.name}, {self.primary_key}: call df.set_index({self.primary_key}) first."
            )
        self.insert(df.reset_index(drop=True) if index_as_pk is False else df, **options)

    @property
    def staged_insert1(self) -> StagedInsert:
        """A block that writes one row's objects in place and inserts the row at its end.

        See `dj_dagster.relational.inserting.staged_insert.StagedInsert`.
        """
        return StagedInsert(self)

    @looks_again
    def update1(self, row: Mapping[str, Any]) -> None:
        """Give one existing row other values; None is the default, or null where it is allowed.

        Values that other tables were computed from are better deleted and inserted again, so that
        what depends on them goes too.

        Parameters
        ----------
        row
            The whole primary key, and the secondary attributes to change.

        Raises
        ------
        QueryError
            If the table is restricted, or no row has the key; one of its kinds for a name or value
            that does not fit.
        """
        if self._node is not None:
            raise QueryError(
                f"update1 finds its row by the key: call it on {self.name} without restriction."
            )
        self.stored.check_table("update")
        write.check_writable(self.connection, self.name)
        update_row(self.connection, self.stored, row)

    def validate(self, rows: Any, *, ignore_extra_fields: bool = False) -> ValidationResult:
        """Return all that is wrong with rows, without inserting any.

        Names, missing values, types, lengths and ranges are checked; whether a key is there
        already, and whether foreign keys find their row, only the database knows.

        Parameters
        ----------
        rows
            As for `insert`, queries excepted.
        """
        return validate_rows(
            self.connection, self.stored, rows, ignore_extra_fields=ignore_extra_fields
        )

    def _left_to_copy(self, query: Any, mode: InsertMode, ignore_extra_fields: bool) -> Any:
        """Copy a query's rows in the server, or return those that only we can convert."""
        node = query_node(query)
        names = copied_names(self.stored, node.heading, ignore_extra_fields=ignore_extra_fields)
        here = query.connection is self.connection
        if here and all(can_copy(self.connection, self.stored, node.heading, n) for n in names):
            insert_select(self.connection, self.stored, node, names, mode)
            return None
        return query.proj(*names) if set(names) != set(node.heading.names) else query

    def _write(self, encoder: RowEncoder, given: Iterator[Batch], progress: InsertProgress) -> int:
        encoded = encoder.encode(given)
        count = sum(rows.count for rows in encoded)
        progress.total = (progress.total or 0) + count
        write.submit(self.connection, encoded, progress.advance)
        return count

    def _write_chunks(
        self, encoder: RowEncoder, rows: Any, size: int, progress: InsertProgress
    ) -> None:
        if size < 1:
            raise QueryError(f"chunk_size={size!r} is no number of rows: write 1 or more.")
        done = 0
        try:
            for batch in batches(rows, self.heading, size):
                done += self._write(encoder, iter([batch]), progress)
        except DataJointError as error:
            if not done or self.connection.in_transaction or self.connection.write_buffer:
                raise
            raise type(error)(
                f"{error} The {done} rows of the chunks before are in the table."
            ) from error

    def _check_direct_insert(self) -> None:
        buffer = self.connection.write_buffer
        if self.tier in (Tier.IMPORTED, Tier.COMPUTED) and (
            buffer is None or self.name not in buffer.allowed
        ):
            raise DataJointError(
                f"{self.name} is {self.tier.name.lower()}: its rows come from its make(key), which "
                "populate() calls. Pass allow_direct_insert=True to insert all the same."
            )


_INSERT = vars(Insertion)["insert"]


def _mode(replace: bool, skip_duplicates: bool) -> InsertMode:
    if replace and skip_duplicates:
        raise QueryError("A row that exists is either replaced or skipped: pass one of the two.")
    return "replace" if replace else "skip" if skip_duplicates else "insert"
