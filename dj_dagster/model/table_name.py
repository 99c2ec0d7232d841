"""The address of a table."""

from __future__ import annotations

from typing import NamedTuple


class TableName(NamedTuple):
    """A table's schema and its name in SQL, e.g. ``("lab", "__processed")``."""

    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"
