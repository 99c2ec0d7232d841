"""Deleting what a query has: the methods, of tables and of queries that choose rows of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from dj_dagster.compat.spellings import old_delete
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.algebra import Node
from dj_dagster.relational.algebra.oversight import refuse_oversights
from dj_dagster.relational.asking import Confirm, question
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import delete as deletion
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.cascade import PartIntegrity


class Deletable:
    """The methods of a query that delete its rows from the table that they are of.

    A dict restricts by those of its names that the query has, here as everywhere in the model. One
    that names no attribute would restrict nothing: ``(Session & {"sesion_id": 1}).delete()`` is
    refused, as is a delete by an empty dict, or by a query without an attribute in common.
    """

    if TYPE_CHECKING:
        # Given by the query.
        @property
        def connection(self) -> Connection:
            """The connection that the query runs on."""
            ...

        @property
        def node(self) -> Node:
            """The query as plain data."""
            ...

    @overload
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: Literal[False] = False,
    ) -> int: ...

    @overload
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: Literal[True],
    ) -> dict[str, int]: ...

    @old_delete
    def delete(
        self,
        transaction: bool = True,
        prompt: bool | None = None,
        part_integrity: PartIntegrity = "enforce",
        *,
        confirm: Confirm | None = None,
        dry_run: bool = False,
    ) -> int | dict[str, int]:
        """Delete the rows of the query with all that depend on them, all of them or none.

        The query may choose, compute and restrict, as ``(Session.proj() & key).delete()`` does. One
        of several tables, or of groups of rows, is refused: write ``(Session & query).delete()``.
        A name in a dict that is not an attribute is passed over, as long as another one is.

        Parameters
        ----------
        transaction
            Taken for DataJoint's sake: a delete joins the transaction that is open, and is one of
            its own otherwise, whatever this says.
        prompt
            Whether to ask before committing; the connection's safemode by default.
        part_integrity
            When rows of a part would go without their master's: ``"enforce"`` refuses, ``"ignore"``
            deletes them, ``"cascade"`` deletes the masters of these rows too.
        confirm
            Asked instead of the terminal, with the counts as text.
        dry_run
            Whether to count only: nothing is locked or deleted.

        Returns
        -------
        int or dict
            Number of rows deleted from the table itself; in a dry run the number of rows by full
            table name, parents first.

        Raises
        ------
        DataJointError
            For a part table on its own, or when rows of a part would go without their master's.
        QueryError
            If the query is more than rows of one table, or a restriction names no attribute.
        """
        del transaction
        table = self._losing_rows()
        if dry_run:
            found = deletion.dry_run(self.connection, self.node, table, part_integrity)
            full_name = self.connection.backend.full_name
            return {full_name(name): count for name, count in found.items()}
        asking = question(prompt, confirm, self.connection.safemode)
        return deletion.delete_cascade(self.connection, self.node, table, asking, part_integrity)

    def delete_quick(self, get_count: bool = False) -> int:
        """Delete the rows of the query alone; refused by the database if others depend on them.

        Their number is returned, whether `get_count` asks for it or not.

        Raises
        ------
        QueryError
            If the query is more than rows of one table, or a restriction names no attribute.
        """
        del get_count
        table = self._losing_rows()
        return write.change(
            self.connection, lambda: deletion.delete_rows(self.connection, self.node, table)
        )

    def _losing_rows(self) -> TableName:
        table = hierarchy.table_of(self.node)
        found = self.connection.catalog.find(table)
        if found is not None:
            found.check_table("delete from")
        write.check_writable(self.connection, table)
        refuse_oversights(self.node, f"delete from {table}")
        return table
