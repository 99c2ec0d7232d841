"""Deletion of rows together with all rows that depend on them.

A child's rows that depend on ``Subject & {"subject_id": 1}`` are those with ``subject_id = 1``:
nested queries are not needed, so a cascade over many generations stays flat.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, IntegrityError, QueryError, counted
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName, parse_table_name
from dj_dagster.relational.algebra.nodes import (
    ALWAYS,
    All,
    AnyOf,
    Base,
    Condition,
    Equals,
    In,
    Matches,
    Negated,
    Node,
    SQLText,
)
from dj_dagster.relational.algebra.operators import all_rows, restrict, tables_of
from dj_dagster.relational.caller import Confirm, listed
from dj_dagster.relational.database import write
from dj_dagster.relational.database.catalog import dependency_graph
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.hierarchy import base_of, dependence, key_names
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.old_log import log_change
from dj_dagster.relational.sql.lowering import Lowering, restriction_texts
from dj_dagster.relational.stored import ForeignKey

PartIntegrity = Literal["enforce", "ignore", "cascade"]
FEW = 1000
"""Number of rows up to which rows are deleted by their keys, regardless of their restriction."""

Doomed = dict[TableName, list[Node]]
"""The rows to delete by table, parents before children.

A table has one query, or several in the order of deletion if its rows refer to each other.
"""


def doomed_rows(
    connection: Connection, node: Node, root: TableName, *, masters: bool = False
) -> Doomed:
    """Return a query's rows with all rows that depend on them.

    Parameters
    ----------
    node
        Rows of the table `root` alone.
    masters
        Whether the masters of all parts among them are deleted too, with the masters' dependents.
    """
    tables = _Tables.read(connection, root.schema)
    if masters or node.tables & {*tables.graph.descendants(root)}:
        # The restriction of the root reads rows that are deleted first.
        node = hierarchy.fixed(connection, node)
    elif not is_about_key(node):
        # The children find keys with an index; a query may be evaluated for each of their rows.
        node = hierarchy.fixed_if_few(connection, node, FEW)
    roots = {root: node}
    while True:
        doomed = _descend(connection, tables, roots)
        lacking = _lacking_masters(connection, tables, doomed) if masters else {}
        if not lacking:
            return doomed
        for master, keys in lacking.items():
            roots[master] = _either(roots[master], keys) if master in roots else keys


def cascade_counts(connection: Connection, node: Node, table: TableName) -> dict[TableName, int]:
    """Return the number of rows of each table that a delete would remove, parents first.

    Rows are neither locked nor changed: the counts are plain queries.

    Parameters
    ----------
    node
        The rows to delete, of `table` alone.
    """
    return row_counts(
        connection, doomed_rows(connection, hierarchy.of_table(connection, node), table)
    )


def row_counts(connection: Connection, doomed: Doomed) -> dict[TableName, int]:
    """Return the number of rows of each table."""
    return {
        name: sum(fetch.count(connection, rows) for rows in layers)
        for name, layers in doomed.items()
    }


def check_parts(found: Mapping[TableName, int]) -> None:
    """Refuse, given the number of rows by table, to delete parts without rows of their master.

    Raises
    ------
    DataJointError
        If that is the case; the message names part and master.
    """
    for name, count in found.items():
        master = master_of(name)
        if count and master is not None and not found.get(master):
            raise DataJointError(
                f"The delete would take {counted(count, 'row')} of the part {name} but none of "
                f"its master {master}. Delete from {master} first, or pass "
                "part_integrity='cascade' to take the masters along, or 'ignore' to leave "
                "them without their parts."
            )


def master_of(name: TableName) -> TableName | None:
    """Return the master of a part table, None for other tables."""
    parsed = parse_table_name(name.table)
    if parsed is None or parsed.master is None:
        return None
    return TableName(name.schema, parsed.master)


@dataclass(frozen=True, slots=True)
class _Tables:
    """The tables that a cascade can reach."""

    graph: DependencyGraph
    foreign_keys: Mapping[TableName, tuple[ForeignKey, ...]]

    @classmethod
    def read(cls, connection: Connection, schema: str) -> _Tables:
        tables = connection.catalog.related(schema, fresh=True)
        # The graph may contain parents in schemas that do not depend on the root's.
        incoming = defaultdict(tuple[ForeignKey, ...], {t.name: t.foreign_keys for t in tables})
        return cls(dependency_graph(tables), incoming)


def _descend(connection: Connection, tables: _Tables, roots: Mapping[TableName, Node]) -> Doomed:
    doomed: Doomed = {}
    known: dict[object, Condition] = {}

    def dependence(parent: Node, foreign_key: ForeignKey) -> Condition:
        # Equal conditions are one object, so that a table is not queried twice by the same one.
        meaning = (foreign_key.parent, tuple(foreign_key.attributes.items()))
        return known.setdefault(meaning, narrowed(parent, foreign_key))

    for name in tables.graph.topological_order():
        incoming = tables.foreign_keys[name]
        rows = _dependents(connection, name, incoming, doomed, dependence)
        if name in roots:
            rows = _either(roots[name], rows) if rows is not None else roots[name]
        own = [foreign_key for foreign_key in incoming if foreign_key.parent == name]
        if rows is not None:
            doomed[name] = hierarchy.layers(connection, rows, own) if own else [rows]
    tables.graph.check_acyclic(doomed)
    return doomed


def _dependents(
    connection: Connection,
    name: TableName,
    foreign_keys: Iterable[ForeignKey],
    doomed: Doomed,
    dependence: Callable[[Node, ForeignKey], Condition],
) -> Node | None:
    """Return the rows of a table that depend on rows to be deleted, None without such parents."""
    choices: list[list[Condition]] = []
    for foreign_key in foreign_keys:
        layers = doomed.get(foreign_key.parent)
        if layers:
            parent = _together(layers)
            complete = isinstance(parent, Base) and not foreign_key.nullable
            flat: list[Condition] | None = [ALWAYS] if complete else carried(parent, foreign_key)
            choices.append(flat or [dependence(parent, foreign_key)])
    stored = connection.catalog.find(name) if choices else None
    if stored is None:
        return None
    return restrict(
        all_rows(name, stored.heading), ALWAYS if [ALWAYS] in choices else any_of(choices)
    )


def _together(layers: Sequence[Node]) -> Node:
    return hierarchy.together(layers) if len(layers) > 1 else layers[0]


def _either(one: Node, other: Node) -> Node:
    """Return the rows of one table that are in either of two queries."""
    base, first = hierarchy.base_of(one)
    _, second = hierarchy.base_of(other)
    return restrict(base, AnyOf((All(first), All(second)))) if first and second else base


def _lacking_masters(
    connection: Connection, tables: _Tables, doomed: Doomed
) -> dict[TableName, Node]:
    """Return, by their keys, the rows of masters that lose parts but are not deleted yet."""
    lacking: dict[TableName, Node] = {}
    for part, layers in doomed.items():
        master = master_of(part)
        path = _path(tables, part, master) if master is not None else None
        if master is None or path is None or not layers:
            continue
        rows = _together(layers)
        for foreign_key in path:
            rows = _referred(connection, rows, foreign_key)
        if doomed.get(master):
            key = tuple(hierarchy.key_names(rows))
            rows = restrict(rows, Negated(Matches(key, _together(doomed[master]))))
        found = hierarchy.fixed(connection, rows)
        if _has_keys(found):
            lacking[master] = _either(lacking[master], found) if master in lacking else found
    return lacking


def _path(tables: _Tables, part: TableName, master: TableName) -> list[ForeignKey] | None:
    """Return the foreign keys on a path from a part to its master, perhaps through other parts."""
    paths: list[list[ForeignKey]] = [[]]
    seen = {part}
    for path in paths:
        here = path[-1].parent if path else part
        for foreign_key in tables.foreign_keys[here]:
            if foreign_key.parent == master:
                return [*path, foreign_key]
            if foreign_key.parent not in seen and master_of(foreign_key.parent) == master:
                seen.add(foreign_key.parent)
                paths.append([*path, foreign_key])
    return None


def _referred(connection: Connection, child: Node, foreign_key: ForeignKey) -> Node:
    """Return the rows of a parent that a child's rows refer to."""
    stored = connection.catalog.find(foreign_key.parent)
    if stored is None:
        raise DataJointError(f"The table {foreign_key.parent} cannot be seen or is gone.")
    parent = all_rows(foreign_key.parent, stored.heading)
    return restrict(parent, hierarchy.reference(child, foreign_key))


