"""Pieces that SQL backends share: URLs, dates and times, reported tables, rights, SQL elements."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from dj_dagster.errors import ConfigurationError, QueryError
from dj_dagster.local_files import at_home
from dj_dagster.model.heading import Default, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import Family, unquote
from dj_dagster.relational.stored import ForeignKey, RawTable, StoredColumn

Element = sa.ColumnElement[Any]
Select = sa.Select[Any]


class Pieces(sa.ColumnElement[Any]):
    """Consecutive pieces of SQL in parentheses.

    Parameters
    ----------
    pieces
        Text as it is, and columns.
    """

    inherit_cache = True
    _traverse_internals: ClassVar[Any] = [("pieces", InternalTraversal.dp_clauseelement_list)]

    def __init__(self, pieces: Sequence[str | Element]) -> None:
        self.pieces = [
            sa.literal_column(piece) if isinstance(piece, str) else piece for piece in pieces
        ]


class LongPieces(Pieces):
    """Pieces too long to be kept in SQLAlchemy's cache of statements."""

    inherit_cache = False


@compiles(Pieces)
def _compiled(element: Pieces, compiler: SQLCompiler, **options: object) -> str:
    # The pieces are not columns of the result; only the whole expression is.
    options.pop("add_to_result_map", None)
    return f"({''.join(compiler.process(piece, **options) for piece in element.pieces)})"


READING = "SELECT"
EVERYTHING = "ALL PRIVILEGES"

_SHOWING = {READING, "INSERT", "UPDATE", "REFERENCES", EVERYTHING}
"""Privileges of a schema whose tables are shown with all their columns."""


@dataclass(frozen=True)
class Rights:
    """The privileges that were granted; uncertain ones count as not granted.

    Attributes
    ----------
    everywhere
        Privileges on all tables of the server.
    schemas
        Privileges on schemas with matching names.
    tables
        Privileges on single tables, without those on single columns.
    revoked
        By schema, the privileges in `everywhere` that do not hold there.
    """

    everywhere: frozenset[str] = frozenset()
    schemas: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = ()
    tables: Mapping[TableName, frozenset[str]] = field(
        default_factory=dict[TableName, frozenset[str]]
    )
    revoked: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @property
    def shows_schemas(self) -> bool:
        """Whether the names of all schemas are shown."""
        return bool(self.everywhere & {READING, "SHOW DATABASES", EVERYTHING}) and not self.revoked

    def shows_tables(self, schema: str) -> bool:
        """Whether all tables of a schema are shown, with all their columns."""
        return bool(self._of_schema(schema) & _SHOWING)

    def reads(self, name: TableName) -> bool:
        """Whether all rows of a table may be read, with all their columns."""
        granted = self._of_schema(name.schema) | self.tables.get(name, frozenset())
        return bool(granted & {READING, EVERYTHING})

    def _of_schema(self, schema: str) -> frozenset[str]:
        matching = [given for name, given in self.schemas if name.fullmatch(schema)]
        # If several names match, the server takes the closest one.
        own = frozenset[str].intersection(*matching) if matching else frozenset[str]()
        revoked = self.revoked.get(schema)
        if revoked is None:
            return self.everywhere | own
        return (frozenset() if EVERYTHING in revoked else self.everywhere - revoked) | own


ALL_RIGHTS = Rights(frozenset({EVERYTHING}))


_TYPE = re.compile(r"([a-z][a-z0-9 ]*)(\([0-9, ]+\))?")
_SPELLINGS = {
    "int": "signed",
    "integer": "signed",
    "bigint": "signed",
    "signed integer": "signed",
    "unsigned integer": "unsigned",
    "int unsigned": "unsigned",
    **{f"int{bits}": "signed" for bits in (8, 16, 32, 64)},
    "bool": "signed",
    "numeric": "decimal",
    "double": "float",
    "real": "float",
    "float32": "float",
    "float64": "float",
    "varchar": "char",
    "text": "char",
}


