"""Tables: queries over all rows of one table, which can be inserted into and deleted from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

from dj_dagster.class_access import on_class
from dj_dagster.compat.connection import Adapter
from dj_dagster.compat.spellings import old_delete
from dj_dagster.errors import DataJointError, MissingTableError, QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName, Tier, class_path, parse_table_name
from dj_dagster.relational import relatives
from dj_dagster.relational.algebra.nodes import Node, all_rows
from dj_dagster.relational.confirmation import Confirm, question
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import alter as alteration
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.declaring import describe as describing
from dj_dagster.relational.declaring.describe import Spelling
from dj_dagster.relational.deleting.delete import PartIntegrity
from dj_dagster.relational.inserting.insertion import Insertion
from dj_dagster.relational.scope import calling_names
from dj_dagster.relational.stored import ForeignKey, StoredTable
from dj_dagster.relational.table_meta import Binding, TableMeta, undeclared


class Table(Insertion, metaclass=TableMeta):
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

    @property
    def connection(self) -> Connection:
        """The connection of the table's schema."""
        return self._bound.connection

    @property
    def adapter(self) -> Adapter:
        """The database's rules for names; see `dj_dagster.compat.connection.Adapter`."""
        return self.connection.adapter

    @property
    def external(self) -> Any:
        """DataJoint 0.14's objects of the schema, by store; see `Schema.external`."""
        schema = self.connection.schemas.get(self.database)
        if schema is None:
            raise DataJointError(
                f"The schema {self.database} has not been activated here: dj.Schema has it."
            )
        return schema.external

    @property
    def node(self) -> Node:
        """The query as plain data: all rows, or the restricted ones."""
        if self._node is not None:
            return self._node
        return all_rows(self.name, self.stored.heading)

    @property
    def stored(self) -> StoredTable:
        """The table as the database holds it.

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
    def is_declared(self) -> bool:
        """Whether the database has the table."""
        return self.connection.catalog.find(self.name) is not None

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
        """Schema and table name to write into SQL: ``"`lab`.`__processed`"``.

        On SQLite, where the schema is a part of the name, ``"`lab.__processed`"``, but for code of
        DataJoint 0.14; see `Connection.full_name`.
        """
        return self.connection.full_name(self.name)

    @property
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

    @classmethod
    def part_classes(cls) -> list[type[Part]]:
        """Return the classes of parts that are written in this one."""
        return [
            value
            for value in vars(cls).values()
            if isinstance(value, TableMeta) and issubclass(value, Part)
        ]

    @on_class
    @old_delete
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
        self._check_no_view("drop")
        asking = question(prompt, confirm, self.connection.safemode)
        declare.drop_table(self.connection, self.name, asking, part_integrity)

    @on_class
    def drop_quick(self) -> None:
        """Drop the table alone, without asking; refused if other tables refer to it."""
        self._check_whole("drop")
        self._check_no_view("drop")
        declare.drop_alone(self.connection, self.name)

    @on_class
    def alter(
        self,
        prompt: bool = True,
        context: Mapping[str, Any] | None = None,
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
        self._check_no_view("alter")
        if self._bound.plan is None:
            raise DataJointError(
                f"{self.name} has no definition to follow: only decorated classes can be altered."
            )
        asking = question(prompt, confirm, safemode=True)
        return alteration.alter_table(self.connection, self._bound.plan(context), asking)

    @on_class
    def describe(self, context: Mapping[str, Any] | None = None, printout: bool = False) -> str:
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
        text = describing.describe(self.connection, self.name, Spelling(self.name, names))
        if printout:
            print(text)
        return text

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

    def _check_no_view(self, doing: str) -> None:
        found = self.connection.catalog.find(self.name)
        if found is not None:
            found.check_table(doing)

    @on_class
    def parents(
        self,
        primary: bool | None = None,
        as_objects: bool = False,
        foreign_key_info: bool = False,
    ) -> list[Any]:
        """Return the tables that foreign keys refer to, one for each foreign key.

        Parameters
        ----------
        primary
            True: only foreign keys within the primary key. False: only the others.
        as_objects
            Whether tables are returned, not their names.
        foreign_key_info
            Whether each comes as a pair with a dict about its foreign key: ``primary``,
            ``attr_map`` as ``{child attribute: parent attribute}``, ``aliased`` for renamed ones,
            and ``multi`` where several rows may refer to one.
        """
        keys = relatives.parent_keys(self.connection, self.name, primary)
        return self._with_info([(key.parent, key) for key in keys], as_objects, foreign_key_info)

    @on_class
    def children(
        self,
        primary: bool | None = None,
        as_objects: bool = False,
        foreign_key_info: bool = False,
    ) -> list[Any]:
        """Return the tables whose foreign keys refer to this one; see `parents`."""
        keys = relatives.child_keys(self.connection, self.name, primary)
        return self._with_info([(key.child, key) for key in keys], as_objects, foreign_key_info)

    @on_class
    def ancestors(self, as_objects: bool = False) -> list[Any]:
        """Return this table and all tables that it refers to, directly or not, parents last."""
        return self._given(relatives.ancestors(self.connection, self.name), as_objects)

    @on_class
    def descendants(self, as_objects: bool = False) -> list[Any]:
        """Return this table and all tables that refer to it, directly or not, parents first."""
        return self._given(relatives.descendants(self.connection, self.name), as_objects)

    @on_class
    def parts(self, as_objects: bool = False) -> list[Any]:
        """Return the part tables that the database has of this one.

        The parts that the class declares are listed as classes by `part_classes`.
        """
        return self._given(relatives.part_names(self.connection, self.name), as_objects)

    def _with_info(
        self, found: Iterable[tuple[TableName, ForeignKey]], as_objects: bool, with_info: bool
    ) -> list[Any]:
        names, keys = zip(*found, strict=True) if (found := list(found)) else ((), ())
        given = self._given(names, as_objects)
        if not with_info:
            return given
        find = self.connection.catalog.find
        infos = [relatives.info(key, find(key.child)) for key in keys]
        return list(zip(given, infos, strict=True))

    def _given(self, names: Iterable[TableName], as_objects: bool) -> list[Any]:
        given = self._sibling if as_objects else self.connection.full_name
        return [given(name) for name in names]


class Manual(Table):
    """A table whose rows people or instruments enter."""

    tier = Tier.MANUAL
    tier_regexp = tier.pattern


class Lookup(Table):
    """A table of settings and vocabulary; `contents` are inserted when it is declared."""

    tier = Tier.LOOKUP
    tier_regexp = tier.pattern
    contents: ClassVar[Any] = ()


class Part(Table):
    """A table whose rows belong to one row of its master, the class that it is written in."""

    tier = Tier.PART
    tier_regexp = tier.pattern
    master: ClassVar[type[Table]]
