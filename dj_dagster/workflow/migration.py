"""Migration of a schema of DataJoint 0.14, which can be taken back until it is confirmed.

Columns are marked with their types, as 2.x does. A column that points to external objects is put
aside, under a hidden name, and a column with references takes its place. Blobs and files stay where
they are; attachments are copied, because 2.x keeps their names with them. The hidden table
``~migration`` has the former state, and rows are compared before and after.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dj_dagster.errors import DataJointError, ObjectError, counted
from dj_dagster.model.heading import Attribute, Value, Values
from dj_dagster.model.names import MAX_NAME, TableName
from dj_dagster.model.types import Family, parse_type
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.codecs.bytes import content_hash, put_content
from dj_dagster.objects.codecs.codec import ObjectContext, Reference
from dj_dagster.objects.codecs.files import FilepathCodec
from dj_dagster.objects.codecs.object_ref import ObjectRef
from dj_dagster.objects.external_pointer import (
    KINDS,
    ExternalObject,
    ExternalPointerType,
    external_content,
    external_path,
)
from dj_dagster.relational.algebra.operators import all_rows
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX, MIGRATION
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.declare import rebuild
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.garbage.references import register_writer
from dj_dagster.relational.old_layout import external_objects
from dj_dagster.relational.stored import RawTable, StoredColumn
from dj_dagster.workflow.shared_jobs import TABLE as JOBS

_CREATE = """
CREATE TABLE {} (
    `table_name` varchar(64) NOT NULL, `column_name` varchar(64) NOT NULL,
    `aside` tinyint NOT NULL, `definition` text NOT NULL, `comment` text NOT NULL,
    PRIMARY KEY (`table_name`, `column_name`)
) ENGINE=InnoDB COMMENT 'what columns were before the schema was migrated'
SELECT '' AS `table_name`, '' AS `column_name`, 0 AS `aside`, '' AS `definition`, '' AS `comment`
"""

Say = Callable[[str], None]
_UUID = parse_type("uuid")


@dataclass(frozen=True)
class Migration:
    """The migration of one schema.

    Parameters
    ----------
    say
        Called with a line for each step.
    """

    connection: Connection
    schema: str
    say: Say = lambda _: None

    def changes(self) -> list[ColumnChange]:
        """Return the columns that would change, without writing."""
        return migration_changes(self.connection, self.schema)

    def run(self) -> dict[TableName, int]:
        """Give the schema the layout of 2.x, or leave it as it is if anything goes wrong.

        Returns
        -------
        dict
            The number of rows by table, none of which has changed.

        Raises
        ------
        DataJointError
            If rows differ afterwards, or an object cannot be read.
        """
        if is_migrated(self.connection, self.schema):
            raise DataJointError(
                f"A migration of {self.schema} has begun: confirm it, or undo it first."
            )
        changes = self.changes()
        self.say(f"Reading all rows of {self.schema}.")
        before = self._digests()
        # With a row without a table, which stays as long as the migration can be undone.
        self._sql(_CREATE.format(self._quoted(MIGRATION)))
        try:
            for table in dict.fromkeys(change.table for change in changes):
                self.say(f"Changing {table}.")
                self._change(table, [change for change in changes if change.table == table])
            self._forget()
            rebuild(self.connection, self.schema)
            self._forget()
            self.say("Comparing all rows.")
            self._compare(before)
        except BaseException:
            self.undo()
            raise
        return {name: rows for name, (rows, _) in before.items()}

    def undo(self) -> None:
        """Give the schema back the layout of 0.14.

        Raises
        ------
        DataJointError
            If there is not a migration to undo, its confirmation has begun, or later values are
            of objects that 0.14 would not find.
        """
        noted = self._noted()
        lines = {table: column_lines(self.connection, table) for table, *_ in noted}
        for table, column, aside, _, comment in noted:
            if not aside or column not in lines[table]:
                continue
            if ASIDE + column in lines[table]:
                self._check_values(table, column, comment)
            elif not _is_pointer(lines[table][column]):
                raise DataJointError(
                    f"The migration of {self.schema} cannot be undone, because its confirmation "
                    f"has begun: the pointers of {table}.{column} were dropped. Confirm it again, "
                    "which completes it."
                )
        for table in dict.fromkeys(name for name, *_ in noted):
            clauses: list[str] = []
            for name, column, aside, definition, comment in noted:
                if name != table:
                    continue
                before = f"`{column}` {definition} COMMENT '{comment}'"
                if not aside:
                    clauses.append(f"MODIFY COLUMN {before}")
                elif ASIDE + column in lines[table]:
                    clauses += [f"DROP COLUMN `{column}`"] if column in lines[table] else []
                    clauses.append(f"CHANGE COLUMN `{ASIDE}{column}` {before}")
            if clauses:
                self._sql(f"ALTER TABLE {self._full(table)} {', '.join(clauses)}")
        for name in ("~lineage", MIGRATION):
            self._sql(f"DROP TABLE IF EXISTS {self._quoted(name)}")
        self._forget()

    def confirm(self) -> None:
        """Drop the columns that only 0.14 needs, after which the migration cannot be undone.

        Raises
        ------
        DataJointError
            If there is not a migration to confirm, or it was undone in part.
        """
        noted = self._noted()
        lines = {table: column_lines(self.connection, table) for table, *_ in noted}
        for table, column, aside, *_ in noted:
            if aside and (column not in lines[table] or _is_pointer(lines[table][column])):
                raise DataJointError(
                    f"The migration of {self.schema} cannot be confirmed, because it is not "
                    f"complete, or was undone in part: {table}.{column} has pointers. Undo it."
                )
        with self.connection.cursor() as session:
            names = {
                table: self.connection.backend.foreign_key_names(session, table)
                for table, *_ in noted
            }
        for table, column, aside, *_ in noted:
            # A confirmation that was ended may have dropped it.
            if not aside or ASIDE + column not in lines[table]:
                continue
            keys = [
                f"DROP FOREIGN KEY `{name}`"
                for (_, columns), name in names[table].items()
                if columns == (ASIDE + column,)
            ]
            clauses = [*keys, f"DROP COLUMN `{ASIDE}{column}`"]
            self._sql(f"ALTER TABLE {self._full(table)} {', '.join(clauses)}")
        self._forget()
        for name in self.connection.catalog.names(self.schema):
            if name.table.startswith(EXTERNAL_PREFIX) or name.table == JOBS:
                self._sql(f"DROP TABLE {self._full(name)}")
        self._sql(f"DELETE FROM {self._quoted(MIGRATION)}")
        self._forget()

    def _check_values(self, table: TableName, column: str, comment: str) -> None:
        """Refuse values that differ from the pointers put aside."""
        aside = f"`{ASIDE}{column}`"
        differs = f"{aside} IS NULL AND `{column}` IS NOT NULL"
        # It is written once all references are; before that they may be missing.
        if self.connection.catalog.raw(TableName(self.schema, "~lineage")) is not None:
            differs += f" OR {aside} IS NOT NULL AND `{column}` IS NULL"
        if comment.startswith(":blob"):
            # The old name of a blob is its hash.
            path = f"JSON_UNQUOTE(JSON_EXTRACT(`{column}`, '$.path'))"
            differs += f" OR {path} NOT LIKE CONCAT('%', LOWER(HEX({aside})))"
        query = f"SELECT COUNT(*) FROM {self._full(table)} WHERE {differs}"
        if count := self._sql(query)[0][0]:
            raise DataJointError(
                f"{table}.{column} has {counted(count, 'value')} entered or changed since the "
                "migration, which would be lost: confirm the migration, or keep these rows "
                "elsewhere, delete them, and enter them again afterwards."
            )

    def _compare(self, before: dict[TableName, tuple[int, int]]) -> None:
        after = self._digests()
        different = [str(name) for name, found in before.items() if after.get(name) != found]
        if different:
            raise DataJointError(f"Rows of {', '.join(different)} would not be the same.")

    def _change(self, table: TableName, changes: list[ColumnChange]) -> None:
        """Change a table's columns by one statement, and fill the columns of references."""
        for change in changes:
            note = (
                table.table,
                change.name,
                change.store is not None,
                change.definition,
                change.old_comment,
            )
            self._sql(f"INSERT INTO {self._quoted(MIGRATION)} VALUES (%s, %s, %s, %s, %s)", *note)
        clauses = [clause for change in changes for clause in _clauses(change)]
        self._sql(f"ALTER TABLE {self._full(table)} {', '.join(clauses)}")
        for change in changes:
            if change.store is None:
                continue
            self._fill(change, change.store)
            if not change.nullable:
                self._sql(
                    f"ALTER TABLE {self._full(table)} MODIFY COLUMN `{change.name}` json NOT NULL "
                    f"COMMENT '{change.new_comment}'"
                )

    def _fill(self, change: ColumnChange, store: str) -> None:
        register_writer(
            self.connection,
            self.schema,
            self.connection.codecs.resolve(parse_type(change.type_text)),
        )
        aside, table = f"`{ASIDE}{change.name}`", self._full(change.table)
        found = self._sql(f"SELECT DISTINCT {aside} FROM {table} WHERE {aside} IS NOT NULL")
        decode = self.connection.backend.decoder(_UUID)
        hashes = [decode(value) if decode else value for (value,) in found]
        objects = external_objects(self.connection, self.schema, store, hashes)
        for digest in hashes:
            if digest not in objects:
                raise ObjectError(f"{change.table}.{change.name}: the object {digest} is unknown.")
            reference = self._reference(change, objects[digest])
            self._sql(
                f"UPDATE {table} SET `{change.name}` = %s WHERE {aside} = %s",
                json.dumps(reference),
                digest.bytes,
            )

    def _reference(self, change: ColumnChange, found: ExternalObject) -> Reference:
        """Return the reference of 2.x for an object, which is copied if it is an attachment."""
        store = self.connection.stores.get(found.store)
        if found.filepath is not None:
            context = ObjectContext(
                self.connection.stores, self.schema, change.table.table, change.name, {}
            )
            return FilepathCodec().encode(found.filepath, store_name=store.name, context=context)
        if found.attachment_name is not None:
            return put_content(store, self.schema, external_content(store, found, self.schema))
        data = external_content(store, found, self.schema)
        return {
            "hash": content_hash(data),
            "path": external_path(store, self.schema, found),
            "schema": self.schema,
            "store": store.name,
            "size": len(data),
        }

    def _digests(self) -> dict[TableName, tuple[int, int]]:
        """Return the number of rows, and a sum over all their values, by table."""
        found: dict[TableName, tuple[int, int]] = {}
        for name in self.connection.catalog.names(self.schema):
            stored = self.connection.catalog.find(name)
            if name.table.startswith("~") or stored is None:
                continue
            attributes = list(stored.heading.attributes.values())
            names = [attribute.name for attribute in attributes]
            rows = fetch.stream(self.connection, all_rows(name, stored.heading), names)
            count = total = 0
            with (
                tempfile.TemporaryDirectory() as folder,
                self.connection.downloading_to(Path(folder)),
                closing(rows),
            ):
                for row in rows:
                    values = map(_digest, row, attributes)
                    total += int.from_bytes(hashlib.sha256(b"".join(values)).digest())
                    count += 1
            found[name] = (count, total)
        return found

    def _noted(self) -> list[tuple[TableName, str, bool, str, str]]:
        known = is_migrated(self.connection, self.schema)
        rows = self._sql(f"SELECT * FROM {self._quoted(MIGRATION)}") if known else []
        if not rows:
            raise DataJointError(f"There is no migration of {self.schema} that is not confirmed.")
        return [
            (TableName(self.schema, table), column, bool(aside), definition, comment)
            for table, column, aside, definition, comment in rows
            if table
        ]

    def _sql(self, statement: str, *values: Value) -> list[Values]:
        with self.connection.cursor() as session:
            statement = statement if values else statement.replace("%", "%%")
            result = session.exec_driver_sql(statement, values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def _full(self, name: TableName) -> str:
        return self.connection.backend.full_name(name)

    def _quoted(self, table: str) -> str:
        return self._full(TableName(self.schema, table))

    def _forget(self) -> None:
        self.connection.catalog.set_era(self.schema, None)
        self.connection.catalog.forget(self.schema)


def _clauses(change: ColumnChange) -> Iterator[str]:
    comment = f"COMMENT '{change.new_comment}'"
    if change.store is None:
        yield f"MODIFY COLUMN `{change.name}` {change.definition} {comment}"
        return
    aside = f"{ASIDE}{change.name}"
    yield (
        f"CHANGE COLUMN `{change.name}` `{aside}` binary(16) DEFAULT NULL "
        "COMMENT 'where the object was, until the migration is confirmed'"
    )
    yield f"ADD COLUMN `{change.name}` json DEFAULT NULL {comment} AFTER `{aside}`"


def _digest(value: Value, attribute: Attribute) -> bytes:
    """Return a digest of a value that is equal in both layouts; for files that of their content."""
    kind = attribute.type
    if value is None:
        data = b"null"
    elif isinstance(value, ObjectRef):
        data = b"file " + value.read()
    elif kind is not None and kind.codec in ("attach", "filepath"):
        data = b"file " + Path(value).read_bytes()
    else:
        try:
            data = b"value " + pack(int(value) if isinstance(value, bool) else value)
        except ObjectError:
            data = b"text " + str(value).encode()
    return hashlib.sha256(data).digest()


ASIDE = "_external_"
"""The beginning of the hidden names of columns that keep pointers until the confirmation."""

_LINE = re.compile(r"  `((?:[^`]|``)+)` (.*?)(?: COMMENT '((?:[^'\\]|''|\\.)*)')?,?$")


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that gets another comment, or other content.

    Attributes
    ----------
    definition, old_comment
        The column in SHOW CREATE TABLE as it is now, without the comment, and that comment.
    type_text
        The type that the comment is to have.
    store
        The store of the column's pointers, which become references; None for other columns.
    """

    table: TableName
    name: str
    definition: str
    old_comment: str
    comment: str
    type_text: str
    store: str | None = None
    nullable: bool = False

    @property
    def new_comment(self) -> str:
        """The comment in SQL, beginning with the type."""
        return f":{self.type_text.replace(chr(39), chr(39) * 2)}:{self.comment}"

    def __str__(self) -> str:
        if self.store is None:
            return f"{self.table}.{self.name}: is marked as {self.type_text}"
        return f"{self.table}.{self.name}: its pointers become references, {self.type_text}"


def migration_changes(connection: Connection, schema: str) -> list[ColumnChange]:
    """Return the columns that a migration is to change in a schema.

    Raises
    ------
    DataJointError
        If the schema is not of the old era.
    """
    connection.catalog.forget(schema)
    if not connection.catalog.is_old(schema):
        raise DataJointError(
            f"The schema {schema} has no tables in the layout of DataJoint 0.14: there is nothing "
            "to migrate."
        )
    return [
        change
        for name in connection.catalog.names(schema)
        if not name.table.startswith("~") and (raw := connection.catalog.raw(name)) is not None
        for change in _changes(connection, raw)
    ]


def column_lines(connection: Connection, name: TableName) -> dict[str, tuple[str, str]]:
    """Return each column's definition and comment in SQL, as the server shows them."""
    with connection.cursor() as session:
        quoted = connection.backend.full_name(name).replace("%", "%%")
        text = session.exec_driver_sql(f"SHOW CREATE TABLE {quoted}").fetchall()[0][1]
    found = (match for line in text.splitlines() if (match := _LINE.match(line)))
    return {match[1]: (match[2], match[3] or "") for match in found}


def _changes(connection: Connection, raw: RawTable) -> Iterator[ColumnChange]:
    stored = connection.catalog.find(raw.name)
    if stored is None:
        return
    inherited = {name for key in raw.foreign_keys for name in key.attributes}
    lines: dict[str, tuple[str, str]] = {}
    for column in raw.columns:
        attribute = stored.heading.all_attributes[column.name]
        kind = _new_type(column, attribute)
        if column.name in inherited or kind is None:
            continue
        lines = lines or column_lines(connection, raw.name)
        definition, old_comment = lines[column.name]
        store = attribute.type.store if isinstance(attribute.type, ExternalPointerType) else None
        if store is not None and len(ASIDE + column.name) > MAX_NAME:
            raise DataJointError(f"{raw.name}.{column.name} has too long a name to be migrated.")
        comment = re.sub(r"^:[^:]*:", "", old_comment)
        yield ColumnChange(
            raw.name, column.name, definition, old_comment, comment, kind, store, column.nullable
        )


def _new_type(column: StoredColumn, attribute: Attribute) -> str | None:
    """Return the type that a column's comment is to have, None to keep the comment."""
    kind, marked = attribute.type, column.comment.startswith(":")
    if kind is None or column.name.startswith("_"):
        return None
    if isinstance(kind, ExternalPointerType):
        return f"<{kind.codec}@{kind.store}>"
    if kind.family is Family.CODEC:
        return kind.text if kind.codec in KINDS and not column.comment.startswith(":<") else None
    if marked:
        return None
    if column.sql_type.lower() == "tinyint(1)":
        return "bool"
    # DataJoint reads a type up to the first colon.
    return kind.text if kind.core and ":" not in kind.text else None


def _is_pointer(line: tuple[str, str]) -> bool:
    """Whether a column, as of `column_lines`, still has pointers of 0.14, or has them again."""
    return line[0].startswith("binary(16)")


def is_migrated(connection: Connection, schema: str) -> bool:
    """Whether a migration of a schema has begun, or was confirmed."""
    connection.catalog.forget(schema)
    return connection.catalog.raw(TableName(schema, MIGRATION)) is not None
