"""The events of a schema of DataJoint 0.14 as a table: ``schema.log``."""

from __future__ import annotations

from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.old_log import ensure_log, log_event
from dj_dagster.relational.schemas.free_table import HiddenTable


class LogTable(HiddenTable):
    """The table ``~log`` of a schema of DataJoint 0.14.

    Parameters
    ----------
    connection
        The connection of the schema.
    database
        The schema's name; its log is created if it is missing.

    Examples
    --------
    ::

        schema.log & "event LIKE 'Declared%'"
        schema.log("moved to the new server")
    """

    def __init__(self, connection: Connection, database: str) -> None:
        super().__init__(connection, ensure_log(connection, database))

    def __call__(self, event: str, skip_logging: bool | None = None) -> None:
        """Record an event, of which 255 characters are kept."""
        if not skip_logging:
            log_event(self.connection, self.name.schema, event)
