"""Backups taken beside writers, a snapshot of the tables before the objects; their restoration.

Objects are written before their rows and never changed, so each object that the snapshot refers to
is in its store or has since been moved to the store's trash.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import (
    AccessError,
    ChecksumError,
    ConfigurationError,
    MissingTableError,
    ObjectError,
    QueryError,
    TransientError,
    UnknownAttributeError,
    counted,
)
from dj_dagster.local_files import at_home
from dj_dagster.objects.collection import backing_up, registrations
from dj_dagster.objects.copies import (
    CopiedFile,
    Copies,
    copied,
    files_of,
    give_back,
    remove_abandoned,
)
from dj_dagster.objects.expected import Expected, FoundFiles
from dj_dagster.objects.external_pointer import external_expected, external_path
from dj_dagster.objects.layout import object_root, schema_objects
from dj_dagster.objects.stores.store import Stat, Store, checked_path, in_flight, sync_folder
from dj_dagster.relational.backup import contents
from dj_dagster.relational.backup.contents import Backup, backups, check_folder, open_backup
from dj_dagster.relational.database.catalog import EXTERNAL_PREFIX
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.garbage.references import (
    Reference,
    ReferenceColumn,
    claim_schema,
    column_values,
    reference_columns,
    snapshot,
)
from dj_dagster.relational.old_layout import all_external_objects
from dj_dagster.relational.stored import DumpedTable

ALL_SCHEMAS = "all"
"""The only value that stands for all schemas of a database."""

_TRIES = 5

Say = Callable[[str], object]
Found = tuple[tuple[str, str, str], frozenset[Expected]]
"""The store, path and schema of an object, and what rows say of it."""

Source = tuple[FoundFiles, tuple[str, str, str], Stat]
"""The object of a file, the file's store, path and schema, and its location."""

Taken = tuple[CopiedFile, bool, tuple[str, ...]]
"""A copy, whether it was made now, and its problems."""


@dataclass(frozen=True)
class BackupReport:
    """The files that a backup copied.

    Attributes
    ----------
    objects, size
        Number and bytes of the files of stores in the backup.
    copied, copied_size
        Number and bytes of those that no earlier backup in the folder had.
    """

    backup: Backup
    objects: int
    size: int
    copied: int
    copied_size: int

    def __str__(self) -> str:
        backup = self.backup
        lost = f"; {len(backup.problems)} PROBLEMS" if backup.problems else ""
        return (
            f"{backup.place}: {', '.join(backup.schemas)}; {counted(self.objects, 'file')} of "
            f"stores ({counted(self.size, 'byte')}), {self.copied} of them new "
            f"({counted(self.copied_size, 'byte')}){lost}"
        )


def make_backup(
    connection: Connection,
    folder: str | Path,
    schemas: str | Iterable[str],
    *,
    read_data: bool = False,
    keep: int | None = None,
    say: Say = lambda _: None,
) -> BackupReport:
    """Copy the tables of some schemas, and the objects that they refer to, into a folder.

    The backup shows the state of one moment, even if others write meanwhile. Objects that an
    earlier backup in the folder has are not copied again. The backup is read back before it counts
    as complete; an interrupted backup leaves earlier ones unchanged.

    It does not contain users, grants, triggers or stored procedures of a server.

    Parameters
    ----------
    folder
        A folder only for backups, readable only by its owner. It is created if it is missing.
    schemas
        The names of schemas, or ``"all"``. Schemas that they refer to by foreign keys are added; on
        SQLite the backup always contains the whole file.
    read_data
        Whether the copies of earlier backups are read too, and replaced if damaged. Otherwise only
        their sizes are compared.
    keep
        Number of backups to keep in the folder, including the new one; earlier ones are removed
        with the copies that only they need. By default all are kept.
    say
        Called with messages about the progress.

    Raises
    ------
    ConfigurationError
        If the folder holds other files, or a schema does not exist.
    AccessError
        If the user may not read all tables.
    ChecksumError
        If the written files cannot be read back.
    """
    if connection.holds_transaction:
        raise QueryError("A backup is made outside of transactions: leave this one first.")
    place = at_home(folder, "The folder of backups").absolute()
    chosen = _chosen(connection, schemas)
    if keep is not None and keep < 1:
        raise ConfigurationError(f"Keep at least one backup, not {keep}.")
    try:
        _prepare(place)
        temporary = place / f".writing-{secrets.token_hex(8)}"
        temporary.mkdir(mode=0o700)
        try:
            with backing_up(map(connection.stores.get, connection.stores.names)):
                made = _made(connection, place, temporary, chosen, read_data=read_data, say=say)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if keep is not None:
            freed = contents.keep_latest(place, keep)
            latest, gone = counted(keep, "backup"), counted(freed, "byte")
            say(f"the latest {latest} at most stay; {gone} of copies were removed")
    except OSError as error:
        raise ObjectError(f"The backup in {place} could not be made: {error}.") from error
    return made


