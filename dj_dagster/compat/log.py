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
    skip_logging
        Whether events are not recorded.

    Examples
    --------
    ::

        schema.log & "event LIKE 'Declared%'"
        schema.log("moved to the new server")
    """

    def __init__(self, connection: Connection, database: str, skip_logging: bool = False) -> None:
        super().__init__(connection, ensure_log(connection, database))
        self.skip_logging = skip_logging

    def __call__(self, event: str, skip_logging: bool | None = None) -> None:
        """Record an event, of which 255 characters are kept."""
        if not (self.skip_logging if skip_logging is None else skip_logging):
            log_event(self.connection, self.name.schema, event)
