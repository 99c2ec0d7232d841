"""What ties a table class to its table."""

from __future__ import annotations

from dataclasses import dataclass

from dj_dagster.model.table_name import TableName
from dj_dagster.relational.connection import Connection


@dataclass(frozen=True, slots=True)
class Binding:
    """What a schema tells a table class about itself when it decorates it.

    Attributes
    ----------
    class_name
        As users write it in the schema's module: ``"Session"``, ``"Session.Trial"``.
    """

    connection: Connection
    name: TableName
    class_name: str