def _made(
    connection: Connection,
    folder: Path,
    temporary: Path,
    schemas: Sequence[str],
    *,
    read_data: bool,
    say: Say,
) -> BackupReport:
    before = _known(folder, say)
    say(f"tables of {', '.join(schemas)}")
    found, tables = _dumped(connection, temporary, schemas)
    say(counted(len(found.objects), "object"))
    copies = Copies(folder / "objects")
    files, new = list[CopiedFile](), list[CopiedFile]()
    for one in _copied(connection, copies, found, before, read=read_data):
        if isinstance(one, str):
            found.problems[one] = None
            continue
        file, is_new, problems = one
        found.problems |= dict.fromkeys(problems)
        files.append(file)
        new += [file] if is_new else []
        if len(files) % 1000 == 0:
            say(f"{len(files)} files of stores, {len(new)} of them new")
    contents.write_objects(temporary, sorted(files, key=lambda file: (file.store, file.path)))
    backup = Backup(
        folder,
        temporary.name,
        connection.url,
        connection.backend.name,
        tuple(schemas),
        tuple(tables),
        {name: connection.stores.get(name).url() for name in sorted({f.store for f in files})},
        tuple(found.problems),
        contents.summed(temporary),
    )
    say("reading the backup again")
    old = set[str]() if read_data else {f.sha256 for f in files} - {f.sha256 for f in new}
    damages = chain(backup.damaged_files(), (text for _, text in backup.damaged_objects(old)))
    if damage := next(damages, ""):
        raise ChecksumError(f"What was just written cannot be read back: {damage}.")
    backup = replace(backup, name=_free_name(folder))
    contents.write_head(temporary, backup)
    contents.settle(temporary)
    temporary.rename(backup.place)
    sync_folder(folder)
    return BackupReport(
        backup,
        len(files),
        sum(file.size for file in files),
        len(new),
        sum(file.size for file in new),
    )


def _chosen(connection: Connection, schemas: str | Iterable[str]) -> list[str]:
    """Return the schemas with the schemas that they refer to."""
    given = [schemas] if isinstance(schemas, str) else list(schemas)
    known = connection.schema_names()
    names = known if given == [ALL_SCHEMAS] else connection.checked_schemas(given)
    if not names:
        raise ConfigurationError(
            f"No schema to back up: name one of {', '.join(known) or 'none'}, or '{ALL_SCHEMAS}'."
        )
    if connection.backend.dumps_everything:
        return known
    with connection.cursor() as session:
        edges = sorted(connection.backend.schema_edges(session))
        rights = connection.backend.rights(session)
    found = list(dict.fromkeys(names))
    for name in found:
        found += [parent for child, parent in edges if child == name and parent not in found]
        if not rights.shows_tables(name):
            raise AccessError(
                f"{connection.get_user()} may not read all tables of {name}: make the backup as a "
                f"user with SELECT on {name}.*"
            )
    return sorted(found)


def _prepare(folder: Path) -> None:
    """Create the folder or check that it is one of backups, and remove unfinished backups."""
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
    if not any(folder.iterdir()):
        contents.write_format(folder)
    check_folder(folder)
    Copies(folder / "objects").tidy()
    for left in remove_abandoned(folder):
        shutil.rmtree(left, ignore_errors=True)


