"""Making the results of a release again, in an empty database, and comparing them.

What people entered is taken from the release, and so are the files of others that rows name by
``<filepath@>``; all else is made by today's code. Objects are compared by the bytes of their files,
wherever these lie now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from dj_dagster.errors import (
    ChecksumError,
    ConfigurationError,
    MissingExternalFile,
    counted,
)
from dj_dagster.model.heading import Row, Value, Values
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
    identity_of,
    reference_columns,
    register_writer,
)
from dj_dagster.relational.inserting.encode import encode_rows
from dj_dagster.relational.inserting.insertion import update_row
from dj_dagster.relational.relatives import graph_above
from dj_dagster.relational.schemas.free_table import FreeTable, table_name
from dj_dagster.workflow.computed import AutoPopulate
from dj_dagster.workflow.release.comparison import close, contents_close
from dj_dagster.workflow.release.contents import (
    COMPUTED_TIERS,
    ReleasedTable,
    all_of,
    make_names,
    maker_of,
    tier_of,
    title,
)
from dj_dagster.workflow.release.crate import HEAD, UNREADABLE, place_of, verify_release
from dj_dagster.workflow.release.release import EXTRA, FILES, FORMAT

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
    listed = _listed(place)
    classes = {table().name: table for table in tables}
    _check(connection, listed, classes)
    rerun = _Rerun(place, connection, tolerance, listed, say)
    made = [name for name in listed if tier_of(name) in COMPUTED_TIERS]
    for name in listed:
        rerun.bring_files(name)
    for name in graph_above(connection, listed).topological_order():
        if name in listed and name not in made:
            rerun.enter(name)
        elif name in listed and name in classes:
            say(title(name))
            rerun.make(classes[name], name)
    differences = [text for name in made for text in rerun.differences(name)]
    return RerunReport(place, rerun.compared, tuple(differences))


@dataclass(frozen=True)
class _Listed:
    """A table of a release.

    Attributes
    ----------
    file
        The file of its rows.
    left_out
        The number of other rows that the same calls of `make` had made.
    """

    file: str
    left_out: int


def _listed(folder: Path) -> dict[TableName, _Listed]:
    """Return the tables of a release that can be made again."""
    place = folder / HEAD
    with _as_released(place):
        head = json.loads(place.read_text(encoding="utf-8"))
        if head["format"] != FORMAT:
            raise ConfigurationError(
                f"{place} is of format {head['format']!r}, and this version of dj_dagster reads "
                f"{FORMAT}: install the version that has made the release."
            )
        if head["left_out"]:
            raise ConfigurationError(
                f"{folder} lacks files of its inputs, such as {head['left_out'][0]['path']}: make "
                "the release with --inputs."
            )
        return {
            table_name(each["table"]): _Listed(
                str(checked_path(each["file"])), each.get("made", each["rows"]) - each["rows"]
            )
            for each in head["tables"]
        }


@contextmanager
def _as_released(file: Path) -> Generator[None]:
    """Name a file that somebody has changed, together with its checksum."""
    try:
        yield
    except (*UNREADABLE, ArithmeticError) as error:
        raise ConfigurationError(
            f"{file} is not as a release has it: {error!r}. Ask for the release again."
        ) from error


class _Rerun:
    def __init__(
        self,
        folder: Path,
        connection: Connection,
        tolerance: float,
        listed: Mapping[TableName, _Listed],
        say: Say,
    ) -> None:
        self.compared = 0
        self._folder = folder
        self._connection = connection
        self._columns = {(c.table, c.name): c for c in reference_columns(connection)}
        self._tolerance = tolerance
        self._listed = listed
        self._say = say
        self._asked: dict[TableName, set[Values]] = {}
        self._errors: dict[TableName, dict[Values, str]] = {}

    def enter(self, name: TableName) -> None:
        """Enter rows with their objects as they were released."""
        table = all_of(self._connection, name)
        rows = _referred_first(table, self._released(table))
        # A Lookup has the contents of today's code.
        there = {_key(table, row): row for row in _made(table)}
        new = {key: row for key, row in rows.items() if key not in there}
        changed = {
            key: row
            for key, row in rows.items()
            if key in there and any(self._unequal(table, row, there[key], 0))
        }
        for column, chain in self._stored_columns(table):
            register_writer(self._connection, name.schema, chain)
            self._bring_back_all(column, (new | changed).values())
        as_stored = replace(table.stored, heading=table.heading)
        write.submit(self._connection, encode_rows(self._connection, as_stored, [*new.values()]))
        for key, row in changed.items():
            update_row(self._connection, as_stored, row)
            self._say(
                f"{_shown(table, key)} is another one in today's code: that of the release is used"
            )

    def bring_files(self, name: TableName) -> None:
        """Write the files of others that rows name, which a `make` reads."""
        table = all_of(self._connection, name)
        for column, chain in self._stored_columns(table):
            if isinstance(chain.codecs[-1], FilepathCodec):
                self._bring_back_all(column, self._released(table))

    def make(self, cls: type[AutoPopulate], name: TableName) -> None:
        """Make the released keys of a table."""
        names = make_names(self._connection, name)
        rows = self._released(all_of(self._connection, name))
        keys = [{each: row[each] for each in names} for row in rows]
        self._asked[name] = {tuple(key.values()) for key in keys}
        done = cls().populate(*[keys] if names else [], suppress_errors=True)
        self._errors[name] = {
            tuple(key.get(each) for each in names): str(error) for key, error in done["error_list"]
        }

    def differences(self, name: TableName) -> Iterator[str]:
        """Yield what rows are missing, too many or not equal."""
        table, maker = all_of(self._connection, name), maker_of(name)
        names = make_names(self._connection, name)
        before = {_key(table, row): row for row in self._released(table)}
        after = {
            _key(table, row): row
            for row in _made(table)
            if tuple(row[each] for each in names) in self._asked.get(maker, ())
        }
        found: list[str] = []
        for key in sorted(before.keys() - after.keys(), key=str):
            call = tuple(before[key][each] for each in names)
            why = self._errors.get(maker, {}).get(call, "")
            found.append(f"{_shown(table, key)} was not made{why and f': {why}'}")
        for key in sorted(before.keys() & after.keys(), key=str):
            self.compared += 1
            unequal = self._unequal(table, before[key], after[key], self._tolerance)
            found += [f"{_shown(table, key)}: {each} differs" for each in unequal]
        more, left_out = after.keys() - before.keys(), self._listed[name].left_out
        if not left_out:
            found += [
                f"{_shown(table, key)} is not in the release" for key in sorted(more, key=str)
            ]
        elif len(more) != left_out:
            found.append(
                f"{table.title}: {counted(len(more), 'row')} made beside those of the release, "
                f"and there were {left_out}"
            )
        yield from found[:_SHOWN]
        if len(found) > _SHOWN:
            yield f"{table.title}: {len(found) - _SHOWN} more differences"

    def _released(self, table: ReleasedTable) -> list[Row]:
        file, names = self._folder / self._listed[table.name].file, table.heading.names
        with _as_released(file):
            read = optional_package("pyarrow.parquet", EXTRA).read_table(file)
            if {*read.column_names} == {*names}:
                return _rows(table, read)
        raise ConfigurationError(
            f"{table.title} has the attributes {', '.join(names)} now, and "
            f"{', '.join(read.column_names)} in the release: check out the code that it is of."
        )

    def _unequal(
        self, table: ReleasedTable, before: Row, after: Row, tolerance: float
    ) -> Iterator[str]:
        """Yield the attributes whose values or objects differ."""
        for name in table.stored.heading.attributes:
            one, other = before[name], after[name]
            column = self._columns.get((table.name, name))
            if one is None or other is None:
                equal = one is other
            elif column is not None:
                equal = self._objects_equal(column, one, other, tolerance)
            elif isinstance(one, bytes) and isinstance(other, bytes):
                equal = contents_close(one, other, tolerance)
            else:
                equal = close(one, other, tolerance)
            if not equal:
                yield name

    def _objects_equal(
        self, column: ReferenceColumn, one: Value, other: Value, tolerance: float
    ) -> bool:
        before = [self._old_files(each) for each in _references(column, one)]
        after = [self._new_files(each, column.table.schema) for each in _references(column, other)]
        return len(before) == len(after) and all(
            old.keys() == new.keys()
            and all(contents_close(old[path], new[path], tolerance) for path in old)
            for old, new in zip(before, after, strict=True)
        )

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

    def _new_files(self, reference: Reference, schema: str) -> dict[str, bytes]:
        path, name = reference
        store = self._connection.stores.get(name or str(self._connection.stores.default))
        lists = manifest_path(path)
        return {
            file.removeprefix(path).lstrip("/") or ".": store.get(file)
            for file, _ in files_of(store, path, schema)
            if file != lists
        }


def _references(column: ReferenceColumn, value: object) -> list[Reference]:
    if value is None:
        return []
    try:
        return list(column.read(json.dumps(value)))
    except UNREADABLE as error:
        raise ConfigurationError(
            f"{column.table}.{column.name} holds what cannot be followed: {error!r}."
        ) from error


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


def _made(table: ReleasedTable) -> list[Row]:
    """Return the rows of a table of the database as they would be read from a release."""
    columns = {each: [row[each] for row in table.rows] for each in table.heading.names}
    return _rows(table, arrow_table(columns, table.heading, as_declared=True))


def _shown(table: ReleasedTable, key: Values) -> str:
    return f"{table.title} {dict(zip(table.key, key, strict=True))}"


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
    names: Iterable[TableName],
    classes: Mapping[TableName, type[AutoPopulate]],
) -> None:
    for name in names:
        table = FreeTable(connection, name)
        parsed = parse_table_name(name.table)
        is_part = parsed is not None and parsed.master is not None
        if tier_of(name) in COMPUTED_TIERS and not is_part and name not in classes:
            raise ConfigurationError(
                f"The class of {title(name)} is not known: name the module that declares it."
            )
        kinds = [each.type for each in table.heading.attributes.values()]
        if any(isinstance(kind, ExternalPointerType) for kind in kinds):
            raise ConfigurationError(f"{title(name)} has the layout of DataJoint 0.14: migrate it.")
        if tier_of(name) is not Tier.LOOKUP and table:
            raise ConfigurationError(f"{title(name)} has rows: make them in an empty database.")
    _check_stores(connection, sorted({name.schema for name in names}))


def _check_stores(connection: Connection, schemas: Sequence[str]) -> None:
    for schema in schemas:
        mine = identity_of(connection, schema, create=False)
        for name in connection.stores.names:
            found = registrations(connection.stores.get(name), schema)
            # The contents of a Lookup have objects, too.
            if any(each.identity != mine or each.found_objects for each in found):
                raise ConfigurationError(
                    f"Store '{name}' has objects of {schema}, of another database perhaps: set up "
                    "an empty store."
                )
