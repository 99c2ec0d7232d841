"""What a table says of its relatives: parents, children, ancestors, descendants, parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dj_dagster.model.names import TableName
from dj_dagster.relational import relatives
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import ForeignKey


class RelatedTables:
    """The methods of a table that look at the tables around it, in all schemas.

    Tables are given by their full names, or with ``as_objects=True`` as tables to query. Hidden
    tables, such as job tables, are left out.
    """

    if TYPE_CHECKING:
        # Given by the table.
        @property
        def connection(self) -> Connection:
            """The connection of the table's schema."""
            ...

        @property
        def name(self) -> TableName:
            """The schema's and the table's name in SQL."""
            ...

        def _sibling(self, name: TableName) -> Any:
            """Return another table of the same database."""
            ...

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

    def children(
        self,
        primary: bool | None = None,
        as_objects: bool = False,
        foreign_key_info: bool = False,
    ) -> list[Any]:
        """Return the tables whose foreign keys refer to this one; see `parents`."""
        keys = relatives.child_keys(self.connection, self.name, primary)
        return self._with_info([(key.child, key) for key in keys], as_objects, foreign_key_info)

    def ancestors(self, as_objects: bool = False) -> list[Any]:
        """Return this table and all that it refers to, directly or not, parents last."""
        return self._given(relatives.ancestors(self.connection, self.name), as_objects)

    def descendants(self, as_objects: bool = False) -> list[Any]:
        """Return this table and all that refer to it, directly or not, parents first."""
        return self._given(relatives.descendants(self.connection, self.name), as_objects)

    def parts(self, as_objects: bool = False) -> list[Any]:
        """Return the part tables that the database has of this one.

        Those that the class declares, as classes, are its `part_classes`.
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
        given = self._sibling if as_objects else self.connection.backend.full_name
        return [given(name) for name in names]