def _has_keys(node: Node) -> bool:
    conditions = hierarchy.base_of(node)[1]
    return any(isinstance(condition, In) and condition.values for condition in conditions)


def carried(parent: Node, foreign_key: ForeignKey) -> list[Condition] | None:
    """Return the conditions that select the child's rows that refer to rows of a parent.

    None without conditions on the parent, if they use attributes that the child does not inherit,
    or if the foreign key may be null, because a child without a parent could satisfy them.
    """
    moved = _all_moved(parent, foreign_key)
    told = [condition for condition in moved if condition is not None]
    return told if told and len(told) == len(moved) and not foreign_key.nullable else None


def is_about_key(node: Node) -> bool:
    """Whether the conditions on a table's rows are on its primary key alone."""
    key = {name: name for name in key_names(node)}
    conditions = base_of(node)[1]
    return all(_moved(condition, key, node.heading) is not None for condition in conditions)


def narrowed(parent: Node, foreign_key: ForeignKey) -> Condition:
    """Return the condition under which a child's row refers to rows of its parent.

    It includes the conditions on inherited attributes, so that a server need not scan the whole
    table and look up each row's parent.
    """
    matches = dependence(parent, foreign_key)
    told = [condition for condition in _all_moved(parent, foreign_key) if condition is not None]
    return All((*told, matches)) if told else matches


