"""Making the results of a release again, in an empty database, and comparing them.

What people entered is taken from the release, and so are the files of others that rows name by
``<filepath@>``; all else is made by today's code. Objects are compared by the bytes of their files,
wherever these lie now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from dj_dagster.errors import ChecksumError, ConfigurationError, MissingExternalFile, counted
from dj_dagster.model.heading import Attribute, Row, Value, Values
from dj_dagster.model.names import TableName, Tier, parse_table_name
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.objects.codecs.files import FilepathCodec
from dj_dagster.objects.collection import registrations
from dj_dagster.objects.copies import file_damage, files_of
from dj_dagster.objects.external_pointer import ExternalPointerType
from dj_dagster.objects.stores.store import checked_path
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching.frames import arrow_table, optional_package
from dj_dagster.relational.garbage.references import (
    Reference,
    ReferenceColumn,
    reference_columns,
    register_writer,
)
from dj_dagster.relational.inserting.encode import encode_rows
from dj_dagster.relational.relatives import graph_above
from dj_dagster.relational.schemas.free_table import FreeTable, table_name
from dj_dagster.workflow.computed import AutoPopulate
from dj_dagster.workflow.release.comparison import close, contents_close
from dj_dagster.workflow.release.contents import (
    COMPUTED_TIERS,
    ReleasedTable,
    all_of,
    make_names,
    title,
)
from dj_dagster.workflow.release.crate import HEAD, place_of, verify_release
from dj_dagster.workflow.release.release import EXTRA, FILES

if TYPE_CHECKING:
    import pyarrow

Say = Callable[[str], object]

_SHOWN = 20
"""Differences of one table that are named, at most."""


@dataclass(frozen=True)
class RerunReport:
    """The comparison of results that were made again with those of a release.

    Attributes
    ----------
    rows
        The number of rows that were compared.
    differences
        The rows and values that are not equal.
    """

    folder: Path
    rows: int
    differences: tuple[str, ...]

    def __str__(self) -> str:
        if self.differences:
            return (
                f"{self.folder}: {len(self.differences)} DIFFERENCES in {counted(self.rows, 'row')}"
            )
        return f"{self.folder}: equal, {counted(self.rows, 'row')} made again"


def rerun_release(
    folder: str | Path,
    tables: Iterable[type[AutoPopulate]],
    connection: Connection,
    *,
    tolerance: float = 0.0,
    say: Say = lambda _: None,
) -> RerunReport:
    """Make the results of a release again in an empty database, and compare them with it.

    Parameters
    ----------
    folder
        Of a release that was made with the files of its inputs.
    tables
        The classes that make its rows, declared in the empty database.
    connection
        Where that is; its stores must have no objects of other databases for these schemas.
    tolerance
        By how much numbers may differ, as a part of their size or, where that is less than one, as
        they are; 0 for equal bits.

    Raises
    ------
    ChecksumError
        If the release is not whole.
    ConfigurationError
        If it lacks files, a class is not given, or database or stores are not empty.
    """
    place = place_of(folder)
    if problems := verify_release(place).problems:
        raise ChecksumError(f"The release is not whole: {problems[0]}.")
    optional_package("pyarrow", EXTRA)
    head = json.loads((place / HEAD).read_text(encoding="utf-8"))
    if head["left_out"]:
        raise ConfigurationError(
            f"{place} lacks files of its inputs, such as {head['left_out'][0]['path']}: make the "
            "release with --inputs."
        )
    names = {table_name(each["table"]): each["file"] for each in head["tables"]}
    classes = {table().name: table for table in tables}
    _check(connection, names, classes)
    rerun = _Rerun(place, connection, tolerance)
    made = [name for name in names if _tier(name) in COMPUTED_TIERS]
    for name in made:
        rerun.bring_files(name, names[name])
    for name in graph_above(connection, names).topological_order():
        if name in names and _tier(name) not in COMPUTED_TIERS:
            rerun.enter(name, names[name])
        elif name in names and name in classes:
            say(f"{title(name)}")
            rerun.make(classes[name], name, names[name])
    differences = [text for name in made for text in rerun.differences(name, names[name])]
    return RerunReport(place, rerun.compared, tuple(differences))


class _Rerun:
    def __init__(self, folder: Path, connection: Connection, tolerance: float) -> None:
        self.compared = 0
        self._folder = folder
        self._connection = connection
        self._columns = {(c.table, c.name): c for c in reference_columns(connection)}
        self._tolerance = tolerance

    def enter(self, name: TableName, file: str) -> None:
        """Enter rows with their objects as they were released."""
        table = all_of(self._connection, name)
        rows = [*_referred_first(table, self._released(table, file)).values()]
        for column, chain in self._stored_columns(table):
            register_writer(self._connection, name.schema, chain)
            self._bring_back_all(column, rows)
        as_stored = replace(table.stored, heading=table.heading)
        encoded = encode_rows(self._connection, as_stored, rows, mode="skip")
        write.submit(self._connection, encoded)

    def bring_files(self, name: TableName, file: str) -> None:
        """Write the files of others that rows of a computed table name, which its `make` reads."""
        table = all_of(self._connection, name)
        for column, chain in self._stored_columns(table):
            if isinstance(chain.codecs[-1], FilepathCodec):
                self._bring_back_all(column, self._released(table, file))

    def make(self, cls: type[AutoPopulate], name: TableName, file: str) -> None:
        """Make the released keys of a table."""
        table = all_of(self._connection, name)
        names = make_names(table)
        keys = [{each: row[each] for each in names} for row in self._released(table, file)]
        cls().populate(keys) if names else cls().populate()

    def differences(self, name: TableName, file: str) -> Iterator[str]:
        """Yield what rows are missing, too many or not equal."""
        table = all_of(self._connection, name)
        before = {_key(table, row): row for row in self._released(table, file)}
        columns = {each: [row[each] for row in table.rows] for each in table.heading.names}
        made = _rows(table, arrow_table(columns, table.heading, as_declared=True))
        after = {_key(table, row): row for row in made}
        found: list[str] = []
        for key in sorted(before.keys() | after.keys(), key=str):
            where = f"{table.title} {dict(zip(table.key, key, strict=True))}"
            if key not in after:
                found.append(f"{where} was not made")
            elif key not in before:
                found.append(f"{where} is not in the release")
            else:
                self.compared += 1
                for attribute in table.stored.heading.attributes.values():
                    one, other = before[key][attribute.name], after[key][attribute.name]
                    if not self._equal(table, attribute, one, other):
                        found.append(f"{where}: {attribute.name} differs")
        yield from found[:_SHOWN]
        if len(found) > _SHOWN:
            yield f"{table.title}: {len(found) - _SHOWN} more differences"

    def _released(self, table: ReleasedTable, file: str) -> list[Row]:
        read = optional_package("pyarrow.parquet", EXTRA).read_table(self._folder / file)
        return _rows(table, read)

    def _equal(self, table: ReleasedTable, attribute: Attribute, one: Value, other: Value) -> bool:
        if one is None or other is None:
            return one is other
        column = self._columns.get((table.name, attribute.name))
        if column is not None:
            before = [self._old_files(each) for each in _references(column, one)]
            after = [self._new_files(each, table) for each in _references(column, other)]
            return len(before) == len(after) and all(
                old.keys() == new.keys()
                and all(contents_close(old[path], new[path], self._tolerance) for path in old)
                for old, new in zip(before, after, strict=True)
            )
        if isinstance(one, bytes) and isinstance(other, bytes):
            return contents_close(one, other, self._tolerance)
        return close(one, other, self._tolerance)

    def _place(self, reference: Reference) -> tuple[str, Path]:
        path, store = reference
        name = store or str(self._connection.stores.default)
        return name, self._folder / FILES / name / checked_path(path)

    def _stored_columns(self, table: ReleasedTable) -> Iterator[tuple[ReferenceColumn, CodecChain]]:
        for attribute in table.stored.heading.attributes.values():
            column, kind = self._columns.get((table.name, attribute.name)), attribute.type
            if column is not None and kind is not None:
                yield column, self._connection.codecs.resolve(kind)

    def _bring_back_all(self, column: ReferenceColumn, rows: Iterable[Row]) -> None:
        for row in rows:
            for reference in _references(column, row[column.name]):
                self._bring_back(reference)

    def _bring_back(self, reference: Reference) -> None:
        """Write the files of an object to where it was."""
        name, root = self._place(reference)
        store = self._connection.stores.get(name)
        manifest = Path(manifest_path(str(root)))
        files = [root] if root.is_file() else [p for p in sorted(root.rglob("*")) if p.is_file()]
        for file in [*files, *([manifest] if manifest.is_file() else [])]:
            path = file.relative_to(self._folder / FILES / name).as_posix()
            try:
                there = store.get(path)
            except MissingExternalFile:
                store.put_file(path, file)
                continue
            if file_damage(file, hashlib.sha256(there).hexdigest(), len(there)):
                raise ConfigurationError(
                    f"{store.url(path)} in store '{name}' is there and is not what was released: "
                    "set up an empty store."
                )

    def _old_files(self, reference: Reference) -> dict[str, bytes]:
        _, root = self._place(reference)
        files = [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file()]
        return {str(file.relative_to(root).as_posix()): file.read_bytes() for file in files}

    def _new_files(self, reference: Reference, table: ReleasedTable) -> dict[str, bytes]:
        path, name = reference
        store = self._connection.stores.get(name or str(self._connection.stores.default))
        lists = manifest_path(path)
        return {
            file.removeprefix(path).lstrip("/") or ".": store.get(file)
            for file, _ in files_of(store, path, table.name.schema)
            if file != lists
        }


def _references(column: ReferenceColumn, value: object) -> list[Reference]:
    if value is None:
        return []
    return list(column.read(json.dumps(value)))


def _rows(table: ReleasedTable, found: pyarrow.Table) -> list[Row]:
    kinds = {name: table.heading[name].type for name in table.heading.names}
    return [
        {name: _python(value, kinds[name]) for name, value in row.items()}
        for row in found.to_pylist()
    ]


def _referred_first(table: ReleasedTable, rows: Iterable[Row]) -> dict[Values, Row]:
    """Return rows by key in an order in which they can be entered: each after those it refers to.

    Raises
    ------
    ConfigurationError
        If rows refer to each other in a circle.
    """
    by_key = {_key(table, row): row for row in rows}
    order = TopologicalSorter[Values](dict.fromkeys(by_key, ()))
    for foreign_key in table.references():
        if foreign_key.parent == table.name:
            own = {theirs: mine for mine, theirs in foreign_key.attributes.items()}
            for key, row in by_key.items():
                referred = tuple(row[own[name]] for name in table.key)
                # A row may refer to itself.
                if referred != key and referred in by_key:
                    order.add(key, referred)
    try:
        return {key: by_key[key] for key in order.static_order()}
    except CycleError as error:
        raise ConfigurationError(
            f"Rows of {table.title} refer to each other in a circle, so that none can be entered "
            f"first: {', '.join(map(str, error.args[1]))}."
        ) from None


def _key(table: ReleasedTable, row: Row) -> Values:
    return tuple(row[name] for name in table.key)


def _tier(name: TableName) -> Tier:
    parsed = parse_table_name(name.table)
    while parsed is not None and parsed.master is not None:
        parsed = parse_table_name(parsed.master)
    return parsed.tier if parsed is not None else Tier.MANUAL


def _python(value: Value, kind: AttributeType | None) -> Value:
    """Return a value of Parquet as the database gives it."""
    if value is None or kind is None:
        return value
    match kind.family:
        case Family.UUID:
            return UUID(value)
        case Family.JSON:
            return json.loads(value)
        case Family.DECIMAL:
            return Decimal(value)
        case _:
            return value


def _check(
    connection: Connection,
    names: Mapping[TableName, str],
    classes: Mapping[TableName, type[AutoPopulate]],
) -> None:
    for name in names:
        table = FreeTable(connection, name)
        parsed = parse_table_name(name.table)
        is_part = parsed is not None and parsed.master is not None
        if _tier(name) in COMPUTED_TIERS and not is_part and name not in classes:
            raise ConfigurationError(
                f"The class of {title(name)} is not known: name the module that declares it."
            )
        kinds = [each.type for each in table.heading.attributes.values()]
        if any(isinstance(kind, ExternalPointerType) for kind in kinds):
            raise ConfigurationError(f"{title(name)} has the layout of DataJoint 0.14: migrate it.")
        if _tier(name) is not Tier.LOOKUP and table:
            raise ConfigurationError(f"{title(name)} has rows: make them in an empty database.")
    _check_stores(connection, sorted({name.schema for name in names}))


def _check_stores(connection: Connection, schemas: Sequence[str]) -> None:
    for name in connection.stores.names:
        for schema in schemas:
            if registrations(connection.stores.get(name), schema):
                raise ConfigurationError(
                    f"Store '{name}' has objects of {schema}, of another database perhaps: set up "
                    "an empty store."
                )
