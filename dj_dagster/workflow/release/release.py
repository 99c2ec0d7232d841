"""Making a release: chosen rows with all that tells what they are, as an RO-Crate in a folder.

::

    ro-crate-metadata.json        what each file is, for catalogues
    manifest-sha256.txt           the checksums of all other files
    release.json                  what was asked for, the tables and their rows, files left out
    environment.json              versions of Python and of the packages that are installed
    prov.json                     where each row comes from, as W3C PROV
    definitions/lab.Result.txt    the definition of a table
    rows/lab.Result.parquet       its rows
    files/local/…                 objects, by store and path

JSON is sorted and the order of rows and files is fixed.
"""

from __future__ import annotations

import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote

from dj_dagster.errors import ChecksumError, ConfigurationError, ObjectError, QueryError, counted
from dj_dagster.model.names import TableName
from dj_dagster.model.selection import Candidate, schemas_of, single
from dj_dagster.objects.copies import Copies, copied, files_of
from dj_dagster.objects.expected import Expected, FoundFiles
from dj_dagster.relational.algebra.condition import refuse_oversights
from dj_dagster.relational.algebra.nodes import Base
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring.describe import Spelling, describe
from dj_dagster.relational.fetching.frames import arrow_table, optional_package
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.table import Table
from dj_dagster.workflow.release.contents import (
    INPUT,
    Located,
    ReleasedRows,
    ReleasedTable,
    gather,
    title,
)
from dj_dagster.workflow.release.crate import (
    HEAD,
    MANIFEST,
    PROV,
    place_of,
    write_crate,
    write_json,
    write_manifest,
)
from dj_dagster.workflow.release.provenance import ProvenanceDocument

FORMAT = 1
ENVIRONMENT, DEFINITIONS, ROWS, FILES = "environment.json", "definitions", "rows", "files"
EXTRA = "release"

Say = Callable[[str], object]


@dataclass(frozen=True)
class ReleaseReport:
    """The contents of a release.

    Attributes
    ----------
    tables
        The number of rows by table.
    objects, size
        Files from stores, and their bytes.
    left_out
        Objects of inputs, which are named but not copied.
    digest
        The checksum of the list of checksums: who has it can tell that a release is this one.
    """

    folder: Path
    tables: dict[str, int]
    objects: int
    size: int
    left_out: int
    digest: str

    def __str__(self) -> str:
        left = f"; {counted(self.left_out, 'object')} of inputs only named" if self.left_out else ""
        return (
            f"{self.folder}: {counted(sum(self.tables.values()), 'row')} of "
            f"{counted(len(self.tables), 'table')}, {counted(self.objects, 'file')} "
            f"({counted(self.size, 'byte')}){left}; sha256 {self.digest}"
        )


@dataclass(frozen=True)
class ReleaseText:
    """The description that people give a release.

    Attributes
    ----------
    name, description
        Of the data set; by default the table's name, and how the rows were chosen.
    license
        Address of the licence, such as ``https://spdx.org/licenses/CC-BY-4.0``.
    published
        Today by default.
    """

    name: str = ""
    description: str = ""
    license: str = ""
    published: date | None = None


def make_release(
    rows: Table | type[Table],
    folder: str | Path,
    *,
    everything: bool = False,
    inputs: bool = False,
    text: ReleaseText | None = None,
    say: Say = lambda _: None,
) -> ReleaseReport:
    """Write chosen rows, their parts and all that they were made from into a folder.

    It is an RO-Crate: rows as Parquet, the objects that they refer to, definitions, where each row
    comes from as W3C PROV, and the checksums of all. Two releases of the same rows on one day are
    equal byte for byte. All rows are as they were at one moment.

    Parameters
    ----------
    rows
        A table, restricted: ``Result & {"subject_id": 1}``.
    folder
        It is made, and must be empty if it is there.
    everything
        Whether a table without a restriction stands for all of its rows; else it is refused.
    inputs
        Whether the objects of the rows that they were made from are copied too, such as raw
        recordings. Otherwise these are named.
    say
        Called with what is done.

    Raises
    ------
    QueryError
        If no row was chosen, or all were without `everything`.
    ObjectError
        If an object cannot be read, or is not what its row says: nothing is left in the folder
        then.
    ConfigurationError
        If the folder holds something or is inside another release, or the extra ``release`` is not
        installed.

    Examples
    --------
    ::

        make_release(Result & {"subject_id": 1}, "/releases/subject 1")
    """
    chosen = rows() if isinstance(rows, type) else rows
    for package in ("pyarrow", "prov"):
        optional_package(package, EXTRA)
    _check(chosen, everything=everything)
    place = place_of(folder)
    temporary = place.parent / f".writing-{secrets.token_hex(8)}"
    try:
        _check_place(place)
        temporary.mkdir(parents=True)
        try:
            report = _written(chosen, temporary, place, inputs, text or ReleaseText(), say)
            # An empty folder is replaced.
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ObjectError(f"The release in {place} could not be made: {error}.") from error
    return report


