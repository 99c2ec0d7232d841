"""The catalogue of a database: its tables with their headings and eras, read a schema at a time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal, get_args

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import ConfigurationError, ConnectionFailedError, DefinitionError
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.heading import TEXTS, Attribute, Default, Heading
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type, without_counter
from dj_dagster.objects.external_pointer import pointer_type
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn, StoredTable
from dj_dagster.relational.values import shortest_single

Cursor = Callable[[], AbstractContextManager[SAConnection]]

PAUSE = 30.0
"""Seconds until a server that could not be reached is queried again for its rounding."""


class Catalog:
    """The tables of a database by schema, resolved on demand; shared between threads.

    Parameters
    ----------
    era
        Returns the era of schemas without tables.
    """

    def __init__(
        self, backend: Backend, cursor: Cursor, era: Callable[[], Era] = lambda: "2.3"
    ) -> None:
        self._backend = backend
        self._cursor = cursor
        self._era = era
        self._raw: dict[str, dict[TableName, RawTable]] = {}
        self._views: dict[str, dict[TableName, RawTable]] = {}
        self._stored: dict[TableName, StoredTable] = {}
        self._resolving: set[TableName] = set()
        self._eras: dict[str, Era] = {}
        self._found_old: dict[str, bool | None] = {}
        self._rounds: bool | None = None
        self._ask_again = 0.0
        self._is_unsure = False
        self._lock = threading.RLock()

    def tables(self, schema: str) -> dict[TableName, StoredTable]:
        """Return a schema's tables, hidden ones too, in order of their creation."""
        with self._lock:
            return {name: self._resolved(raw) for name, raw in self._schema(schema).items()}

    def names(self, schema: str) -> list[TableName]:
        """Return the names of a schema's tables, hidden ones too, in order of their creation."""
        with self._lock:
            return list(self._schema(schema))

    def view_names(self, schema: str) -> list[TableName]:
        """Return the names of a schema's views, which are not among its tables."""
        with self._lock:
            self._schema(schema)
            return list(self._views.get(schema, ()))

    def find(self, name: TableName) -> StoredTable | None:
        """Return a table or view, None when the database does not have it."""
        with self._lock:
            if self._is_unsure and self._server_rounds() is not None:
                self._is_unsure = False
                self._stored.clear()
            found = self._stored.get(name)
            if found is not None:
                return found
            raw = self.raw(name)
            return self._resolved(raw) if raw else None

    def find_anew(self, name: TableName) -> StoredTable | None:
        """Do the same as `find`, but read the schema anew where it lacks the table.

        Another process may have created it meanwhile.
        """
        found = self.find(name)
        if found is None:
            self.forget(name.schema)
            found = self.find(name)
        return found

    def have_changed(self, names: Collection[TableName]) -> bool:
        """Read tables anew, and return whether one has other attributes than before."""
        before = [self._attributes(name) for name in names]
        for schema in {name.schema for name in names}:
            self.forget(schema)
        return before != [self._attributes(name) for name in names]

    def _attributes(self, name: TableName) -> list[str]:
        stored = self.find(name)
        return stored.heading.names if stored else []

    def raw(self, name: TableName) -> RawTable | None:
        """Return a table or view as the database reports it, None when it does not have it."""
        with self._lock:
            table = self._schema(name.schema).get(name)
            return table or self._views.get(name.schema, {}).get(name)

    def read(self, session: SAConnection, name: TableName) -> RawTable | None:
        """Return a table as a session's transaction sees it now, without keeping it."""
        tables = self._backend.reflect(session, name.schema)
        return next((without_hidden_parents(raw) for raw in tables if raw.name == name), None)

    def put(self, raw: RawTable) -> None:
        """Add a table that was just declared, as the database will report it."""
        with self._lock:
            if raw.name.schema in self._raw:
                self._raw[raw.name.schema][raw.name] = raw
            self._stored.pop(raw.name, None)

    def is_old(self, schema: str) -> bool:
        """Whether a schema is of the era of DataJoint 0.14; see `is_of_old_era`.

        DataJoint of that era supports only some databases.
        """
        if not self._backend.holds_old_era:
            return False
        with self._lock:
            if schema in self._eras:
                return self._eras[schema] == "0.14"
            if schema not in self._found_old:
                self._found_old[schema] = is_of_old_era(self._schema(schema).values())
            found = self._found_old[schema]
            return self._era() == "0.14" if found is None else found

    def set_era(self, schema: str, era: Era | None) -> None:
        """Set the era of a schema; None determines it from its tables."""
        with self._lock:
            self._eras.pop(schema, None)
            if era is not None:
                self._eras[schema] = era

    def load(self, schema: str, tables: Iterable[RawTable]) -> None:
        """Add a schema as it was read before, instead of asking the database."""
        with self._lock:
            self.forget(schema)
            self._raw[schema] = {raw.name: raw for raw in tables}

    def forget(self, schema: str) -> None:
        """Have a schema read anew at its next use."""
        with self._lock:
            self._raw.pop(schema, None)
            self._views.pop(schema, None)
            self._found_old.pop(schema, None)
            self._stored = {name: t for name, t in self._stored.items() if name.schema != schema}

    def forget_all(self) -> None:
        """Have every schema read anew at its next use."""
        with self._lock:
            self._raw.clear()
            self._views.clear()
            self._found_old.clear()
            self._stored.clear()

    def related(self, schema: str, *, fresh: bool = False) -> list[RawTable]:
        """Return the tables of a schema and of all schemas that depend on it.

        Parameters
        ----------
        fresh
            Whether they are read anew: others may have added tables.
        """
        with self._lock:
            names = self._dependents(schema)
            if fresh:
                for name in names:
                    self.forget(name)
            return [raw for name in names for raw in self._schema(name).values()]

    def _schema(self, schema: str) -> dict[TableName, RawTable]:
        if schema not in self._raw:
            with self._cursor() as session:
                tables = self._backend.reflect(session, schema)
            self._raw[schema] = {
                raw.name: without_hidden_parents(raw) for raw in tables if not raw.is_view
            }
            self._views[schema] = {raw.name: raw for raw in tables if raw.is_view}
        return self._raw[schema]

    def _resolved(self, raw: RawTable) -> StoredTable:
        if raw.name in self._resolving:
            # Foreign keys form a circle: a table that refers back to this one needs only its
            # attributes.
            return resolve(replace(raw, foreign_keys=()), self.find, rounds=self._rounds_seconds)
        if raw.name not in self._stored:
            self._resolving.add(raw.name)
            try:
                self._stored[raw.name] = resolve(raw, self.find, rounds=self._rounds_seconds)
            finally:
                self._resolving.discard(raw.name)
        return self._stored[raw.name]

    def _rounds_seconds(self) -> bool:
        rounds = self._server_rounds()
        self._is_unsure |= rounds is None
        return bool(rounds)

    def _server_rounds(self) -> bool | None:
        """Return whether the server rounds fractions of a second, None while it is out of reach.

        Tables that were read before stay available meanwhile.
        """
        if self._rounds is None and time.monotonic() >= self._ask_again:
            try:
                with self._cursor() as session:
                    self._rounds = self._backend.rounds_seconds(session)
            except ConnectionFailedError:
                self._ask_again = time.monotonic() + PAUSE
        return self._rounds

    def _dependents(self, schema: str) -> list[str]:
        """Return a schema and all schemas that reach it by foreign keys, directly or not."""
        with self._cursor() as session:
            edges = sorted(self._backend.schema_edges(session))
        found = [schema]
        for parent in found:
            found += [child for child, of in edges if of == parent and child not in found]
        return found


