"""A sensor that watches a folder and enters what appears in it as rows, once each is complete."""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dagster import (
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from dj_dagster.errors import (
    ConfigurationError,
    ConnectionFailedError,
    DuplicateError,
    InvalidValueError,
    MissingAttributeError,
    TransientError,
    named_text,
)
from dj_dagster.local_files import at_home
from dj_dagster.model.heading import Value, Values
from dj_dagster.orchestration.arguments import check_number
from dj_dagster.orchestration.sensor.entry_signature import signature
from dj_dagster.orchestration.sensor.sensor_settings import Budget
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import as_fetched, is_missing
from dj_dagster.workflow.collation import matched
from dj_dagster.workflow.pending import rows_of

RowsByTable = Mapping[Any, Iterable[Mapping[str, Value]]]
"""Rows by table, which may be a class: parents first."""

NAMED = 20
"""Entries of one status that a tick names, at most; the others are counted."""

LONGEST = 1000
"""Characters of a reason that are told and kept, at most."""

_CHANGING, _QUIET, _ENTERED, _REFUSED = "changing", "quiet", "entered", "refused"


def folder_sensor(
    folder: str | Path | Callable[[], str | Path],
    read: Callable[[Path], RowsByTable],
    *,
    name: str = "folder_sensor",
    pattern: str = "*",
    complete: Callable[[Path], bool] | None = None,
    settle: float = 30.0,
    retry: float = 300.0,
    interval: int = 10,
    seconds: float = 20.0,
) -> SensorDefinition:
    """Return a sensor that enters files or folders as rows of Manual tables; it is on at once.

    An entry is a file that `pattern` finds in the folder, or a folder with all its files, those
    behind links included. It is read when its files have not changed for a while. Its rows are
    inserted in one transaction. Rows whose key is there already are left as they are, so that an
    entry may be looked at often, and may also be entered by others; `read` therefore gives each row
    its key, and a key that the database counts (``auto_increment``) is refused. Files are never
    moved or changed.

    An entry that cannot be read, or a folder in which the pattern looks for entries, is named with
    the reason in the tick and in its log; the other entries are entered all the same. While the
    folder itself cannot be read, the ticks fail with the reason.

    Parameters
    ----------
    folder
        The folder, or a function that returns it when the sensor is evaluated.
    read
        A function that returns the rows of one entry by table, parents first. It should raise an
        error for an entry that it cannot read.
    name
        The name of the sensor, where a code location has several.
    pattern
        The entries, as for `Path.glob`: ``"*/*_g0"`` for folders within those of subjects.
    complete
        A function that tells whether an entry is complete; by default all quiet entries are. It is
        needed for writers that pause, and may look for a file that they write last.
    settle
        Seconds for which an entry must not have changed, at least from one tick to the next.
    retry
        Seconds after which an entry that could not be read is tried again; after a change it is
        tried as a new one.
    interval
        Seconds between two ticks.
    seconds
        The time after which a tick leaves the other entries to the next one. Dagster stops a tick
        after 60 seconds.

    Raises
    ------
    ConfigurationError
        If the pattern does not name entries in the folder, a number of seconds is below 0, or
        `read` or `complete` is not a function.

    Notes
    -----
    The cursor keeps the state of the entries. After a reset of the cursor all entries are read once
    more, which inserts only rows that are missing. An entry whose rows were deleted is entered
    again after such a reset, or when one of its files changes, or when it comes back after it was
    away while others were there.

    Examples
    --------
    >>> from dj_dagster.relational.database.connection import Connection
    >>> from dj_dagster.relational.schemas.schema import Schema
    >>> from dj_dagster.relational.table import Manual
    >>> @Schema("lab", connection=Connection("sqlite:///:memory:"))
    ... class Scan(Manual):
    ...     definition = '''
    ...     scan : varchar(64)
    ...     '''
    >>> watch = folder_sensor("scans", lambda path: {Scan: [{"scan": path.stem}]}, pattern="*.tif")
    >>> watch.name
    'folder_sensor'

    It goes to ``build_definitions(..., sensors=[watch])``.
    """
    for said, function in (("read", read), ("complete", complete)):
        if not callable(function) and (said == "read" or function is not None):
            raise ConfigurationError(
                f"folder_sensor({said}={function!r}): write a function of an entry's path."
            )
    _check_pattern(pattern)
    for said, value in (("settle", settle), ("retry", retry), ("seconds", seconds)):
        check_number("folder_sensor", said, value, 0, "seconds, 0 or more")
    check_number("folder_sensor", "interval", interval, 0, "whole seconds, 0 or more", whole=True)

    @sensor(
        name=name,
        minimum_interval_seconds=interval,
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Enters what appears in a folder ({pattern}) as rows, once it is complete.",
    )
    def evaluate(context: SensorEvaluationContext) -> SensorResult:
        place = at_home(folder() if callable(folder) else folder, "The watched folder")
        look = _Look(place, pattern, read, complete, settle, retry)
        look.recall(context.cursor)
        look.evaluate(Budget(seconds))
        for entry, reason in look.refused.items():
            context.log.error(f"{entry} cannot be entered: {reason}")
        for entry in look.entered:
            context.log.info(f"{entry} was entered")
        for entry in look.present:
            context.log.info(f"{entry} has rows already, which were left as they are")
        return SensorResult(skip_reason=look.told(), cursor=look.cursor)

    return evaluate


@dataclass(frozen=True)
class _Seen:
    """The state of an entry.

    Attributes
    ----------
    signature
        A hash of the names, sizes and times of its files.
    since
        The time when the signature was first seen, or when the entry was last tried.
    status
        Whether the entry is changing, quiet, refused or entered.
    reason
        The reason of a refusal.
    """

    signature: str
    since: float
    status: str = _CHANGING
    reason: str = ""


@dataclass
class _Look:
    """One look at the folder.

    Attributes
    ----------
    seen
        The state of each entry, by its path in the folder.
    entered, present, refused
        The entries that were entered in this look, whose rows were all there, or that were refused.
    away
        The states of entries while there are none at all, as of a share that is not mounted.
    later
        The number of entries that were left to the next look.
    last
        The last entry that was looked at if others are left, otherwise empty.
    """

    folder: Path
    pattern: str
    read: Callable[[Path], RowsByTable]
    complete: Callable[[Path], bool] | None
    settle: float
    retry: float
    seen: dict[str, _Seen] = field(default_factory=dict[str, _Seen])
    entered: list[str] = field(default_factory=list[str])
    present: list[str] = field(default_factory=list[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    away: dict[str, _Seen] = field(default_factory=dict[str, _Seen])
    later: int = 0
    last: str = ""

    @property
    def cursor(self) -> str:
        """The states of the entries as text, for the next look."""
        known = {**self.away, **self.seen}
        seen = {e: [s.signature, s.since, s.status, s.reason] for e, s in known.items()}
        return json.dumps({"last": self.last, "seen": seen})

    def recall(self, cursor: str | None) -> None:
        """Take over the states from the cursor of an earlier look; ignore any other cursor."""
        try:
            said = json.loads(cursor or "{}")
            self.seen = {entry: _Seen(*fields) for entry, fields in said["seen"].items()}
            self.last = str(said["last"])
        except (ValueError, TypeError, KeyError, AttributeError):
            self.seen = {}

    def evaluate(self, budget: Budget) -> None:
        """Look at each entry, and enter those that are ready."""
        _check_folder(self.folder)
        found = {self._name(path): path for path in self.folder.glob(self.pattern)}
        closed = dict(self._closed())
        names = sorted(found)
        # This look goes on where the last one had to stop.
        first = bisect_right(names, self.last)
        names = [*names[first:], *names[:first]]
        before, self.seen, self.last = self.seen, {}, ""
        if not found:
            self.away = before
        for place, error in closed.items():
            self.refused[place] = _said(error)
            # What was entered from there must not be forgotten.
            self.seen |= {e: seen for e, seen in before.items() if e.startswith(f"{place}/")}
        for number, entry in enumerate(names):
            known, now = before.get(entry), time.time()
            if budget.spent and number:
                self.last = self.last or names[number - 1]
                self.later += 1
                if known is not None:
                    self.seen[entry] = known
                continue
            try:
                self.seen[entry] = self._looked(found[entry], known, now)
            except FileNotFoundError:
                # It changes while it is looked at.
                self.seen[entry] = _entered(known) or _Seen("", now)
            except (OSError, InvalidValueError) as error:
                self.seen[entry] = _entered(known) or _Seen("", now, _REFUSED, _said(error))
                self.refused[entry] = _said(error)

    def told(self) -> str:
        """Return the message of a tick on all entries."""
        status = {entry: seen.status for entry, seen in self.seen.items()}
        reasons = {e: seen.reason for e, seen in self.seen.items() if seen.status == _REFUSED}
        groups = {
            "Entered": self.entered,
            "There already, left as they are": self.present,
            "Changing still": [entry for entry in status if status[entry] == _CHANGING],
            "Quiet, not complete": [entry for entry in status if status[entry] == _QUIET],
            "Not readable": [
                f"{entry} ({reason})"
                for entry, reason in sorted({**reasons, **self.refused}.items())
            ],
        }
        parts = [f"{title}: {_named(names)}" for title, names in groups.items() if names]
        count = len(self.seen)
        parts.append(
            f"{count} entr{'y' if count == 1 else 'ies'} of {self.pattern} in {self.folder}"
        )
        if self.later:
            parts.append(f"{self.later} were left to the next tick")
        return "; ".join(parts) + "."

    def _looked(self, path: Path, known: _Seen | None, now: float) -> _Seen:
        found = signature(path)
        if known is None or known.signature != found:
            return _Seen(found, now)
        if known.status == _ENTERED:
            return known
        if now < known.since:
            # The clock was set back.
            return replace(known, since=now)
        if now - known.since < (self.retry if known.status == _REFUSED else self.settle):
            return known
        return self._tried(path, known, now)

    def _tried(self, path: Path, known: _Seen, now: float) -> _Seen:
        entry = self._name(path)
        try:
            if self.complete is not None and not self.complete(path):
                return replace(known, status=_QUIET, reason="")
            rows = _rows_by_table(self.read(path))
            found = signature(path)
            if found != known.signature:
                # It was written while it was read.
                return _Seen(found, now)
            added = enter(rows)
        except (ConnectionFailedError, TransientError):
            # The error does not concern the entry: the next tick tries again.
            raise
        except Exception as error:
            self.refused[entry] = _said(error)
            return _Seen(known.signature, now, _REFUSED, _said(error))
        (self.entered if added else self.present).append(entry)
        return _Seen(known.signature, now, _ENTERED)

    def _closed(self) -> Iterator[tuple[str, OSError]]:
        """Yield the folders on the way to entries that cannot be read, which `glob` passes over."""
        parts = Path(self.pattern).parts
        for count in range(1, len(parts)):
            for place in self.folder.glob(str(Path(*parts[:count]))):
                try:
                    _check_readable(place)
                except NotADirectoryError:
                    continue
                except OSError as error:
                    # A folder may go in the meantime, but a link that is there leads to nothing.
                    if not isinstance(error, FileNotFoundError) or place.is_symlink():
                        yield self._name(place), error

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _said(error: Exception) -> str:
    text = named_text(error)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _entered(known: _Seen | None) -> _Seen | None:
    # Rows that people deleted must not come back because a file could not be looked at.
    return known if known is not None and known.status == _ENTERED else None


def _check_pattern(pattern: str) -> None:
    try:
        # A look for it in what is not a folder finds nothing.
        parts = Path(pattern).parts
        wrong = not parts or ".." in parts or any(Path(os.devnull).glob(pattern))
    except (TypeError, ValueError, NotImplementedError, IndexError):
        wrong = True
    if wrong:
        raise ConfigurationError(
            f"folder_sensor(pattern={pattern!r}): write a pattern for paths in the folder, such as "
            "'*' or '*/*.csv'."
        )


def _rows_by_table(given: Any) -> dict[Any, list[Mapping[str, Value]]]:
    """Return what `read` gave, with lists of rows.

    Raises
    ------
    InvalidValueError
        If it is something else than rows by table.
    """
    wanted = "Return rows by table, {Scan: [row]}, or raise an error that says why there are none."
    if not isinstance(given, Mapping):
        raise InvalidValueError(f"read returned {given!r:.80}. {wanted}")
    found: dict[Any, list[Any]] = {}
    for table, rows in given.items():
        if not (isinstance(table, Table) or (isinstance(table, type) and issubclass(table, Table))):
            raise InvalidValueError(f"read returned rows for {table!r}, not a table. {wanted}")
        listed = isinstance(rows, Iterable) and not isinstance(rows, str | Mapping)
        found[table] = list(rows) if listed else []
        if not listed or not all(isinstance(row, Mapping) for row in found[table]):
            raise InvalidValueError(
                f"read returned {rows!r:.80} for {_instance(table).name}, not a list of dicts. "
                f"{wanted}"
            )
    return found


def _check_folder(folder: Path) -> None:
    try:
        _check_readable(folder)
    except OSError as error:
        raise ConfigurationError(
            f"The watched folder {folder} cannot be read: {error.strerror}. Make it or mount it; "
            "until then nothing is entered."
        ) from None


def _check_readable(folder: Path) -> None:
    with os.scandir(folder) as found:
        next(found, None)


def enter(rows: Mapping[Any, Sequence[Mapping[str, Value]]]) -> bool:
    """Insert the rows of one entry in one transaction; those that are there are left as they are.

    Returns
    -------
    bool
        Whether there was a new one.

    Raises
    ------
    QueryError
        If a row cannot be inserted, as for a unique index or a parent that is not there; if it
        lacks a part of its key, by which it would be found again; if two rows have one key; or if
        the server takes the key of the last table's row for another one that is there.
    InvalidValueError
        If `rows` is empty: the entry would be left out for good without a message.
    """
    if not any(rows.values()):
        raise InvalidValueError("It gave no rows: raise an error that says why, or return some.")
    tables = [(_instance(table), each) for table, each in rows.items() if each]
    try:
        return _inserted(tables)
    except DuplicateError:
        # Another process may have entered one of them since the look for them.
        return _inserted(tables)


def _inserted(tables: Sequence[tuple[Table, Sequence[Mapping[str, Value]]]]) -> bool:
    added, known = 0, dict[Values, Values]()
    with tables[0][0].connection.transaction:
        for table, rows in tables:
            keyed = _by_key(table, rows)
            known = matched(table.connection, rows_of(table), table.primary_key, keyed)
            new = [row for key, row in keyed.items() if key not in known]
            table.insert(new)
            added += len(new)
        # A parent's row may be spelled in another way, but the entry itself is not there then.
        for key, there in known.items():
            if key != there:
                raise DuplicateError(
                    f"{tables[-1][0].name} has a row {there}, which the server takes for {key}: "
                    "give the entry another name."
                )
    return added > 0


def _by_key(table: Table, rows: Sequence[Mapping[str, Value]]) -> dict[Values, Mapping[str, Value]]:
    """Return rows by their keys as they are fetched later."""
    found: dict[Values, Mapping[str, Value]] = {}
    attributes = [table.heading[name] for name in table.primary_key]
    for row in rows:
        for each in attributes:
            given = row.get(each.name)
            if is_missing(given, each) or (each.autoincrement and not given):
                raise MissingAttributeError(
                    f"A row of {table.name} lacks {each.name}, a part of its key, by which it is "
                    f"known whether the row is there already: give it in {dict(row)}."
                )
        key = tuple(as_fetched(row[each.name], each) for each in attributes)
        if not _is_same(found.setdefault(key, row), row):
            raise DuplicateError(
                f"Two rows of {table.name} have the key "
                f"{dict(zip(table.primary_key, key, strict=True))} and other values."
            )
    return found


def _is_same(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    try:
        return one is other or bool(dict(one) == dict(other))
    except ValueError:
        # Arrays are not compared by ==.
        return False


def _instance(table: type[Table] | Table) -> Table:
    return table() if isinstance(table, type) else table


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