MYSQL_CASTS = {
    "signed": "signed",
    "unsigned": "unsigned",
    "decimal": "decimal",
    "float": "double",
    "char": "char",
    "date": "date",
    "datetime": "datetime",
    "time": "time",
}
"""Names of types in MySQL's CAST, for `cast_type`."""


def cast_type(text: str, known: Mapping[str, str]) -> str:
    """Return the name of a type for CAST, with its size.

    Parameters
    ----------
    text
        The type in any usual form: ``signed``, ``int32``, ``decimal(10,2)``.
    known
        The database's names for ``signed``, ``unsigned``, ``decimal``, ``float``, ``char``,
        ``date``, ``datetime`` and ``time``.

    Raises
    ------
    QueryError
        If the type is not one of these.

    Examples
    --------
    >>> cast_type("numeric(10,2)", {"decimal": "DECIMAL"})
    'DECIMAL(10,2)'
    """
    match = _TYPE.fullmatch(text)
    kind = known.get(_SPELLINGS.get(match[1].strip(), match[1].strip())) if match else None
    if match is None or kind is None:
        raise QueryError(
            f"A value inside JSON cannot be converted to {text!r}. Write one of "
            f"{', '.join(known)}, such as ':decimal(10,2)'."
        )
    return kind + (match[2] or "")


Reported = list[Sequence[Any]]
"""Rows of a catalogue that belong to one thing."""

Reference = tuple[TableName, dict[str, str]]
"""The parent of a foreign key, and ``{child attribute: parent attribute}``."""


def grouped(rows: Iterable[Sequence[Any]]) -> defaultdict[Any, Reported]:
    """Return rows grouped by their first value, without that value, in their order."""
    groups = defaultdict[Any, Reported](list)
    for first, *rest in rows:
        groups[first].append(rest)
    return groups


def raw_table(
    name: TableName,
    comment: str,
    columns: Sequence[StoredColumn],
    key: Sequence[str],
    references: Iterable[Reference],
    unique: Iterable[tuple[str, ...]],
) -> RawTable:
    """Return a table from the parts that a database reports."""
    indexes = tuple(unique)
    optional = {column.name for column in columns if column.nullable}
    foreign_keys = tuple(
        ForeignKey(
            name,
            parent,
            attributes,
            primary=attributes.keys() <= set(key),
            nullable=bool(optional & attributes.keys()),
            unique=tuple(attributes) in indexes,
        )
        for parent, attributes in references
    )
    return RawTable(name, comment, tuple(columns), tuple(key), foreign_keys, indexes)


def datetime_text(value: datetime | str, digits: int) -> str:
    """Return ``YYYY-MM-DD HH:MM:SS[.ffffff]`` with a fixed number of digits, so that text sorts.

    A zero date is a text already.

    >>> datetime_text(datetime(2026, 1, 2, 3, 4, 5, 60000), 3)
    '2026-01-02 03:04:05.060'
    """
    if isinstance(value, str):
        return value
    return value.isoformat(" ", "seconds") + _fraction(value.microsecond, digits)


def time_text(value: timedelta, digits: int) -> str:
    """Return ``[-]HH:MM:SS[.ffffff]`` with a fixed number of digits.

    >>> time_text(timedelta(hours=-30, minutes=-5), 0)
    '-30:05:00'
    """
    seconds, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    sign, (minutes, rest) = "-" if value < timedelta(0) else "", divmod(seconds, 60)
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}{_fraction(micros, digits)}"


_DURATION = re.compile(r"(-?)(\d{1,3}):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?").fullmatch

_HAS_ZERO = re.compile(r"(?:0000-\d\d-\d\d|\d{4}-00-\d\d|\d{4}-\d\d-00)(?:[ T].*)?").fullmatch


def as_datetime(value: str | datetime) -> datetime:
    """Return a datetime from a driver's value."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def datetime_or_zero(value: str | datetime) -> datetime | str:
    """Return a datetime from a driver's value; a zero date, which MySQL can hold, as its text."""
    return value if isinstance(value, str) and _HAS_ZERO(value) else as_datetime(value)