def dependency_graph(tables: Iterable[RawTable]) -> DependencyGraph:
    """Return the graph of tables by their foreign keys.

    Foreign keys to the table itself are left out, and so are hidden tables.
    """
    graph = DependencyGraph()
    for raw in tables:
        if raw.name.table.startswith("~"):
            continue
        graph.add_table(raw.name)
        for foreign_key in raw.foreign_keys:
            if foreign_key.parent != raw.name:
                graph.add_edge(foreign_key.parent, raw.name)
    return graph


EXTERNAL_PREFIX = "~external_"
"""Prefix of the names of tables in which DataJoint 0.14 tracks its objects in stores."""

FindTable = Callable[[TableName], StoredTable | None]

# The quoted values of an enum may hold colons.
_MARKER = re.compile(r":((?:'(?:[^'\\]|\\.)*'|[^:'])+):(.*)", re.DOTALL)
_WIDTH = re.compile(r"\b((?:tiny|small|medium|big)?int|year)\(\d+\)")


def resolve(
    raw: RawTable, find: FindTable, *, rounds: Callable[[], bool] = lambda: False
) -> StoredTable:
    """Give a reported table its attribute types and lineages.

    Inherited columns do not carry a type of their own: type and lineage come from the parent, which
    `find` returns (None where it is not available).

    Parameters
    ----------
    rounds
        Returns whether the server rounds the digits of a second that it does not keep. It is called
        for tables that hold moments or durations.
    """
    origins = _origins(raw.foreign_keys)
    attributes = [_attribute(column, raw, origins.get(column.name), find) for column in raw.columns]
    if any(map(_holds_seconds, attributes)) and rounds():
        attributes = [_rounding(each) if _holds_seconds(each) else each for each in attributes]
    # The key comes first and in its own order, regardless of the order of the columns.
    ranked = {name: position for position, name in enumerate(raw.primary_key)}
    attributes.sort(key=lambda attribute: ranked.get(attribute.name, len(ranked)))
    return StoredTable(raw.name, Heading(attributes, raw.comment), raw.foreign_keys, raw.is_view)


