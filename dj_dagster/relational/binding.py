"""What ties a table class to its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.plan import PlannedTable


@dataclass(frozen=True, slots=True)
class Binding:
    """What a schema tells a table class about itself when it decorates it.

    Attributes
    ----------
    class_name
        As users write it in the schema's module: ``"Session"``, ``"Session.Trial"``.
    plan
        Returns the table that the definition asks for, given names that count before those of the
        schema; None where there is no definition.
    """

    connection: Connection
    name: TableName
    class_name: str
    plan: Callable[[Mapping[str, Any] | None], PlannedTable] | None = None
