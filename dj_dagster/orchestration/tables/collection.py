"""The tables of a code location: with classes, found on a server, or last read into a file.

The file keeps only table definitions, neither rows nor passwords.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dj_dagster.default_connection import conn
from dj_dagster.errors import ConfigurationError, ConnectionFailedError, MissingTableError
from dj_dagster.model.heading import Default
from dj_dagster.model.names import TableName, title
from dj_dagster.orchestration.tables.table_node import (
    TableSource,
    asset_key,
    described,
    distinct,
    of_classes,
    of_name,
    of_schema,
    with_masters,
)
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.module_classes import own_classes
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn

SchemaLike = Schema | ModuleType | str | Any
"""A schema, a module with one called ``schema`` or with classes, a pattern, or one of DataJoint."""


FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchemaState:
    """One schema: its tables in order of their creation, and the definitions of the shown ones."""

    tables: tuple[RawTable, ...]
    definitions: Mapping[str, str]


States = Mapping[str, SchemaState]


def collect(
    schemas: SchemaLike | Iterable[SchemaLike],
    *,
    connection: Connection | None = None,
    state_path: Path | None = None,
) -> list[TableSource]:
    """Return the tables of some schemas.

    Parameters
    ----------
    schemas
        See `build_definitions`. Tables with a given class use that class; patterns add the others.
    connection
        The connection for patterns; the default connection if None.
    state_path
        The file that keeps the tables found by patterns, see `default_path`.

    Raises
    ------
    ConfigurationError
        When no schema is given, one is given twice, a pattern does not fit any schema, or something
        else was given.
    ConnectionFailedError
        When the database cannot be reached, and the file does not have its tables either.
    """
    given: Any = schemas
    listed: list[SchemaLike] = [given] if _is_single(given) else list(given)
    if not listed:
        raise ConfigurationError("No schema is given in schemas: name one, or write '*' for all.")
    patterns = [each for each in listed if isinstance(each, str)]
    others = [each for each in listed if not isinstance(each, str)]
    sources = distinct(source for each in others for source in _of(each))
    if patterns:
        sources += _of_patterns(patterns, connection or conn(), state_path, sources)
    return with_masters(_readable(sources))


def apart(sources: Sequence[TableSource]) -> list[TableSource]:
    """Return tables with distinct asset keys: of several with one key the last, with a warning.

    Tables share an asset key if their names differ only in the tier, as after a new declaration
    with another tier.
    """
    last = {asset_key(source.name): source for source in sources}
    for source in sources:
        kept = last[asset_key(source.name)]
        if kept.name != source.name:
            warnings.warn(
                f"The tables {source.name} and {kept.name} are both {title(kept.name)} in "
                f"Dagster: {source.name} is left out. Drop the one that is out of use, or give "
                f"exclude=['{kept.name}'] to see the other.",
                stacklevel=3,
            )
    kept_names = {source.name for source in last.values()}
    return with_masters(source for source in sources if source.name in kept_names)


def _readable(sources: Iterable[TableSource]) -> list[TableSource]:
    """Leave out the tables that the database does not have, and their parts, with a warning."""
    found, missing = list[TableSource](), set[TableName]()
    for source in sources:
        try:
            _ = source.table.heading
        except MissingTableError as error:
            missing.add(source.name)
            warnings.warn(f"{title(source.name)} is left out: {error}", stacklevel=4)
        else:
            found.append(source)
    return [source for source in found if source.master not in missing]


def of_database(connection: Connection, schema: str) -> list[TableSource]:
    """Return the tables that a schema has in the database now, as tables without a class."""
    connection.catalog.forget(schema)
    names = connection.catalog.names(schema)
    return with_masters(
        of_name(connection, name, "") for name in names if not name.table.startswith("~")
    )


def _is_single(schemas: object) -> bool:
    # Schemas, ours and DataJoint's, are iterable too, as are tables that are given by mistake.
    known = isinstance(schemas, str | Schema | ModuleType | type) or _is_datajoint(schemas)
    return known or hasattr(schemas, "heading") or not isinstance(schemas, Iterable)


def _of(given: object) -> list[TableSource]:
    schema = getattr(given, "schema", None) if isinstance(given, ModuleType) else given
    if isinstance(schema, Schema):
        return of_schema(schema)
    if _is_datajoint(schema):
        return import_module("dj_dagster.orchestration.tables.datajoint_tables").of_schema(schema)
    classes = own_classes(given) if isinstance(given, ModuleType) else []
    if classes:
        return of_classes(classes)
    # The display of a table would be its rows.
    is_rows = hasattr(given, "heading") and not isinstance(given, type)
    shown = f"A {type(given).__name__}" if is_rows else repr(given)
    raise ConfigurationError(
        f"{shown} is not a schema: give a dj.Schema, a module that has one called 'schema' or "
        "has table classes, or a pattern of schema names such as 'lab_*'"
    )


def module_named(name: str) -> ModuleType:
    """Import a module.

    Raises
    ------
    ConfigurationError
        If the module does not exist; errors inside it are raised as they are.
    """
    if not all(name.split(".")) or "/" in name:
        raise ConfigurationError(
            f"{name!r} is not the name of a Python module: write my_lab.tables for the file "
            "my_lab/tables.py."
        )
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        stem = name.removesuffix(".py")
        advice = f" Write the name without .py: {stem}." if stem != name else ""
        raise ConfigurationError(f"There is no Python module {name!r}: {error}.{advice}") from None


def _is_datajoint(given: object) -> bool:
    kinds = {(cls.__module__.split(".")[0], cls.__name__) for cls in type(given).__mro__}
    return not kinds.isdisjoint((("datajoint", "Schema"), ("datajoint", "_Schema")))


def _of_patterns(
    patterns: Sequence[str],
    connection: Connection,
    state_path: Path | None,
    present: Iterable[TableSource],
) -> list[TableSource]:
    path = state_path or default_path(connection.url)
    reading = _Reading(connection, patterns)
    try:
        states = reading.read()
        save_states(path, states)
    except ConnectionFailedError as error:
        states = load_states(path)
        if not states:
            raise
        logger.warning("%s Its tables are shown as they were last read.", error)
        for schema, state in states.items():
            connection.catalog.load(schema, state.tables)
    taken = {source.name for source in present}
    chosen = reading.matching(states)
    return [
        of_name(connection, TableName(schema, table), text)
        for schema in chosen
        for table, text in states[schema].definitions.items()
        if TableName(schema, table) not in taken
    ]


@dataclass(frozen=True)
class _Reading:
    connection: Connection
    patterns: Sequence[str]

    def read(self) -> dict[str, SchemaState]:
        """Read the matching schemas, and those that their tables refer to."""
        catalog = self.connection.catalog
        chosen = self.matching(self.connection.schema_names())
        wanted, states = list(chosen), dict[str, SchemaState]()
        while wanted:
            schema = wanted.pop(0)
            catalog.forget(schema)
            names = catalog.names(schema)
            tables = tuple(raw for name in names if (raw := catalog.raw(name)) is not None)
            shown = [name for name in names if not name.table.startswith("~")]
            texts = described(self.connection, shown) if schema in chosen else {}
            states[schema] = SchemaState(tables, {name.table: text for name, text in texts.items()})
            parents = (key.parent.schema for table in tables for key in table.foreign_keys)
            wanted += [each for each in dict.fromkeys(parents) if each not in (*states, *wanted)]
        return states

    def matching(self, names: Iterable[str]) -> list[str]:
        """Return the names that fit a pattern, in their order."""
        names = sorted(names)
        for pattern in self.patterns:
            # The pattern for everything may also be used on an empty database.
            if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigurationError(
                    f"No schema has a name like {pattern!r}; there are "
                    f"{', '.join(names) or 'none'}."
                )
        return [name for name in names if any(fnmatchcase(name, p) for p in self.patterns)]


def default_path(url: str) -> Path:
    """Return the file for the state of a database, under DAGSTER_HOME or in ``.dagster``.

    Parameters
    ----------
    url
        The URL of the database without its password.
    """
    name = hashlib.sha256(url.encode()).hexdigest()[:12]
    home = os.environ.get("DAGSTER_HOME") or ".dagster"
    return Path(home) / "dj_dagster" / f"tables-{name}.json"


def save_states(path: Path, schemas: Mapping[str, SchemaState]) -> None:
    """Write the state if it differs from the file; warn if the folder cannot be written.

    Readers see either the old file or the new one.
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


def load_states(path: Path) -> dict[str, SchemaState]:
    """Return the saved state, empty without a readable file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            return {}
        return {name: _state(plain) for name, plain in found["schemas"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("The tables' definitions in %s cannot be read: %s", path, error)
        return {}


def _plain(state: SchemaState) -> dict[str, object]:
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
