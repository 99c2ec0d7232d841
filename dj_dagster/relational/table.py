"""Tables: queries over all rows of one table, which can be inserted into and deleted from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dj_dagster.errors import DataJointError, MissingTableError
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import Tier
from dj_dagster.model.table_name import TableName
from dj_dagster.relational import delete as deletion
from dj_dagster.relational import write
from dj_dagster.relational.algebra import Node, all_rows
from dj_dagster.relational.backends.base import InsertMode
from dj_dagster.relational.binding import Binding
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.encode import encode_rows
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table_meta import TableMeta


class Table(QueryExpression, metaclass=TableMeta):
    """A table of a schema; subclass a tier and decorate it with a `Schema` to declare one.

    All methods work on the class as well as on an instance.
    """

    definition: ClassVar[str] = ""
    tier: ClassVar[Tier]
    _binding: ClassVar[Binding | None] = None

    def __init__(self) -> None:
        if self._binding is None:
            raise DataJointError(
                f"The table {type(self).__name__} belongs to no schema yet. "
                "Decorate it: @schema above the class, with schema = dj.Schema('my_schema')."
            )
        self._bound = self._binding
        self._node = None

    @property
    def connection(self) -> Connection:
        """The connection of the table's schema."""
        return self._bound.connection

    @property
    def node(self) -> Node:
        """The query as plain data: all rows, or those that restrictions left."""
        if self._node is not None:
            return self._node
        return all_rows(self.name, self.stored.heading)

    @property
    def stored(self) -> StoredTable:
        """What the database holds of the table.

        Raises
        ------
        MissingTableError
            If the table has been dropped.
        """
        found = self.connection.catalog.find(self.name)
        if found is None:
            raise MissingTableError(
                f"The table {self.name} is not in {self.connection.url}. "
                "Import its module again to declare it."
            )
        return found

    @property
    def heading(self) -> Heading:
        """The attributes of the table."""
        return self.stored.heading

    @property
    def name(self) -> TableName:
        """The schema's and the table's name in SQL."""
        return self._bound.name

    @property
    def database(self) -> str:
        """The name of the schema."""
        return self.name.schema

    @property
    def table_name(self) -> str:
        """The table's name in SQL, with the prefix of its tier: ``"__processed"``."""
        return self.name.table

    @property
    def full_table_name(self) -> str:
        """Schema and table name in SQL."""
        return str(self.name)

    @property
    def class_name(self) -> str:
        """The name of the class; a part's comes after its master's: ``"Session.Trial"``."""
        return self._bound.class_name

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """The foreign keys of the table, as the database has them."""
        return self.stored.foreign_keys

    @property
    def is_restricted(self) -> bool:
        """Whether the query leaves out rows of the table."""
        return self._node is not None

    def parents(self) -> list[str]:
        """Return the full names of the tables that foreign keys refer to."""
        return list(dict.fromkeys(str(key.parent) for key in self.foreign_keys))

    def children(self) -> list[str]:
        """Return the full names of the tables whose foreign keys refer to this one."""
        tables = self.connection.catalog.related(self.database)
        return [
            str(table.name)
            for table in tables
            if any(key.parent == self.name for key in table.foreign_keys)
        ]

    @classmethod
    def parts(cls) -> list[type[Part]]:
        """Return the part tables that belong to this one."""
        return [
            value
            for value in vars(cls).values()
            if isinstance(value, TableMeta) and issubclass(value, Part)
        ]

    def insert1(self, row: Any, **options: Any) -> None:
        """Insert one row; see `insert`."""
        self.insert([row], **options)

    def insert(
        self,
        rows: Any,
        *,
        replace: bool = False,
        skip_duplicates: bool = False,
        ignore_extra_fields: bool = False,
        allow_direct_insert: bool = False,
    ) -> None:
        """Insert rows, all of them or none.

        Inside a `make`, rows are checked at once and written together at its end.

        Parameters
        ----------
        rows
            An iterable of dicts, sequences in the heading's order, or numpy records; a DataFrame;
            a query.
        replace
            Whether a row replaces the one with the same key.
        skip_duplicates
            Whether a row with a key or unique value that exists is left out.
        ignore_extra_fields
            Whether names that the table does not have are left out.
        allow_direct_insert
            Whether a computed table may be inserted into outside its `make`.

        Raises
        ------
        QueryError
            One of its kinds, naming table, attribute and key; nothing has been written.
        """
        if not allow_direct_insert:
            self._check_direct_insert()
        mode: InsertMode = "replace" if replace else "skip" if skip_duplicates else "insert"
        encoded = encode_rows(
            self.connection, self.stored, rows, mode=mode, ignore_extra_fields=ignore_extra_fields
        )
        write.submit(self.connection, encoded)

    def delete(
        self,
        *,
        prompt: bool | None = None,
        confirm: Callable[[str], bool] | None = None,
    ) -> int:
        """Delete the rows of the query with all that depend on them, in one transaction.

        Parameters
        ----------
        prompt
            Whether to ask before committing; the connection's safemode by default.
        confirm
            Asked instead of the terminal, with the counts as text.

        Returns
        -------
        int
            Number of rows deleted from this table itself.

        Raises
        ------
        DataJointError
            For a part table on its own, or when rows of a part would go without their master's.
        """
        ask = self.connection.safemode if prompt is None else prompt
        question = (confirm or deletion.ask_on_terminal) if ask else None
        return deletion.delete_cascade(self.connection, self.node, self.name, question)

    def delete_quick(self) -> int:
        """Delete the rows of the query alone; refused by the database if others depend on them."""
        with write.at_once(self.connection):
            return deletion.delete_rows(self.connection, self.node, self.name)

    def _check_direct_insert(self) -> None:
        buffer = self.connection.write_buffer
        if self.tier in (Tier.IMPORTED, Tier.COMPUTED) and (
            buffer is None or self.name not in buffer.allowed
        ):
            raise DataJointError(
                f"{self.name} is {self.tier.name.lower()}: its rows come from its make(key), which "
                "populate() calls. Pass allow_direct_insert=True to insert all the same."
            )


class Manual(Table):
    """A table whose rows people or instruments enter."""

    tier = Tier.MANUAL


class Lookup(Table):
    """A table of settings and vocabulary; `contents` are inserted when it is declared."""

    tier = Tier.LOOKUP
    contents: ClassVar[Any] = ()


class Part(Table):
    """A table whose rows belong to one row of its master, the class that it is written in."""

    tier = Tier.PART
    master: ClassVar[type[Table]]
