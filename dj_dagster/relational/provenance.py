"""Where entered rows came from, as DataJoint 2.3 notes it in the hidden attribute ``_prov``.

Nobody passes it to `insert`: it consists of the setting ``provenance.source``, of who is connected,
and, inside a `make`, of its table and key.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from getpass import getuser
from typing import Any

from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.version import code_version


def record(connection: Connection, table: StoredTable) -> str | None:
    """Return what a table's new rows have in ``_prov``, None where nothing is noted."""
    if PROVENANCE.name not in table.heading.all_attributes or not connection.provenance.capture:
        return None
    noted: dict[str, Any] = {"time": datetime.now(UTC).isoformat(), "agent": _agent(connection)}
    if version := code_version(connection.job_settings):
        noted["version"] = version
    if source := connection.provenance.source:
        noted["source"] = dict(source)
    buffer = connection.write_buffer
    if buffer is not None and buffer.making is not None:
        noted["context"] = _context(connection, buffer.making.table, buffer.making.key, version)
    return json.dumps(noted, default=str)


def _agent(connection: Connection) -> dict[str, str]:
    url = connection.engine.url
    if url.host is None:
        return {"user": getuser(), "host": platform.node()}
    return {"user": url.username or "", "host": url.host}


def _context(
    connection: Connection, table: TableName, key: Mapping[str, Any], version: str
) -> dict[str, Any]:
    shown = {name: _plain(value) for name, value in key.items()}
    context = {"table": connection.backend.full_name(table), "key": shown}
    return context | ({"version": version} if version else {})


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)