def named_rows(
    connection: Connection, table: str, restrictions: tuple[str, ...], *, everything: bool = False
) -> Table:
    """Return rows of a table that is named as people write it.

    Parameters
    ----------
    table
        A name of `dj_dagster.model.selection`, such as ``"lab.Result"`` or ``"lab.__result"``.
    restrictions
        Conditions in SQL, all of which hold.
    everything
        Whether all rows are meant, which are never meant otherwise.

    Raises
    ------
    ConfigurationError
        If `table` does not stand for one table.
    QueryError
        If neither restrictions nor `everything` is given, or both are, or a restriction names no
        attribute of the table, so that it would hold for all rows or for none.
    """
    if everything == bool(restrictions) or not all(map(str.strip, restrictions)):
        raise QueryError(
            f"Say which rows of {table} are meant: by a condition that is not empty, or that all "
            "are, not by both."
        )
    catalog, names = connection.catalog, list[TableName]()
    for schema in schemas_of(table, connection.schema_names()):
        # Another process may have made it since.
        catalog.forget(schema)
        names += [*catalog.names(schema), *catalog.view_names(schema)]
    shown = [FreeTable(connection, name) for name in names if not name.table.startswith("~")]
    tables = [Candidate(each.name, each.tier) for each in shown]
    found: Table = FreeTable(connection, single(table, tables, "TABLE"))
    known = {attribute.casefold() for attribute in found.heading.names}
    for restriction in restrictions:
        if known.isdisjoint(re.findall(r"\w+", restriction.casefold())):
            raise QueryError(
                f"The condition {restriction!r} names no attribute of {title(found.name)}, which "
                f"has {', '.join(found.heading.names)}."
            )
        found = found & restriction
    return found


def _check(chosen: object, *, everything: bool) -> None:
    if not isinstance(chosen, Table) or chosen.is_projection:
        raise QueryError(
            f"Rows of one table are released, with all of its attributes, not {chosen!r:.100}: "
            "restrict a table by the query instead."
        )
    name = title(chosen.name)
    chosen.stored.check_table("release")
    if chosen.connection.holds_transaction:
        raise QueryError("A release is made outside of transactions: leave this one first.")
    # A table that was restricted by True is not restricted either.
    if not everything and isinstance(chosen.node, Base):
        raise QueryError(
            f"{name} is not restricted: choose rows, or say that all of them are meant "
            "(everything=True)."
        )
    refuse_oversights(chosen.node, f"release rows of {chosen.name}")
    if not chosen:
        raise QueryError(f"{name} has no such row: there is nothing to release.")