def without_hidden_parents(raw: RawTable) -> RawTable:
    """Leave out the foreign keys to hidden tables, and note which columns point into stores."""
    hidden = [key for key in raw.foreign_keys if key.parent.table.startswith("~")]
    if not hidden:
        return raw
    external = {
        column: key.parent.table.removeprefix(EXTERNAL_PREFIX)
        for key in hidden
        for column in key.attributes
        if key.parent.table.startswith(EXTERNAL_PREFIX)
    }
    shown = tuple(key for key in raw.foreign_keys if key not in hidden)
    return replace(raw, foreign_keys=shown, external=external)


def marker(attribute_type: AttributeType, comment: str) -> str:
    """Return the column comment that carries a type: ``:int32:the comment``."""
    return f":{attribute_type.text}:{comment}" if attribute_type.core else comment


def _origins(foreign_keys: tuple[ForeignKey, ...]) -> dict[str, tuple[TableName, str]]:
    origins: dict[str, tuple[TableName, str]] = {}
    for foreign_key in foreign_keys:
        for child, parent in foreign_key.attributes.items():
            if (foreign_key.parent, parent) != (foreign_key.child, child):
                origins.setdefault(child, (foreign_key.parent, parent))
    return origins


def _attribute(
    column: StoredColumn, raw: RawTable, origin: tuple[TableName, str] | None, find: FindTable
) -> Attribute:
    attribute_type, comment = split_comment(column.comment)
    if store := _external_store(column, attribute_type, raw):
        codec = attribute_type.codec if attribute_type and attribute_type.codec else "blob"
        attribute_type = pointer_type(codec, store)
    lineage = str(raw.name) + "." + column.name if column.name in raw.primary_key else None
    if origin is not None:
        parent = _parent_attribute(raw, origin, find)
        lineage = f"{origin[0]}.{origin[1]}"
        if parent is not None:
            attribute_type = attribute_type or (parent.type and without_counter(parent.type))
            lineage = parent.lineage or lineage
    attribute_type = attribute_type or _native_type(column)
    return Attribute(
        column.name,
        attribute_type,
        in_key=column.name in raw.primary_key,
        nullable=column.nullable,
        default=_default(column.default, attribute_type),
        comment=comment,
        lineage=lineage,
        table=str(raw.name),
    )


def _default(default: Default | None, kind: AttributeType | None) -> Default | None:
    """Return a default as values are fetched: SQLite has all digits of a float."""
    if default is None or kind is None:
        return default
    if kind.family in TEXTS:
        return replace(default, quoted=True)
    if kind.family is not Family.FLOAT or kind.size != 32:
        return default
    try:
        shown = shortest_single(float(default.value))
    except (ValueError, OverflowError):
        # Another program's expression.
        return default
    same = float(default.value) == shown
    return default if same else replace(default, value=repr(shown))


