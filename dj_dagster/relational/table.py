"""Tables: queries over all rows of one table, which can be inserted into and deleted from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

from dj_dagster.class_access import on_class, property_on_class
from dj_dagster.compat import spellings
from dj_dagster.compat.spellings import Adapter
from dj_dagster.errors import DataJointError, MissingTableError, QueryError
from dj_dagster.model.heading import Heading, Value
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.relational import relatives
from dj_dagster.relational.algebra.nodes import Base, Node, Restricted, Topped
from dj_dagster.relational.algebra.operators import all_rows
from dj_dagster.relational.caller import Confirm, calling_names, question
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import alter as alteration
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.declaring.describe import Spelling, describe
from dj_dagster.relational.declaring.plan import PlannedTable
from dj_dagster.relational.deleting.delete import PartIntegrity
from dj_dagster.relational.expression import QueryExpression, looks_again
from dj_dagster.relational.inserting import insertion
from dj_dagster.relational.inserting.insertion import StagedInsert
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table_class import Binding, TableMeta, undeclared

Related = Any
"""A table's full name, or the table itself, or a pair of either with a `ForeignKeyInfo`."""


class Table(QueryExpression, metaclass=TableMeta):
    """A table of a schema; subclass a tier and decorate it with a `Schema` to declare one.

    All methods work on the class as well as on an instance.
    """

    definition: ClassVar[str] = ""
    tier: ClassVar[Tier]
    tier_regexp: ClassVar[str]
    """Matches the names in SQL of the tier's tables, in full."""

    _binding: ClassVar[Binding | None] = None

    def __init__(self) -> None:
        if self._binding is not None:
            self._bound = self._binding
        self._node = None

    @cached_property
    def _bound(self) -> Binding:
        """The link to the schema; resolved late if the class is used before its schema exists."""
        if self._binding is None:
            raise undeclared(type(self))
        return self._binding

    @property_on_class
    def connection(self) -> Connection:
        """The connection of the table's schema."""
        return self._bound.connection

    @property_on_class
    def adapter(self) -> Adapter:
        """The database's rules for names; see `dj_dagster.compat.spellings.Adapter`."""
        return self.connection.adapter

    external = property_on_class(spellings.external)

    @property
    def node(self) -> Node:
        """The query as plain data: all rows, or the restricted ones."""
        if self._node is not None:
            return self._node
        return all_rows(self.name, self.stored.heading)

    @property_on_class
    def stored(self) -> StoredTable:
        """The table as the database holds it.

        Raises
        ------
        MissingTableError
            If the table has been dropped, or was not created because of ``create_tables=False``.
        """
        found = self.connection.catalog.find_anew(self.name)
        if found is None:
            raise MissingTableError(
                f"The table {self.name} is not in {self.connection.url}. "
                "Import its module again to declare it, without create_tables=False."
            )
        return found

    @property_on_class
    def is_declared(self) -> bool:
        """Whether the database has the table."""
        return self.connection.catalog.find(self.name) is not None

    @property_on_class
    def heading(self) -> Heading:
        """The attributes of the table, or of a projection of it."""
        return self.stored.heading if self._node is None else self._node.heading

    @property_on_class
    def name(self) -> TableName:
        """The schema's and the table's name in SQL."""
        return self._bound.name

    @property_on_class
    def database(self) -> str:
        """The name of the schema."""
        return self.name.schema

    @property_on_class
    def table_name(self) -> str:
        """The table's name in SQL, with the prefix of its tier: ``"__processed"``."""
        return self.name.table

    @property_on_class
    def full_table_name(self) -> str:
        """Schema and table name to write into SQL: ``"`lab`.`__processed`"``.

        On SQLite, where the schema is a part of the name, ``"`lab.__processed`"``, but for code of
        DataJoint 0.14; see `Connection.full_name`.
        """
        return self.connection.full_name(self.name)

    @property_on_class
    def size_on_disk(self) -> int:
        """The size in bytes of the table and its indexes, without its objects in stores.

        On MySQL and MariaDB this is an estimate, which can be minutes old.

        Raises
        ------
        QueryError
            If SQLite was built without the virtual table ``dbstat``.
        """
        with self.connection.cursor() as session:
            return self.connection.backend.size_on_disk(session, [self.name])

    @property_on_class
    def class_name(self) -> str:
        """The name of the class; a part's comes after its master's: ``"Session.Trial"``."""
        return self._bound.class_name

    @property_on_class
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """The foreign keys of the table, as the database has them."""
        return self.stored.foreign_keys

    @property_on_class
    def is_restricted(self) -> bool:
        """Whether the query leaves out rows of the table, or has other attributes."""
        return self._node is not None

    @property
    def is_projection(self) -> bool:
        """Whether the query has other attributes than the table."""
        node = self._node
        while isinstance(node, Restricted | Topped):
            node = node.source
        return node is not None and not isinstance(node, Base)

    @classmethod
    def part_classes(cls) -> list[type[Part]]:
        """Return the classes of parts that are written in this one."""
        return [
            value
            for value in vars(cls).values()
            if isinstance(value, TableMeta) and issubclass(value, Part)
        ]

    @on_class
    @looks_again
    def insert1(
        self,
        row: object,
        replace: bool = False,
        skip_duplicates: bool = False,
        ignore_extra_fields: bool = False,
        allow_direct_insert: bool | None = None,
    ) -> None:
        """Insert one row; see `insert`, which may be a method of the class's own."""
        self._check_insertable()
        own = type.__getattribute__(type(self), "insert") is not _INSERT
        if type(row) is dict and not ignore_extra_fields and not own:
            if not allow_direct_insert:
                self._check_direct_insert()
            mode = insertion.insert_mode(replace, skip_duplicates)
            if insertion.insert_plain(self.connection, self.stored, row, mode):
                return
        options = {
            "replace": replace,
            "skip_duplicates": skip_duplicates,
            "ignore_extra_fields": ignore_extra_fields,
            "allow_direct_insert": allow_direct_insert,
        }
        # Options that are not given are left out, since a method of the class's own may lack them.
        self.insert([row], **{name: value for name, value in options.items() if value})

    @on_class
    @looks_again
    def insert(
        self,
        rows: object,
        replace: bool = False,
        skip_duplicates: bool = False,
        ignore_extra_fields: bool = False,
        allow_direct_insert: bool | None = None,
        chunk_size: int | None = None,
        *,
        display_progress: bool | None = None,
    ) -> None:
        """Insert all rows or none of them.

        All rows are checked before the first is written, and are written in their order. Inside a
        `make`, rows are checked at once and written together at its end.

        Parameters
        ----------
        rows
            An iterable of dicts, of sequences in the heading's order, or of numpy records; a pandas
            or polars frame, an arrow table; the path of a CSV file whose first line has the names;
            a query or table, whose rows the server copies, matched by name.
        replace
            Whether a row replaces the one with the same key, and others with which it shares the
            values of a unique index.
        skip_duplicates
            Whether a row with an existing key or unique value is left out.
        ignore_extra_fields
            Whether names that the table lacks are left out.
        allow_direct_insert
            Whether a computed table may be inserted into outside its `make`.
        chunk_size
            Number of rows to insert at a time, for more rows than memory holds. Each chunk is
            inserted as a whole or not at all; an error states how many rows have been inserted.
        display_progress
            Whether to show a progress bar; by default on a terminal, once it takes 2 s.

        Raises
        ------
        QueryError
            A subclass for a wrong name, value or key; the message names table, attribute and key.
            Nothing has been written then.

        Examples
        --------
        ::

            Subject.insert([{"subject_id": 1, "sex": "F"}, (2, "M")])
            Subject.insert("subjects.csv", skip_duplicates=True)
        """
        self._check_insertable()
        if not allow_direct_insert:
            self._check_direct_insert()
        insertion.insert_rows(
            self.connection,
            self.stored,
            rows,
            insertion.insert_mode(replace, skip_duplicates),
            ignore_extra_fields=ignore_extra_fields,
            chunk_size=chunk_size,
            display_progress=display_progress,
        )

    @on_class
    def insert_dataframe(self, df: object, index_as_pk: bool | None = None, **options: Any) -> None:
        """Insert a data frame, as `to_pandas` gives it.

        Parameters
        ----------
        index_as_pk
            True requires the index to be the primary key, with levels in any order; None takes its
            named levels as attributes; False leaves it out.
        **options
            As for `insert`.

        Raises
        ------
        QueryError
            If `df` is not a data frame, or the index is to be the key but does not match it.
        """
        frame = insertion.checked_frame(self.stored, df, index_as_pk)
        self.insert(frame, **options)

    @property_on_class
    def staged_insert1(self) -> StagedInsert:
        """A block that writes one row's objects in place and inserts the row at its end.

        See `dj_dagster.relational.inserting.insertion.StagedInsert`.
        """
        return StagedInsert(self)

    @on_class
    @looks_again
    def update1(self, row: Mapping[str, Value]) -> None:
        """Give one existing row other values; None is the default, or null where it is allowed.

        Rows that other tables were computed from are better deleted and inserted again, so that
        dependent rows are deleted too.

        Parameters
        ----------
        row
            The whole primary key, and the secondary attributes to change.

        Raises
        ------
        QueryError
            If the table is restricted, or no row has the key; a subclass for a name or value that
            does not fit.
        """
        if self._node is not None:
            raise QueryError(
                f"update1 finds its row by the key: call it on {self.name} without restriction."
            )
        self.stored.check_table("update")
        write.check_writable(self.connection, self.name)
        insertion.update_row(self.connection, self.stored, row)

    @on_class
    def validate(
        self, rows: object, *, ignore_extra_fields: bool = False
    ) -> insertion.ValidationResult:
        """Return all errors in rows, without inserting any.

        Names, missing values, types, lengths and ranges are checked. Existing keys and foreign keys
        are not checked, because only the database knows them.

        Parameters
        ----------
        rows
            As for `insert`, except queries.
        """
        return insertion.validate_rows(
            self.connection, self.stored, rows, ignore_extra_fields=ignore_extra_fields
        )

    @on_class
    @spellings.old_delete
    def drop(
        self,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
    ) -> None:
        """Drop the table with all tables that refer to it, directly or not.

        Parameters
        ----------
        prompt
            Whether to ask first; the connection's safemode by default.
        part_integrity
            ``"ignore"`` drops part tables without their masters, which is otherwise refused.
        confirm
            Called with the tables and their numbers of rows as text, instead of asking on the
            terminal.

        Raises
        ------
        DataJointError
            For a part table on its own, or when a part would go without its master.
        """
        self._check_whole("drop")
        asking = question(prompt, confirm, self.connection.safemode)
        declare.drop_table(self.connection, self.name, asking, part_integrity)

    @on_class
    def drop_quick(self) -> None:
        """Drop the table alone, without asking; refused if other tables refer to it."""
        self._check_whole("drop")
        declare.drop_alone(self.connection, self.name)

    @on_class
    def alter(
        self,
        prompt: bool = True,
        context: Mapping[str, object] | None = None,
        *,
        confirm: Confirm | None = None,
    ) -> bool:
        """Change the table to match its definition.

        Attributes outside the primary key can be added, dropped, changed and reordered; one whose
        comment begins with ``{old_name}`` is the attribute of that name, renamed. Foreign keys and
        indexes outside the key can be added and dropped, and the table's comment changes too.

        Parameters
        ----------
        prompt
            Whether to show the changes and ask first.
        context
            Names that the definition's foreign keys may refer to, besides the schema's.
        confirm
            Called with the changes as text, instead of asking on the terminal.

        Returns
        -------
        bool
            Whether anything was changed.

        Raises
        ------
        DefinitionError
            If the primary key would change, or the rows cannot follow. Nothing is changed then.
        """
        self._check_whole("alter")
        asking = question(prompt, confirm, safemode=True)
        return alteration.alter_table(self.connection, self._planned(context), asking)

    @on_class
    def declare(self, context: Mapping[str, object] | None = None) -> None:
        """Create the table again if it has been dropped; decorating its class has declared it.

        Parameters
        ----------
        context
            Names that the definition's foreign keys may refer to, besides the schema's.
        """
        if not self.is_declared:
            declare.create_table(self.connection, self._planned(context))

    def _planned(self, context: Mapping[str, object] | None) -> PlannedTable:
        if self._bound.plan is None:
            raise DataJointError(
                f"{self.name} has no definition to follow: only a decorated class has one."
            )
        return self._bound.plan(context)

    @on_class
    def describe(self, context: Mapping[str, object] | None = None, printout: bool = False) -> str:
        """Return the table's definition, rebuilt from the database.

        Parameters
        ----------
        context
            Names by which tables of other schemas can be referred to; by default those of the
            caller and of the class's module.
        printout
            Whether the definition is printed as well.
        """
        names = context
        if names is None:
            module = vars(sys.modules.get(type(self).__module__, object))
            names = {**module, **calling_names()}
        text = describe(self.connection, self.name, Spelling(self.name, names))
        if printout:
            print(text)
        return text

    def _check_insertable(self) -> None:
        if self._node is not None and self.is_projection:
            raise QueryError(
                f"This is a projection of {self.name}, whose attributes can have other names: "
                "insert into the table itself."
            )

    def _check_direct_insert(self) -> None:
        insertion.check_direct_insert(self.connection, self.name, self.tier)

    def _sibling(self, name: TableName) -> Table:
        parsed = parse_table_name(name.table)
        table = Table.__new__(Table)
        table.tier = parsed.tier if parsed else Tier.MANUAL  # pyright: ignore[reportAttributeAccessIssue]
        table._bound = Binding(self.connection, name, class_path(name.table))
        table._node = None
        return table

    def _check_whole(self, doing: str) -> None:
        if self.is_restricted:
            raise QueryError(f"{self.name} is restricted: {doing} takes the whole table.")
        found = self.connection.catalog.find(self.name)
        if found is not None:
            found.check_table(doing)

    @on_class
    def parents(
        self,
        primary: bool | None = None,
        as_objects: bool = False,
        foreign_key_info: bool = False,
    ) -> list[Related]:
        """Return the tables that foreign keys refer to, one for each foreign key.

        Parameters
        ----------
        primary
            True: only foreign keys within the primary key. False: only the others.
        as_objects
            Whether tables are returned, not their names.
        foreign_key_info
            Whether each comes in a pair with its foreign key, a `relatives.ForeignKeyInfo`.
        """
        keys = relatives.parent_keys(self.connection, self.name, primary)
        return self._with_info([(key.parent, key) for key in keys], as_objects, foreign_key_info)

    @on_class
    def children(
        self,
        primary: bool | None = None,
        as_objects: bool = False,
        foreign_key_info: bool = False,
    ) -> list[Related]:
        """Return the tables whose foreign keys refer to this one; see `parents`."""
        keys = relatives.child_keys(self.connection, self.name, primary)
        return self._with_info([(key.child, key) for key in keys], as_objects, foreign_key_info)

    @on_class
    def ancestors(self, as_objects: bool = False) -> list[Related]:
        """Return this table and all tables that it refers to, directly or not, parents last."""
        return self._given(relatives.ancestors(self.connection, self.name), as_objects)

    @on_class
    def descendants(self, as_objects: bool = False) -> list[Related]:
        """Return this table and all tables that refer to it, directly or not, parents first."""
        return self._given(relatives.descendants(self.connection, self.name), as_objects)

    @on_class
    def parts(self, as_objects: bool = False) -> list[Related]:
        """Return the part tables that the database has of this one.

        The parts that the class declares are listed as classes by `part_classes`.
        """
        return self._given(relatives.part_names(self.connection, self.name), as_objects)

    def _with_info(
        self, found: list[tuple[TableName, ForeignKey]], as_objects: bool, with_info: bool
    ) -> list[Related]:
        given = self._given([name for name, _ in found], as_objects)
        if not with_info:
            return given
        infos = [relatives.info(key, self.connection.catalog.find(key.child)) for _, key in found]
        return list(zip(given, infos, strict=True))

    def _given(self, names: Iterable[TableName], as_objects: bool) -> list[Related]:
        given = self._sibling if as_objects else self.connection.full_name
        return [given(name) for name in names]


_INSERT = vars(Table)["insert"]


class Manual(Table):
    """A table whose rows people or instruments enter."""

    tier = Tier.MANUAL
    tier_regexp = tier.pattern


class Lookup(Table):
    """A table of settings and vocabulary; `contents` are inserted when it is declared."""

    tier = Tier.LOOKUP
    tier_regexp = tier.pattern
    contents: ClassVar[Iterable[object]] = ()


class Part(Table):
    """A table whose rows belong to one row of its master, the class that it is written in."""

    tier = Tier.PART
    tier_regexp = tier.pattern
    master: ClassVar[type[Table]]
