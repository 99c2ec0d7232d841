"""What was last read of a database's tables, in a file: locations come up without the server.

Only table definitions are kept, no rows and no passwords.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dj_dagster.model.declaration import Default
from dj_dagster.model.names import TableName
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn

FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchemaState:
    """One schema: its tables in order of their creation, and the definitions of those shown."""

    tables: tuple[RawTable, ...]
    definitions: Mapping[str, str]


def default_path(url: str) -> Path:
    """Return where the state of a database is kept: under DAGSTER_HOME, or in ``.dagster``.

    Parameters
    ----------
    url
        Of the database, its password left out.
    """
    name = hashlib.sha256(url.encode()).hexdigest()[:12]
    home = os.environ.get("DAGSTER_HOME") or ".dagster"
    return Path(home) / "dj_dagster" / f"tables-{name}.json"


def save(path: Path, schemas: Mapping[str, SchemaState]) -> None:
    """Write the state where it differs from what is there; a folder that cannot be written warns.

    Readers see the old file or the new one, never half of it.
    """
    shown = {name: _plain(state) for name, state in schemas.items()}
    text = json.dumps({"format": FORMAT, "schemas": shown}, indent=1)
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        logger.warning("The tables' definitions cannot be kept in %s: %s", path, error)


def load(path: Path) -> dict[str, SchemaState]:
    """Return the state that was saved, empty where there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            return {}
        return {name: _state(plain) for name, plain in found["schemas"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("The tables' definitions in %s cannot be read: %s", path, error)
        return {}


def _plain(state: SchemaState) -> dict[str, Any]:
    tables = [asdict(table) for table in state.tables]
    return {"tables": tables, "definitions": dict(state.definitions)}


def _state(plain: dict[str, Any]) -> SchemaState:
    return SchemaState(tuple(map(_table, plain["tables"])), plain["definitions"])


def _table(plain: dict[str, Any]) -> RawTable:
    return RawTable(
        name=TableName(*plain["name"]),
        comment=plain["comment"],
        columns=tuple(map(_column, plain["columns"])),
        primary_key=tuple(plain["primary_key"]),
        foreign_keys=tuple(map(_foreign_key, plain["foreign_keys"])),
        unique=tuple(map(tuple, plain["unique"])),
        external=plain["external"],
    )


def _column(plain: dict[str, Any]) -> StoredColumn:
    default = plain["default"]
    typed: dict[str, Any] = {"default": Default(**default) if default else None}
    return StoredColumn(**(plain | typed))


def _foreign_key(plain: dict[str, Any]) -> ForeignKey:
    ends: dict[str, Any] = {end: TableName(*plain[end]) for end in ("child", "parent")}
    return ForeignKey(**(plain | ends))
