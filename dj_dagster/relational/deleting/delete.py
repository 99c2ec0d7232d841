"""Deletion of rows together with all rows that depend on them."""

from __future__ import annotations

from typing import get_args

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, IntegrityError, QueryError
from dj_dagster.model.names import TableName
from dj_dagster.relational.algebra.nodes import All, Node, tables_of
from dj_dagster.relational.confirmation import Confirm, listed
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import cascade, hierarchy
from dj_dagster.relational.deleting.cascade import Doomed, PartIntegrity
from dj_dagster.relational.sql.lowering import Lowering


def delete_cascade(
    connection: Connection,
    node: Node,
    table: TableName,
    confirm: Confirm | None,
    part_integrity: PartIntegrity = "enforce",
) -> int:
    """Delete a query's rows and their dependents, children first, in one transaction.

    Parameters
    ----------
    node
        The rows to delete, of the table alone.
    confirm
        Called before the commit with a summary of the deleted rows; None to commit without asking.
    part_integrity
        The treatment of parts whose master is kept: the delete is refused, the parts are deleted
        alone, or their master is deleted too.

    Raises
    ------
    DataJointError
        If rows of a part table would be deleted without their master's. Nothing is deleted then.
    IntegrityError
        If rows of tables that this user cannot see refer to them. Nothing is deleted then.

    Returns
    -------
    int
        Number of rows deleted from `table` itself; 0 if the user declined.
    """
    _check_request(table, part_integrity)
    inside = connection.in_transaction or connection.write_buffer is not None
    if confirm is not None and inside:
        raise QueryError("delete cannot ask inside a transaction or make: pass prompt=False.")
    asked: set[str] = set()

    def delete() -> dict[TableName, int]:
        counts = _delete_all(connection, _doomed(connection, node, table, part_integrity))
        if part_integrity == "enforce":
            cascade.check_parts(counts)
        if confirm is not None and any(counts.values()):
            _ask(confirm, counts, asked)
        return counts

    try:
        return write.change(connection, delete).get(table, 0)
    except _DeclinedError:
        return 0


def dry_run(
    connection: Connection, node: Node, table: TableName, part_integrity: PartIntegrity = "enforce"
) -> dict[TableName, int]:
    """Return the number of rows of each table that `delete_cascade` would delete, parents first.

    Rows are not locked; tables without such rows are left out.

    Raises
    ------
    DataJointError
        If the delete would be refused because of parts without their masters.
    """
    _check_request(table, part_integrity)
    counts = cascade.counts(connection, _doomed(connection, node, table, part_integrity))
    if part_integrity == "enforce":
        cascade.check_parts(counts)
    return {name: count for name, count in counts.items() if count}


def delete_rows(connection: Connection, node: Node, table: TableName) -> int:
    """Delete a query's rows from one table and return their number.

    Raises
    ------
    IntegrityError
        If rows of other tables refer to them.
    """
    base, conditions = hierarchy.base_of(hierarchy.of_table(connection, node))
    if table in tables_of(All(conditions)):
        # MySQL refuses to delete from a table that the condition reads.
        base, conditions = hierarchy.base_of(hierarchy.fixed(connection, node))
    lowering = Lowering(connection.backend)
    target, over = lowering.target(base)
    where = [lowering.where(condition, over, base.heading) for condition in conditions]
    try:
        return connection.execute(sa.delete(target).where(*where))
    except IntegrityError as error:
        raise IntegrityError(
            f"Rows of {table} cannot be deleted while others refer to them: {error}. "
            "delete() takes along those of all tables that you can see; if it was delete() that "
            "failed, ask who may see the rest."
        ) from error


class _DeclinedError(DataJointError):
    """Raised when the user declines; it rolls back the transaction that it leaves."""


def _doomed(
    connection: Connection, node: Node, table: TableName, part_integrity: PartIntegrity
) -> Doomed:
    node = hierarchy.of_table(connection, node)
    return cascade.doomed_rows(connection, node, table, masters=part_integrity == "cascade")


def _delete_all(connection: Connection, doomed: Doomed) -> dict[TableName, int]:
    """Delete rows of several tables, given parents first; return the number for each."""
    return {
        name: sum(delete_rows(connection, rows, name) for rows in layers)
        for name, layers in reversed(doomed.items())
    }


def _ask(confirm: Confirm, counts: dict[TableName, int], asked: set[str]) -> None:
    """Ask for confirmation, unless the same question was answered before a repetition."""
    question = listed("Deleting", dict(reversed(counts.items())), empty=False)
    if question not in asked and not confirm(question):
        raise _DeclinedError
    asked.add(question)


def _check_request(table: TableName, part_integrity: PartIntegrity) -> None:
    if part_integrity not in get_args(PartIntegrity):
        raise ValueError(
            f"part_integrity is {part_integrity!r}: write 'enforce', 'ignore' or 'cascade'."
        )
    master = cascade.master_of(table)
    if master is not None and part_integrity == "enforce":
        raise DataJointError(
            f"{table} is a part of {master.table}: delete the rows of its master, which takes the "
            "parts along, or pass part_integrity='cascade' to delete the masters of these rows "
            "too, or 'ignore' to leave them without their parts."
        )