def any_of(choices: list[list[Condition]]) -> Condition:
    """Return the condition that all conditions of at least one list hold, each list taken once."""
    single: dict[int, Condition] = {}
    for choice in choices:
        whole = choice[0] if len(choice) == 1 else All(tuple(choice))
        parts = whole.conditions if isinstance(whole, AnyOf) else (whole,)
        single |= {id(part): part for part in parts}
    conditions = tuple(single.values())
    return conditions[0] if len(conditions) == 1 else AnyOf(conditions)


def _all_moved(parent: Node, foreign_key: ForeignKey) -> list[Condition | None]:
    inherited = {old: new for new, old in foreign_key.attributes.items()}
    conditions = base_of(parent)[1]
    return [_moved(condition, inherited, parent.heading) for condition in conditions]


def _moved(
    condition: Condition, inherited: Mapping[str, str], heading: Heading
) -> Condition | None:
    """Return a condition under the child's attribute names, None if it cannot be expressed.

    If the names are the same, the identical object is returned, so that it can be recognised.
    """
    match condition:
        case Equals(name, value) if value is not None and name in inherited:
            return condition if inherited[name] == name else Equals(inherited[name], value)
        case In(names, values) if all(name in inherited for name in names):
            if all(inherited[name] == name for name in names):
                return condition
            return In(tuple(inherited[name] for name in names), values)
        case Matches(names) if names and all(inherited.get(name) == name for name in names):
            return condition
        case SQLText(text) if _is_about(text, inherited, heading):
            return condition
        case Negated(negated):
            moved_part = _moved(negated, inherited, heading)
            if moved_part is negated:
                return condition
            return None if moved_part is None else Negated(moved_part)
        case AnyOf(conditions) | All(conditions) if conditions:
            moved = [_moved(part, inherited, heading) for part in conditions]
            if all(new is old for new, old in zip(moved, conditions, strict=True)):
                return condition
            known = tuple(part for part in moved if part is not None)
            return type(condition)(known) if len(known) == len(moved) else None
        case _:
            return None


def _is_about(text: str, inherited: Mapping[str, str], heading: Heading) -> bool:
    """Whether the child inherits all of the parent's attributes in SQL under the same names."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    return all(inherited.get(name) == name for name in heading.all_attributes if name in words)


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
    inside = connection.holds_transaction or connection.write_buffer is not None
    if confirm is not None and inside:
        raise QueryError("delete cannot ask inside a transaction or make: pass prompt=False.")
    asked: set[str] = set()

    def delete() -> dict[TableName, int]:
        counts = _delete_all(connection, _doomed(connection, node, table, part_integrity))
        if part_integrity == "enforce":
            check_parts(counts)
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
    counts = row_counts(connection, _doomed(connection, node, table, part_integrity))
    if part_integrity == "enforce":
        check_parts(counts)
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
        deleted = connection.execute(sa.delete(target).where(*where))
    except IntegrityError as error:
        raise IntegrityError(
            f"Rows of {table} cannot be deleted while others refer to them: {error}. "
            "delete() takes along those of all tables that you can see; if it was delete() that "
            "failed, ask who may see the rest."
        ) from error

    def chosen() -> str:
        texts = restriction_texts(connection, node)
        return f" WHERE{'AND'.join(texts)}" if texts else ""

    log_change(connection, "DELETE FROM", table, chosen)
    return deleted


class _DeclinedError(DataJointError):
    """Raised when the user declines; it rolls back the transaction that it leaves."""


def _doomed(
    connection: Connection, node: Node, table: TableName, part_integrity: PartIntegrity
) -> Doomed:
    node = hierarchy.of_table(connection, node)
    return doomed_rows(connection, node, table, masters=part_integrity == "cascade")


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
    master = master_of(table)
    if master is not None and part_integrity == "enforce":
        raise DataJointError(
            f"{table} is a part of {master.table}: delete the rows of its master, which takes the "
            "parts along, or pass part_integrity='cascade' to delete the masters of these rows "
            "too, or 'ignore' to leave them without their parts."
        )
