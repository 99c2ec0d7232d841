"""Provenance of rows as DataJoint 2.3 notes it, and the version of the code that computes.

Users do not pass ``_prov`` to `insert`. It holds the time, the setting ``provenance.source``, the
connected user, the version of the code and, inside a `make`, its table and key.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from getpass import getuser

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.heading import Value
from dj_dagster.model.job_settings import PROVENANCE, JobSettings
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import StoredTable


def record(connection: Connection, table: StoredTable) -> str | None:
    """Return the value of ``_prov`` for a table's new rows, None where nothing is noted."""
    if PROVENANCE.name not in table.heading.all_attributes or not connection.provenance.capture:
        return None
    noted: dict[str, object] = {"time": datetime.now(UTC).isoformat(), "agent": _agent(connection)}
    if version := job_version(connection.job_settings):
        noted["version"] = version
    if source := connection.provenance.source:
        noted["source"] = dict(source)
    buffer = connection.write_buffer
    if buffer is not None and buffer.call is not None:
        noted["context"] = _context(connection, buffer.call.table, buffer.call.key, version)
    return json.dumps(noted, default=str)


def _agent(connection: Connection) -> dict[str, str]:
    url = connection.engine.url
    if url.host is None:
        return {"user": getuser(), "host": platform.node()}
    return {"user": url.username or "", "host": url.host}


def _context(
    connection: Connection, table: TableName, key: Mapping[str, Value], version: str
) -> Mapping[str, object]:
    shown = {name: _plain(value) for name, value in key.items()}
    context = {"table": connection.backend.full_name(table), "key": shown}
    return context | ({"version": version} if version else {})


def _plain(value: Value) -> Value:
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


def job_version(settings: JobSettings) -> str:
    """Return the version that jobs and rows are marked with, ``""`` for none.

    With ``"git"`` it is the short hash of the commit that is checked out in the working directory.

    Raises
    ------
    ConfigurationError
        If the setting `version_method` is not a known one.
    """
    if settings.version_method in (None, "none"):
        return ""
    if settings.version_method != "git":
        raise ConfigurationError(
            f"jobs.version_method is {settings.version_method!r}: write 'git', 'none' or None."
        )
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()[:64] if found.returncode == 0 else ""
