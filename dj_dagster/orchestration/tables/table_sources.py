"""Sources of tables: schemas, modules, patterns of names, and a file of the tables last read.

The file keeps only table definitions, neither rows nor passwords.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from inspect import cleandoc
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from dj_dagster.errors import ConfigurationError, ConnectionFailedError, DataJointError
from dj_dagster.model.heading import Default
from dj_dagster.model.names import TableName, Tier, parse_table_name
from dj_dagster.model.selection import Candidate
from dj_dagster.orchestration.tables.table_node import Populator, populator_of
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.describe import Spelling, definition_of
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn
from dj_dagster.relational.table import Table

SchemaLike = Schema | ModuleType | str | Any
"""A schema, a module with one called ``schema``, a pattern of names, or a schema of DataJoint."""


@dataclass(frozen=True)
class TableSource:
    """One table, with the facts that its asset needs.

    Attributes
    ----------
    table
        A query over all rows.
    master
        A part's master.
    populator
        The populator that fills the table; None without its class or without a `make`.
    definition
        The definition of its class, or the one rebuilt from the database.
    """

    table: Table
    master: TableName | None
    populator: Populator | None
    definition: str

    @property
    def name(self) -> TableName:
        """The schema's and the table's name in SQL."""
        return self.table.name

    @property
    def candidate(self) -> Candidate:
        """The table for selections by name."""
        parents = (key.parent for key in self.table.foreign_keys if key.parent != self.name)
        own = (self.master,) if self.master else ()
        return Candidate(self.name, self.table.tier, (*own, *parents))

    @property
    def given_names(self) -> list[str]:
        """The attributes of a key of `make`; the primary key for tables without a `make`.

        For a computed table whose class is not at hand, or whose key source fails, they are taken
        to be the inherited attributes.
        """
        table = self.table
        try:
            if self.populator is not None:
                return self.populator.key_names
        except ConnectionFailedError:
            raise
        except DataJointError as error:
            # The sensor reports this too, and leaves the table alone.
            logger.warning("%s", error)
        if table.tier not in (Tier.IMPORTED, Tier.COMPUTED):
            return table.primary_key
        inherited = {name for key in table.foreign_keys if key.primary for name in key.attributes}
        return [name for name in table.primary_key if name in inherited] or table.primary_key


def of_schema(schema: Schema) -> list[TableSource]:
    """Return the tables of a schema that have declared or reflected classes."""
    classes = dict.fromkeys((*schema.tables.values(), *schema.reflected.values()))
    return list(chain.from_iterable(map(_of_class, classes)))


def of_name(connection: Connection, name: TableName, definition: str) -> TableSource:
    """Return a table without a class."""
    from_name = parse_table_name(name.table)
    master = from_name.master if from_name else None
    return TableSource(
        FreeTable(connection, name),
        TableName(name.schema, master) if master else None,
        None,
        definition,
    )


def described(connection: Connection, names: Iterable[TableName]) -> dict[TableName, str]:
    """Return the definitions of tables, rebuilt from the database."""
    names = list(names)
    with connection.cursor() as session:
        indexes = {
            schema: connection.backend.indexes(session, schema)
            for schema in dict.fromkeys(name.schema for name in names)
        }
    return {
        name: definition_of(
            connection, name, indexes[name.schema].get(name.table, {}), Spelling(name, {})
        )
        for name in names
    }


def distinct(sources: Iterable[TableSource]) -> list[TableSource]:
    """Return tables, each once.

    Raises
    ------
    ConfigurationError
        When a table comes twice.
    """
    found: dict[TableName, TableSource] = {}
    for source in sources:
        if source.name in found:
            raise ConfigurationError(f"schema {source.name.schema} is given more than once")
        found[source.name] = source
    return list(found.values())


def with_masters(sources: Iterable[TableSource]) -> list[TableSource]:
    """Return tables in which a part without its master among them is an ordinary table."""
    sources = list(sources)
    names = {source.name for source in sources}
    return [
        source if source.master in names else replace(source, master=None) for source in sources
    ]


def _of_class(cls: type[Table]) -> Iterator[TableSource]:
    table = cls()
    yield TableSource(table, None, populator_of(table), _definition(table))
    for part in cls.part_classes():
        yield TableSource(part(), table.name, None, _definition(part()))


def _definition(table: Table) -> str:
    text = cleandoc(table.definition)
    return text or described(table.connection, [table.name])[table.name]


FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchemaState:
    """One schema: its tables in order of their creation, and the definitions of the shown ones."""

    tables: tuple[RawTable, ...]
    definitions: Mapping[str, str]


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


def save(path: Path, schemas: Mapping[str, SchemaState]) -> None:
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


def load(path: Path) -> dict[str, SchemaState]:
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