def _known(folder: Path, say: Say) -> dict[tuple[str, str], CopiedFile]:
    """Return the objects of the latest backup, none if it is damaged, so that all are read anew."""
    if not backups(folder):
        return {}
    try:
        last = open_backup(folder)
        damage = next(last.damaged_files([contents.OBJECTS]), "")
        known = {} if damage else {(file.store, file.path): file for file in last.objects()}
    except ChecksumError as error:
        damage, known = str(error), {}
    if damage:
        say(f"All objects are copied again, as the latest backup is damaged: {damage}")
    return known


def _dumped(
    connection: Connection, temporary: Path, schemas: Sequence[str]
) -> tuple[Referenced, list[DumpedTable]]:
    """Write the tables and return the references of their rows, all in one snapshot."""
    place = temporary / contents.DATABASE
    for _ in range(_TRIES):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        columns = reference_columns(connection)
        with (
            suppress(MissingTableError, UnknownAttributeError, TransientError),
            snapshot(connection) as session,
        ):
            same = [column.place for column in columns] == [
                column.place for column in reference_columns(connection)
            ]
            if same:
                # Lets others alter tables that were read.
                session.exec_driver_sql("SAVEPOINT referenced")
                found = referenced(session, connection, columns, schemas)
                session.exec_driver_sql("ROLLBACK TO SAVEPOINT referenced")
                return found, connection.backend.dump(session, place, schemas)
    raise TransientError(
        "No backup was made, as tables were declared, altered or dropped all the time meanwhile: "
        "try again when that is over."
    )


def _copied(
    connection: Connection,
    copies: Copies,
    found: Referenced,
    before: Mapping[tuple[str, str], CopiedFile],
    *,
    read: bool,
) -> Iterator[Taken | str]:
    """Copy new files and yield each file with its problems, or its error."""

    def located(one: Found) -> list[Source | str]:
        (name, path, schema), expected = one
        store = connection.stores.get(name)
        try:
            files = dict(files_of(store, path, schema))
        except ObjectError as error:
            return [str(error)]
        whole = FoundFiles(store, path, files, expected)
        sources = [(whole, (name, file, schema), stat) for file, stat in files.items()]
        return [*whole.problems(), *sources]

    def taken(source: Source | str) -> tuple[FoundFiles | None, Taken | str]:
        if isinstance(source, str):
            return None, source
        whole, (name, path, schema), stat = source
        store: Store = connection.stores.get(name)
        known, expected = before.get((name, path)), partial(whole.expected_of, path)
        try:
            return whole, copied(copies, store, path, stat, schema, known, expected, read=read)
        except ObjectError as error:
            return whole, str(error)

    sources = chain.from_iterable(in_flight(located, sorted(found.expected(), key=itemgetter(0))))
    for _, group in groupby(in_flight(taken, sources), itemgetter(0)):
        yield from _together(list(group))


def _together(files: Sequence[tuple[FoundFiles | None, Taken | str]]) -> Iterator[Taken | str]:
    """Yield the files of an object, marked if they differ together from what rows say."""
    whole = files[0][0]
    copies = [one[0] for _, one in files if not isinstance(one, str)]
    problems = list[str]()
    if whole is not None and len(copies) == len(files):
        problems += whole.differing((file.path, file.size, file.crc32) for file in copies)
    yield from problems
    for _, one in files:
        if problems and not isinstance(one, str):
            file, is_new, own = one
            yield replace(file, damaged=True), is_new, own
        else:
            yield one


def _free_name(folder: Path) -> str:
    while True:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        name = now.replace(":", "-").replace("+00-00", "Z")
        if not (folder / name).exists():
            return name
        time.sleep(0.002)