def _holds_seconds(attribute: Attribute) -> bool:
    kind = attribute.type
    return kind is not None and kind.family in (Family.DATETIME, Family.TIME)


def _rounding(attribute: Attribute) -> Attribute:
    kind = attribute.type
    return attribute if kind is None else replace(attribute, type=replace(kind, rounds=True))


def _external_store(
    column: StoredColumn, marked: AttributeType | None, raw: RawTable
) -> str | None:
    """Return the store that a column of DataJoint 0.14 points into, None for other columns."""
    if column.name in raw.external:
        return raw.external[column.name]
    # 2.x keeps such values in json, so a uuid with a codec is a pointer to a store even without a
    # foreign key.
    if marked is None or marked.codec is None or column.sql_type.lower() != "binary(16)":
        return None
    return marked.store


def _parent_attribute(
    raw: RawTable, origin: tuple[TableName, str], find: FindTable
) -> Attribute | None:
    table, name = origin
    stored = (
        resolve(RawTable(raw.name, "", raw.columns, raw.primary_key, ()), find)
        if table == raw.name
        else find(table)
    )
    return stored.heading.all_attributes.get(name) if stored else None


def split_comment(text: str) -> tuple[AttributeType | None, str]:
    """Return the type that a column comment carries, None if it carries none, and the rest."""
    match = _MARKER.match(text)
    if not match:
        return None, text
    try:
        return parse_type(match[1]), match[2]
    except DefinitionError:
        # The type of an unknown adapter or version: the column itself can still be read.
        return None, match[2]


def _native_type(column: StoredColumn) -> AttributeType | None:
    if not column.sql_type:
        # The database does not report a type for a computed column of a view.
        return None
    text = _WIDTH.sub(r"\1", column.sql_type)
    try:
        return parse_type(f"{text} auto_increment" if column.auto_increment else text)
    except DefinitionError:
        binary = "blob" in text.lower() or "binary" in text.lower()
        return AttributeType(text, Family.BYTES if binary else Family.STRING, core=False)


Era = Literal["0.14", "2.3"]

ERAS: tuple[Era, ...] = get_args(Era)

MIGRATION = "~migration"
"""Name of a table that only migrated schemas have, during the migration and after it."""

_OLD_TABLES = ("~log", "~jobs", "~external_")
# Both eras mark these types in the same way, or a user has chosen the name of the codec.
_NEW_MARKER = re.compile(
    r":(?:<(?:blob|attach|hash|object|npy|filepath)(?:@\w*)?>"
    r"|u?int(?:8|16|32|64)|float(?:32|64)|bool|bytes|json|date|(?:datetime|timestamp|time)(?:\(\d\))?"
    r"|(?:var)?char\(\d+\)|decimal\([\d, ]+\)|enum\(.*?\)):"
)


def checked_era(era: str) -> Era:
    """Return a name of an era.

    Raises
    ------
    ConfigurationError
        If an era of that name does not exist.
    """
    for known in ERAS:
        if era == known:
            return known
    raise ConfigurationError(f"There is no era {era!r}: write one of {', '.join(ERAS)}.")


def is_of_old_era(tables: Iterable[RawTable]) -> bool | None:
    """Whether a schema's tables were declared by DataJoint 0.14, or in its layout.

    Except for a few special types, the comments of their columns do not carry types, and the schema
    either lacks ``~lineage`` or has a hidden table that only 0.14 makes. None if the tables do not
    show it.
    """
    found = list(tables)
    shown = [raw for raw in found if not raw.name.table.startswith("~")]
    if any(_NEW_MARKER.match(column.comment) for raw in shown for column in raw.columns):
        return False
    hidden = [raw.name.table for raw in found if raw.name.table.startswith("~")]
    if MIGRATION in hidden:
        return False
    if any(name.startswith(_OLD_TABLES) for name in hidden):
        return True
    return "~lineage" not in hidden if found else None