def _check_place(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigurationError(f"{place} is not empty: name a folder that is not there yet.")
    around = next((each for each in place.parents if _is_release(each)), None)
    if around is not None:
        raise ConfigurationError(
            f"{place} is inside the release {around}, which its list of files would no longer "
            "describe: name a folder outside of it."
        )


def _written(
    chosen: Table, folder: Path, place: Path, inputs: bool, text: ReleaseText, say: Say
) -> ReleaseReport:
    connection = chosen.connection
    released = gather(chosen)
    if released.problems:
        more = f" And {len(released.problems) - 1} more." if len(released.problems) > 1 else ""
        raise ObjectError(f"{released.problems[0]}{more}")
    descriptions = dict(_write_tables(connection, released, folder))
    say(counted(sum(len(table.rows) for table in released.tables), "row"))
    sizes = _copy_objects(connection, released, folder, inputs, say)
    left = [] if inputs else _left_out(released)
    document = ProvenanceDocument(connection, metadata.version("dj-dagster"))
    document.add(released)
    write_json(folder / PROV, document.content())
    write_json(folder / ENVIRONMENT, _environment())
    write_json(folder / HEAD, _head(chosen, released, left))
    descriptions[PROV] = "Where the rows come from, as W3C PROV"
    descriptions[ENVIRONMENT] = "Packages that were installed where the release was made"
    write_crate(folder, _root(chosen, text), descriptions)
    counts = {table.title: len(table.rows) for table in released.tables}
    digest = write_manifest(folder)
    return ReleaseReport(place, counts, len(sizes), sum(sizes), len(left), digest)


def _write_tables(
    connection: Connection, released: ReleasedRows, folder: Path
) -> Iterator[tuple[str, str]]:
    """Write rows and definitions, and yield what each file is."""
    (folder / ROWS).mkdir()
    (folder / DEFINITIONS).mkdir()
    for table in released.tables:
        rows, definition = _row_file(table), f"{DEFINITIONS}/{_file_name(table)}.txt"
        _write_rows(table, folder / rows)
        spelled = describe(connection, table.name, Spelling(table.name, {}))
        with (folder / definition).open("x", encoding="utf-8", newline="\n") as file:
            file.write(spelled)
        yield rows, f"{counted(len(table.rows), 'row')} of {table.title} ({table.role})"
        yield definition, f"The definition of {table.title}"


def _row_file(table: ReleasedTable) -> str:
    return f"{ROWS}/{_file_name(table)}.parquet"


def _file_name(table: ReleasedTable) -> str:
    """Return a table's name for files: a schema may have a name that leads into a folder."""
    return re.sub(r"[/\\%]", lambda found: quote(found[0], safe=""), table.title)


def _write_rows(table: ReleasedTable, file: Path) -> None:
    names = table.heading.names
    columns = {name: [row[name] for row in table.rows] for name in names}
    found = arrow_table(columns, table.heading, as_declared=True)
    described = table.stored.heading
    fields = [
        found.schema.field(name).with_metadata(
            {"type": kind.text if (kind := described[name].type) else "", "comment": each.comment}
        )
        for name in names
        if (each := described[name])
    ]
    package = optional_package("pyarrow", EXTRA)
    schema = package.schema(fields, {"table": table.title, "key": ",".join(table.key)})
    with file.open("xb") as stream:
        optional_package("pyarrow.parquet", EXTRA).write_table(
            found.cast(schema), stream, compression="zstd"
        )


def _copy_objects(
    connection: Connection, released: ReleasedRows, folder: Path, inputs: bool, say: Say
) -> list[int]:
    """Copy what the rows refer to, and return the sizes of the files."""
    wanted: dict[Located, set[Expected]] = {}
    for table in released.tables:
        if inputs or table.role != INPUT:
            for located, expected in table.expected.items():
                wanted.setdefault(located, set()).update(expected)
    sizes: list[int] = []
    aside = folder / ".objects"
    copies = Copies(aside)
    for (name, path, schema), expected in sorted(wanted.items(), key=itemgetter(0)):
        store = connection.stores.get(name)
        files = dict(files_of(store, path, schema))
        whole = FoundFiles(store, path, files, expected)
        _refuse(whole.problems())
        crc32s: list[tuple[str, int, str]] = []
        for file, stat in sorted(files.items()):
            _check_name(name, file)
            target = folder / FILES / name / file
            if target.exists():
                # A reference to a file inside an object that another row has.
                crc32s.append((file, stat.size, ""))
                continue
            known = partial(whole.expected_of, file)
            one, _, problems = copied(copies, store, file, stat, schema, None, known, read=False)
            _refuse(problems)
            crc32s.append((file, one.size, one.crc32))
            target.parent.mkdir(parents=True, exist_ok=True)
            copies.place(one.sha256).rename(target)
            sizes.append(one.size)
            if len(sizes) % 1000 == 0:
                say(f"{len(sizes)} files")
        _refuse(whole.differing(crc32s))
    shutil.rmtree(aside, ignore_errors=True)
    return sizes


def _is_release(folder: Path) -> bool:
    return (folder / HEAD).is_file() and (folder / MANIFEST).is_file()


def _refuse(problems: Iterable[str]) -> None:
    if problem := next(iter(problems), ""):
        raise ChecksumError(problem)


def _check_name(store: str, file: str) -> None:
    try:
        file.encode()
    except UnicodeEncodeError as error:
        raise ObjectError(
            f"{file!r} in store '{store}' has a name that is not UTF-8, which the release's list "
            "of files cannot hold: enter the object again with another name."
        ) from error


def _left_out(released: ReleasedRows) -> list[dict[str, str]]:
    copied_too = {
        located
        for table in released.tables
        if table.role != INPUT
        for objects in table.objects.values()
        for located in objects
    }
    found = {
        (table.title, *located[:2])
        for table in released.tables
        if table.role == INPUT
        for objects in table.objects.values()
        for located in objects
        if located not in copied_too
    }
    return [{"table": one, "store": store, "path": path} for one, store, path in sorted(found)]


def _head(
    chosen: Table, released: ReleasedRows, left_out: list[dict[str, str]]
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "table": title(chosen.name),
        "restriction": [str(each) for each in chosen.restriction],
        "tables": [
            {
                "name": table.title,
                "table": str(table.name),
                "role": table.role,
                "tier": table.tier.value,
                "key": table.key,
                "rows": len(table.rows),
                **({"made": table.made} if table.made else {}),
                "file": _row_file(table),
            }
            for table in released.tables
        ],
        "left_out": left_out,
    }


def _root(chosen: Table, text: ReleaseText) -> dict[str, object]:
    asked = " and ".join(f"({each})" for each in map(str, chosen.restriction))
    name = title(chosen.name)
    day = text.published or datetime.now(UTC).date()
    root: dict[str, object] = {
        "name": text.name or f"Rows of {name}",
        "description": text.description or f"Rows of {name}{asked and f' where {asked}'}.",
        "datePublished": day.isoformat(),
    }
    if text.license:
        root["license"] = {"@id": text.license} if "://" in text.license else text.license
    return root


def _environment() -> dict[str, object]:
    found = {each.name.lower(): each.version for each in metadata.distributions()}
    return {"python": platform.python_version(), "packages": found}