@dataclass
class Referenced:
    """The objects that rows refer to.

    Attributes
    ----------
    objects
        Store, path and schema of each object, and what the rows say of it.
    problems
        References that cannot be followed.
    """

    objects: dict[tuple[str, str, str], set[Expected]] = field(
        default_factory=dict[tuple[str, str, str], set[Expected]]
    )
    problems: dict[str, None] = field(default_factory=dict[str, None])

    def add(
        self,
        connection: Connection,
        schema: str,
        place: str,
        found: Reference,
        expected: Expected | None = None,
    ) -> None:
        """Add a reference under its store's own name."""
        path, name = found
        name = name or connection.stores.default
        if name is None or name not in connection.stores:
            self.problems[f"{place} refers to store {name!r}, which is not set up here."] = None
            return
        settings = connection.stores.get(name).settings
        root = object_root(checked_path(path), schema, settings)
        known = self.objects.setdefault((name, root or path, schema), set())
        if expected is not None:
            known.add(expected)

    def expected(self) -> Iterator[Found]:
        """Yield each object with what the rows say of it."""
        return ((one, frozenset(expected)) for one, expected in self.objects.items())


def referenced(
    session: SAConnection,
    connection: Connection,
    columns: Iterable[ReferenceColumn],
    schemas: Collection[str],
) -> Referenced:
    """Read the references of some schemas in a session's snapshot."""
    found = Referenced()
    for column in columns:
        if column.table.schema not in schemas:
            continue
        for value in column_values(session, connection, column.table, column.name):
            try:
                for reference in column.read(value):
                    expected = column.describe(reference[0], value)
                    found.add(connection, column.table.schema, column.place, reference, expected)
            except Exception as error:
                # A third party's codec may raise any error.
                problem = f"{column.place} holds what cannot be followed: {value!r:.100} ({error})"
                found.problems[problem] = None
    for schema in schemas:
        for place, reference, expected in _old_references(session, connection, schema):
            found.add(connection, schema, place, reference, expected)
    return found


def _old_references(
    session: SAConnection, connection: Connection, schema: str
) -> Iterator[tuple[str, Reference, Expected | None]]:
    """Yield the references in hidden tables of DataJoint 0.14, each with its table."""
    for raw in connection.backend.reflect(session, schema):
        if not raw.name.table.startswith(EXTERNAL_PREFIX):
            continue
        name = raw.name.table.removeprefix(EXTERNAL_PREFIX)
        place = str(raw.name)
        if name not in connection.stores:
            yield place, ("", name), None
            continue
        store = connection.stores.get(name)
        for one in all_external_objects(session, connection, schema, name):
            path = one.filepath or external_path(store, schema, one)
            yield place, (path, name), external_expected(place, one)


_SHOWN = 20
"""The most damages that an error names."""


@dataclass(frozen=True)
class RestoreReport:
    """The result of a restoration.

    Attributes
    ----------
    objects
        Number of files of stores that were written.
    kept
        Number of files that already existed with the same content.
    damaged
        The objects that were left out because their copies are damaged.
    foreign
        Schema and store of objects that other databases have registered for, whose ownership the
        collector requires to be settled.
    """

    backup: Backup
    objects: int
    kept: int
    damaged: tuple[str, ...]
    foreign: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        kept = f", {self.kept} were there" if self.kept else ""
        lost = f"; {len(self.damaged)} DAMAGED were left out" if self.damaged else ""
        return (
            f"{self.backup.name}: {', '.join(self.backup.schemas)} restored; "
            f"{counted(self.objects, 'file')} of stores written{kept}{lost}"
        )


