"""Which tables the sensor watches: ours, those that their keys come from, and job queues."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dj_dagster.errors import MissingTableError
from dj_dagster.model.names import TableName
from dj_dagster.orchestration.node_keys import own_table
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.workflow.job_rows import queue_name
from dj_dagster.workflow.make import has_own_key_source
from dj_dagster.workflow.notes import Inputs
from dj_dagster.workflow.pending import source
from dj_dagster.workflow.populate import queue_of


class WatchedTables:
    """The tables of one database to watch, in an order in which parents come first.

    Attributes
    ----------
    names
        The tables.
    readers
        By table, those whose keys come from it.
    """

    def __init__(self, nodes: Iterable[TableNode]) -> None:
        found: dict[TableName, None] = {}
        self.readers: dict[TableName, list[TableNode]] = defaultdict(list)
        for node in nodes:
            for parent in sorted(_sources(node)):
                found[parent] = None
                self.readers[parent].append(node)
            found[node.name] = None
            if _has_queue(node):
                found[queue_name(node.name)] = None
        self.names = tuple(found)


@dataclass(frozen=True)
class Hanging:
    """A table whose rows become stale with those of another.

    Attributes
    ----------
    names
        ``{name in the other's key: name here}``; None where any row may be meant.
    """

    node: TableNode
    names: Mapping[str, str] | None


def hanging(nodes: Iterable[TableNode]) -> dict[TableName, list[Hanging]]:
    """Return the tables whose rows become stale with those of others, by these."""
    found: dict[TableName, list[Hanging]] = defaultdict(list)
    for node in (node for node in nodes if node.populated):
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            for name, names in Inputs(node.table, node.maker.key_names).tables():
                found[name].append(Hanging(node, names))
    return found


def renamed_from(reader: TableNode, parent: TableName) -> dict[str, str] | None:
    """Return ``{name in the parent: name here}`` of attributes that keys have from a parent.

    None where a new row of the parent may be followed by any key: with a key source of the user's,
    and where a table refers to the same parent twice, each of whose rows goes with all others.
    """
    table = own_table(reader)
    if table is None or has_own_key_source(table):
        return None
    try:
        foreign_keys = table.foreign_keys
    except MissingTableError:
        # The look at the table itself says that it is gone, under its own name.
        return None
    names = [
        {theirs: ours for ours, theirs in key.attributes.items()}
        for key in foreign_keys
        if key.primary and key.parent == parent
    ]
    return names[0] if len(names) == 1 else None


def _sources(node: TableNode) -> frozenset[TableName]:
    """Return the tables that the keys of a table come from."""
    if not node.populated:
        return frozenset()
    table = own_table(node)
    if table is not None:
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            return source(table).tables
    return frozenset(key.parent for key in node.table.foreign_keys)


def _has_queue(node: TableNode) -> bool:
    if not node.populated or not node.reservable:
        return False
    table = own_table(node)
    if table is None:
        return True
    with contextlib.suppress(Exception):
        return queue_of(table) is not None
    return False