def date_or_zero(value: str | date) -> date | str:
    """Return a date from a driver's value; a zero date, which MySQL can hold, as its text."""
    if isinstance(value, date):
        return value
    return value if _HAS_ZERO(value) else date.fromisoformat(value)


def as_time(value: Value) -> timedelta:
    """Return the value of an attribute of type time: a time of day, or a duration of either sign.

    Raises
    ------
    ValueError
        For a text that is neither, and for a time with a time zone.
    TypeError
        For any other value.
    """
    if isinstance(value, timedelta):
        return value
    duration = _DURATION(value) if isinstance(value, str) else None
    if duration is not None:
        sign, hours, minutes, seconds, fraction = duration.groups()
        micros = int((fraction or "0").ljust(6, "0"))
        found = timedelta(0, int(seconds), micros, 0, int(minutes), int(hours))
        return -found if sign else found
    clock = time.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(clock, time):
        raise TypeError(f"{value!r:.80} is not a time")
    if clock.tzinfo is not None:
        raise ValueError("the database keeps no time zone")
    return datetime.combine(date.min, clock) - datetime.min


class _Bools(dict[Any, bool]):
    """The booleans by their numbers, a lookup in which is as fast as `bool`."""

    def __missing__(self, key: object) -> bool:
        raise ValueError(f"{key!r:.80}")


as_bool = _Bools({0: False, 1: True}).__getitem__


def is_odd(value: Value, family: Family) -> bool:
    """Whether a value is a zero date, which MySQL can hold but Python's types cannot."""
    is_date = family in (Family.DATE, Family.DATETIME)
    return is_date and isinstance(value, str) and _HAS_ZERO(value) is not None


def sortable(value: Value) -> Value:
    """Return a sort key for a value of a key, which also works beside odd values.

    >>> sorted([date(2026, 1, 2), "0000-00-00"], key=sortable)[0]
    '0000-00-00'
    """
    return str(value) if isinstance(value, date) else value


def _fraction(microsecond: int, digits: int) -> str:
    return f".{microsecond:06d}"[: digits + 1] if digits else ""


def unquoted_name(name: str) -> str:
    """Return a name that is written in backticks."""
    return name[1:-1].replace("``", "`")


_SECRET = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
"""Options in the query of a URL whose values are secret: ``password``, ``ssl_key_password``."""

_HARMLESS = re.compile(
    r"ssl\w*|\w*timeout|charset|collation|use_unicode|unix_socket|sql_mode|autocommit|compress|"
    r"local_infile|client_flag|read_default_\w+|mode|cache|uri|vfs|check_same_thread",
    re.IGNORECASE,
)
"""Options whose values may be shown, unless they are secret; those of others may be anything."""

MASK = "***"
"""The text that is shown in place of a secret."""

NO_TLS = "ssl_disabled"
"""The option in the query of a URL that declines encryption."""

_TLS = "ssl_"

TLS_FILES = ("ca", "capath", "cert", "key")
"""The parts of the setting ``use_tls`` that are paths."""

TLS_OPTIONS = tuple(f"{_TLS}{name}" for name in TLS_FILES)
"""The same in the query of a URL."""


def parsed_url(text: str | sa.URL, name: str = "This") -> sa.URL:
    """Parse the text of a URL, and write out the ``~`` of a file.

    Parameters
    ----------
    name
        The place where the text was set, for the error.

    Raises
    ------
    ConfigurationError
        If it is not a URL, or not clear. The text is not shown, for it may hold a password.
    """
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{name} is not a database URL. Write sqlite:///path/to/file.sqlite or "
            "mysql+pymysql://user:password@host:port/."
        ) from None
    # The rest of a password would be shown, and sent to a name server.
    if url.host and "@" in f"{url.host}{url.database}":
        raise ConfigurationError(
            f"{name} is a database URL with an @ too many. In a password, write %40 for @, %2F "
            "for / and %25 for %."
        )
    return _of_file(url, name) if url.drivername.startswith("sqlite") else url


