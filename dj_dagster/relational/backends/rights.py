"""What a user may see and read of a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dj_dagster.model.names import TableName

READING = "SELECT"
EVERYTHING = "ALL PRIVILEGES"

_SHOWING = {READING, "INSERT", "UPDATE", "REFERENCES", EVERYTHING}
"""Privileges of a schema whose tables are shown with all their columns."""


@dataclass(frozen=True)
class Rights:
    """The privileges that were granted: what is not sure counts as not granted.

    Attributes
    ----------
    everywhere
        On all tables of the server.
    schemas
        On the schemas whose name matches.
    tables
        On single tables; on some of their columns only does not count.
    revoked
        By schema, what does not hold there although it does everywhere.
    """

    everywhere: frozenset[str] = frozenset()
    schemas: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = ()
    tables: Mapping[TableName, frozenset[str]] = field(
        default_factory=dict[TableName, frozenset[str]]
    )
    revoked: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @property
    def shows_schemas(self) -> bool:
        """Whether the names of all schemas are shown."""
        return bool(self.everywhere & {READING, "SHOW DATABASES", EVERYTHING}) and not self.revoked

    def shows_tables(self, schema: str) -> bool:
        """Whether all tables of a schema are shown, with all their columns."""
        return bool(self._of_schema(schema) & _SHOWING)

    def reads(self, name: TableName) -> bool:
        """Whether all rows of a table may be read, with all their columns."""
        granted = self._of_schema(name.schema) | self.tables.get(name, frozenset())
        return bool(granted & {READING, EVERYTHING})

    def _of_schema(self, schema: str) -> frozenset[str]:
        matching = [given for name, given in self.schemas if name.fullmatch(schema)]
        # Of several that match the server takes the one that it finds closest.
        own = frozenset[str].intersection(*matching) if matching else frozenset[str]()
        revoked = self.revoked.get(schema)
        if revoked is None:
            return self.everywhere | own
        return (frozenset() if EVERYTHING in revoked else self.everywhere - revoked) | own


ALL_RIGHTS = Rights(frozenset({EVERYTHING}))
