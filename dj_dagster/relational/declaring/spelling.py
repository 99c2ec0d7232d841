"""What definitions call the tables that they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dj_dagster.model.names import TableName, class_path, parse_table_name
from dj_dagster.relational.table_meta import TableMeta


class Spelling:
    """Spells tables for the definition of one of them.

    Parameters
    ----------
    table
        The table that refers to others; a part's master is spelled ``master``.
    names
        Where the definition would look names up: classes, modules and the like.
    """

    def __init__(self, table: TableName, names: Mapping[str, Any]) -> None:
        self._table = table
        self._names = names

    def __call__(self, parent: TableName) -> str:
        """Return the spelling of a parent: ``self``, ``master``, ``Session``, ``lab.Subject.Part``.

        A table of another schema that no name leads to is written as ``schema.Class``.
        """
        own = parse_table_name(self._table.table)
        if parent == self._table:
            return "self"
        if own is not None and parent == (self._table.schema, own.master):
            return "master"
        path = class_path(parent.table)
        if parent.schema == self._table.schema:
            return self._bare(parent) or path
        return self._bare(parent) or self._inside(parent, path) or f"{parent.schema}.{path}"

    def _bare(self, parent: TableName) -> str | None:
        return next((name for name, value in self._names.items() if _is(value, parent)), None)

    def _inside(self, parent: TableName, path: str) -> str | None:
        """Return the name of a module or the like in which the table is found."""
        for name, value in self._names.items():
            found: Any = value
            for step in path.split("."):
                found = getattr(found, "__dict__", {}).get(step)
            if _is(found, parent):
                return f"{name}.{path}"
        return None


def _is(value: object, table: TableName) -> bool:
    return (
        isinstance(value, TableMeta) and value._binding is not None and value._binding.name == table
    )