def restore_backup(
    connection: Connection,
    folder: str | Path,
    name: str | None = None,
    *,
    keep_objects: bool = False,
    ignore_damaged: bool = False,
    say: Say = lambda _: None,
) -> RestoreReport:
    """Bring back the tables and objects of a backup.

    The whole backup is read and compared with its checksums first; then the objects are written,
    then the tables. On a server the restored rows are compared too.

    Parameters
    ----------
    connection
        A database without tables, of the kind that was backed up, with stores of the same names.
    name
        The name of the backup; by default the latest.
    keep_objects
        Whether stores may already have objects of the schemas, which are kept if they are the same.
        Use it if only the database was lost, or a restoration was interrupted.
    ignore_damaged
        Whether to continue without objects whose copies are damaged.

    Raises
    ------
    ConfigurationError
        If existing tables or objects prevent it; the message names them. Nothing has been written.
    ChecksumError
        If the backup is damaged; the message names the damages. Nothing has been written.
    """
    if connection.holds_transaction:
        raise QueryError("A backup is restored outside of transactions: leave this one first.")
    backup = open_backup(at_home(folder, "The folder of backups").absolute(), name)
    _check_target(connection, backup, keep_objects=keep_objects)
    say(f"reading {backup.place}")
    _refuse(backup, backup.damaged_files())
    damaged = dict(backup.damaged_objects())
    _refuse(backup, () if ignore_damaged else damaged.values())
    say("objects")
    unowned = _unowned(connection, backup)
    copies = Copies(backup.folder / "objects")
    files = (file for file in backup.objects() if file not in damaged)
    written = kept = 0
    for is_new in in_flight(lambda f: give_back(copies, connection.stores.get(f.store), f), files):
        written, kept = written + is_new, kept + (not is_new)
        if (written + kept) % 1000 == 0:
            say(f"{written + kept} files of stores")
    say("tables")
    with connection.session_apart() as session:
        place = backup.place / contents.DATABASE
        connection.backend.load(session, place, backup.schemas, backup.tables)
    connection.catalog.forget_all()
    foreign = _claimed(connection, backup, unowned)
    return RestoreReport(backup, written, kept, tuple(damaged.values()), tuple(foreign))


def _refuse(backup: Backup, damages: Iterable[str]) -> None:
    found = list(damages)
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    if found:
        raise ChecksumError(
            f"{backup.place} is damaged, and nothing was restored: "
            f"{'; '.join(found[:_SHOWN])}{more}."
        )


def _check_target(connection: Connection, backup: Backup, *, keep_objects: bool) -> None:
    """Refuse a target that is not empty, or that cannot hold the contents of the backup."""
    if not connection.backend.loads(backup.backend):
        raise ConfigurationError(
            f"{backup.place} is of {backup.url}: restore it into a database of that kind, not into "
            f"{connection.url}."
        )
    if missing := [name for name in backup.stores if name not in connection.stores]:
        raise ConfigurationError(
            f"{backup.place} has objects of store '{missing[0]}', which is not set up here: add "
            f"its settings under stores.{missing[0]}; it was {backup.stores[missing[0]]}."
        )
    with connection.session_apart() as session:
        occupied = connection.backend.occupied(session, backup.schemas)
    if occupied:
        raise ConfigurationError(
            f"{connection.url} has tables already, {occupied[0]} among them, and a backup is "
            "restored into an empty database only: name another one, or drop them first."
        )
    if keep_objects:
        return
    for store, schema in _places(connection, backup):
        if (found := next(schema_objects(store, schema), None)) is not None:
            raise ConfigurationError(
                f"Store '{store.name}' has objects of {schema} already: {store.url(found.path)}. "
                "Restore into an empty store, or say that those stay that are the same: "
                "--keep-objects, or keep_objects=True."
            )


def _places(connection: Connection, backup: Backup) -> Iterator[tuple[Store, str]]:
    for name in backup.stores:
        for schema in backup.schemas:
            yield connection.stores.get(name), schema


def _unowned(connection: Connection, backup: Backup) -> list[tuple[Store, str]]:
    """Return the schemas for which no database has registered with a store."""
    places = _places(connection, backup)
    return [(store, schema) for store, schema in places if not registrations(store, schema)]


def _claimed(
    connection: Connection, backup: Backup, unowned: Sequence[tuple[Store, str]]
) -> Iterator[tuple[str, str]]:
    """Register the database for the restored objects, and yield those of other databases."""
    for store, schema in _places(connection, backup):
        if next(schema_objects(store, schema), None) is None:
            continue
        if (store, schema) in unowned:
            claim_schema(connection, schema, store)
        else:
            yield schema, store.name