def _of_file(url: sa.URL, name: str) -> sa.URL:
    """Return the URL of a SQLite file for the driver that is used."""
    if url.host or url.drivername not in ("sqlite", "sqlite+pysqlite"):
        file = (
            (url.host or "") if not url.database else f"{url.host or ''}/{url.database}".lstrip("/")
        )
        raise ConfigurationError(
            f"{name} is not the URL of a SQLite file. Write sqlite:/// and its path: "
            f"sqlite:///{file or 'lab.sqlite'}, or sqlite:////data/lab.sqlite for /data/lab.sqlite."
        )
    if url.database and url.database.startswith("~"):
        return url.set(database=str(at_home(url.database, f"The file of {name}")))
    return url


def begin_with(engine: sa.Engine, statement: str) -> None:
    """Run a statement on each new connection to a server before it is used.

    Raises
    ------
    ConfigurationError
        When a connection is made, if the server refuses the statement.
    """

    def begin(connection: DBAPIConnection, record: object) -> None:
        del record
        with closing(connection.cursor()) as cursor:
            try:
                cursor.execute(statement)
            except Exception as error:
                raise ConfigurationError(
                    f"The first statement of a connection, {statement!r}, was refused: {error}. "
                    "Correct the setting connection.init_function, or the argument init_fun."
                ) from error

    event.listen(engine, "connect", begin)


class Secret(str):
    """A text that is not shown where its `repr` is, as in a dict that is printed."""

    def __repr__(self) -> str:
        return repr(MASK)


def shown_url(url: sa.URL) -> str:
    """Return a URL for people to read: its password is masked, in its query as well.

    So are the values of options that are not known to be harmless.

    Examples
    --------
    >>> shown_url(sa.make_url("mysql+pymysql://me:secret@db/?passwd=secret"))
    'mysql+pymysql://me:***@db/?passwd=%2A%2A%2A'
    """
    masked = {name: MASK for name in url.query if _may_be_secret(name)}
    return url.update_query_dict(masked).render_as_string(hide_password=True)


def without_secrets(url: sa.URL) -> tuple[sa.URL, dict[str, str]]:
    """Return a URL without the secrets in its query, and the secrets as options of the driver.

    SQLAlchemy masks the password of a URL wherever it shows one, but not secrets in its query.
    """
    secrets = {n: v for n, v in url.query.items() if _may_be_secret(n) and isinstance(v, str)}
    return url.difference_update_query(list(secrets)), secrets


def _may_be_secret(option: str) -> bool:
    return _SECRET.search(option) is not None or not _HARMLESS.fullmatch(option)


def demands_tls(url: sa.URL) -> bool:
    """Return whether the query of a URL asks for an encrypted connection."""
    return any(name.startswith(_TLS) and name != NO_TLS for name in url.query)


def leaves_tls_open(url: sa.URL) -> bool:
    """Return whether the query of a URL names neither an option of TLS nor a file of options."""
    return not any(name.startswith(("ssl", "read_default")) for name in url.query)


_NOW = re.compile(r"(?:current_timestamp|now)(?:\(([0-9]*)\))?", re.IGNORECASE)
_TEXTS = ("char", "varchar", "enum", "set")


def reported_default(text: str | None, kind: str, extra: str) -> Default | None:
    """Read the default of a column as MySQL or MariaDB reports it.

    Parameters
    ----------
    kind
        The type of the column.
    extra
        The rest of the server's message. It has the word ``quoted`` where the server reports SQL,
        as MariaDB does; MySQL reports texts themselves.
    """
    if text is None:
        return None
    said = extra.lower()
    if kind.startswith(_TEXTS) and "quoted" not in said and "default_generated" not in said:
        return Default(text)
    if text.upper() == "NULL":
        return None
    if now := _NOW.fullmatch(text):
        return Default(f"CURRENT_TIMESTAMP({now[1]})" if now[1] else "CURRENT_TIMESTAMP", True)
    if len(text) > 1 and text.startswith("'") and text.endswith("'"):
        return Default(unquote(text))
    return Default(text)
