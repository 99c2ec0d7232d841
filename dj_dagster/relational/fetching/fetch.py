"""Fetching: running of queries, reuse of their SQL by shape, and decoding of their values.

Only the shapes of frequent queries are recognised: a table restricted by values or SQL, with or
without a projection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat

from sqlalchemy.exc import CompileError

from dj_dagster.errors import DataJointError, InvalidValueError, QueryError, QuerySyntaxError
from dj_dagster.model.heading import Attribute, Heading, Row, Value, Values
from dj_dagster.relational.algebra.nodes import (
    All,
    Base,
    Condition,
    Equals,
    Node,
    Projected,
    Restricted,
    SQLText,
)
from dj_dagster.relational.algebra.operators import restrictions, unknown
from dj_dagster.relational.backends import Backend
from dj_dagster.relational.backends.common import Element, Select
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.sessions import Tuples, fetch_select, fetch_sql, stream_select
from dj_dagster.relational.database.write import flush_before_reading
from dj_dagster.relational.fetching.decode import (
    RowDecoder,
    column_decoder,
    holds_bytes,
    in_row,
)
from dj_dagster.relational.sql.lowering import Lowering, with_literals
from dj_dagster.relational.sql.select import (
    ALL_ROWS,
    NOT_COMPARABLE,
    Lowered,
    Order,
    Window,
    bound,
    make_window,
    user_texts,
)

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1000
CHUNK_BYTES = 2**20
"""Bytes that a streaming query reads ahead; a larger row is read alone."""


def rows(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    window: Window = ALL_ROWS,
    *,
    squeeze: bool = False,
) -> Sequence[Values]:
    """Return the named attributes of the rows of a window, decoded.

    Raises
    ------
    UnknownAttributeError
        If a name is not in the query's heading.
    """
    try:
        fetched, decoder = _fetched(connection, node, names, window, squeeze)
        return decoder.rows(fetched)
    except InvalidValueError as error:
        raise _in_row(error, connection, node, names, window) from error.__cause__


def readable(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Order = None,
    limit: int | None = None,
) -> tuple[Sequence[Values], Sequence[InvalidValueError]]:
    """Return keys that can be read and found by their values, and the errors of the others.

    Other programs may have written a value that is not of its type, or in another form. Such a
    value affects only its own row.
    """
    window = make_window(order_by, limit, None, node.heading)
    try:
        fetched, decoder = _fetched(connection, node, names, window, squeeze=False)
    except InvalidValueError as error:
        if "UTF-8" not in str(error):
            raise
        decoder = _decoder(connection, node, names)
        legible, wrong = _legible(connection, node, names, window)
        found, errors = decoder.readable(legible)
        return found, [*wrong, *errors]
    return decoder.readable(fetched)


def keys(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    order_by: Order = None,
    limit: int | None = None,
) -> Sequence[Values]:
    """Return the keys that can be read; a warning in the log gives the first error."""
    found, errors = readable(connection, node, names, order_by, limit)
    if errors:
        logger.warning("%d keys are left out, the first: %s", len(errors), errors[0])
    return found


def columns(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    window: Window = ALL_ROWS,
    *,
    squeeze: bool = False,
) -> dict[str, Sequence[Value]]:
    """Return the named attributes of the rows of a window, decoded, one sequence an attribute."""
    names = list(dict.fromkeys(names))
    try:
        fetched, decoder = _fetched(connection, node, names, window, squeeze)
        return dict(zip(names, decoder.columns(fetched), strict=True))
    except InvalidValueError as error:
        raise _in_row(error, connection, node, names, window) from error.__cause__


def as_dicts(names: Sequence[str], rows: Iterable[Values]) -> list[Row]:
    """Return rows of the named attributes as dicts."""
    # Without `strict`, which rows of a SELECT of these names do not need: it takes a third longer.
    return list(map(dict, map(zip, repeat(names), rows)))


def not_one(connection: Connection, node: Node, several: bool) -> QueryError:
    """Return the error for a query that does not have exactly one row, but none or several."""
    found = f"{count(connection, node)} rows" if several else "no row"
    tables, by = ", ".join(sorted(map(str, node.tables))), restrictions(node)
    told = f", restricted by {'; '.join(by)}," if by else ""
    return QueryError(f"fetch1 expects exactly one row; the query over {tables}{told} has {found}.")


def stream(connection: Connection, node: Node, names: Sequence[str]) -> Generator[Values]:
    """Yield the named attributes of a query's rows, decoded, without holding them all.

    The rows come over a connection of their own, so that other queries go on meanwhile. In a
    transaction, whose rows no other connection sees, they are all fetched at first and decoded a
    chunk at a time; so are those of a database in memory, which has one connection only.
    """
    flush_before_reading(connection, node.tables)
    try:
        yield from _streamed(connection, node, names)
    except InvalidValueError as error:
        raise _in_row(error, connection, node, names) from error.__cause__


@dataclass(frozen=True, slots=True)
class RawRow:
    """A value as its column's type, before any codec, and its row.

    Attributes
    ----------
    stored
        The value as the driver gives it.
    place
        The key as the driver gives it.
    decode
        Decodes the row and raises the error if that fails.
    """

    value: Value
    stored: Value
    key: Row
    place: Values
    decode: Callable[[], object]


def raw_rows(
    connection: Connection, node: Node, name: str, after: Values | None = None
) -> Iterator[RawRow]:
    """Yield an attribute's values in the order of the key, read in pages.

    Parameters
    ----------
    after
        The place of the row after which to continue, if `can_go_on` is true for the heading.
    """
    heading = node.heading
    names = list(dict.fromkeys((name, *heading.primary_key)))
    decoder = RowDecoder(connection, heading, names)
    simple = RowDecoder(connection, heading, heading.primary_key)
    inner = column_decoder(heading[name], connection)
    positions = [decoder.names.index(part) for part in heading.primary_key]
    try:
        for page in _pages(connection, node, decoder.names, after):
            for row in page:
                place = tuple(row[position] for position in positions)
                try:
                    (key,) = simple.rows([place])
                except InvalidValueError:
                    # The error is raised when the row is decoded.
                    key = place
                known = dict(zip(heading.primary_key, key, strict=True))
                decode = partial(decoder.rows, [row])
                yield RawRow(_inner(row[0], inner), row[0], known, place, decode)
    except InvalidValueError as error:
        raise _in_row(error, connection, node, names) from error.__cause__


def can_go_on(heading: Heading) -> bool:
    """Whether a query can select the rows after a given one in the order of the key."""
    kinds = [heading[name].type for name in heading.primary_key]
    return bool(kinds) and all(
        kind is not None and kind.family not in NOT_COMPARABLE for kind in kinds
    )


def _inner(value: Value, decode: Callable[[Value], Value] | None) -> Value:
    if value is None or decode is None:
        return value
    try:
        return decode(value)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        # The error is raised by the code that reads the value.
        return value


def _pages(
    connection: Connection, node: Node, names: Sequence[str], after: Values | None
) -> Iterator[Tuples]:
    """Yield pages of rows, each read by a query of its own that is complete before the yield."""
    key = node.heading.primary_key
    if not can_go_on(node.heading):
        select = _select(connection, node, names, ALL_ROWS)
        yield connection.read(fetch_select, select)
        return
    size = 1
    while True:
        lowered = _lowered(connection, node, names, ALL_ROWS)
        columns = [lowered.columns[name] for name in key]
        select = lowered.select(*names)
        if after is not None:
            select = select.where(connection.backend.is_beyond(columns, after))
        select = select.order_by(None).order_by(*columns).limit(size)
        page = connection.read(fetch_select, select)
        yield page
        if len(page) < size:
            return
        after = tuple(page[-1][names.index(name)] for name in key)
        size = _next_size(page, size)


def _streamed(connection: Connection, node: Node, names: Sequence[str]) -> Generator[Values]:
    if connection.holds_transaction or connection.is_in_memory:
        fetched, decoder = _fetched(connection, node, names, ALL_ROWS, squeeze=False)
        step = 1 if decoder.unpacks else CHUNK_ROWS
        for start in range(0, len(fetched), step):
            yield from decoder.rows(fetched[start : start + step])
        return
    decoder = _decoder(connection, node, names)
    select = _select(connection, node, decoder.names, ALL_ROWS)
    first = 1 if decoder.unpacks else CHUNK_ROWS
    with connection.session_apart() as session, connection.backend.streaming(session):

        def stop() -> None:
            connection.backend.stop_query(connection.engine, session)

        with closing(stream_select(session, select, first, _next_size, stop)) as chunks:
            for chunk in chunks:
                yield from decoder.rows(chunk)


def count(connection: Connection, node: Node) -> int:
    """Return the number of rows."""
    lowering = Lowering(connection.backend)
    found, _ = read(connection, node, "count", lambda: Reading(lowering.lower(node).count()))
    return found[0][0]


def exists(connection: Connection, node: Node) -> bool:
    """Return whether there is any row."""
    lowering = Lowering(connection.backend)
    found, _ = read(connection, node, "exists", lambda: Reading(lowering.lower(node).exists()))
    return bool(found)


def sql_text(connection: Connection, node: Node, names: Sequence[str]) -> str:
    """Return the SQL that reads named attributes, with literal values, for people to read."""
    for name in names:
        if name not in node.heading:
            raise unknown(name, node.heading)
    select = Lowering(connection.backend).lower(node).select(*names)
    dialect = connection.engine.dialect
    try:
        return with_literals(select, dialect)
    except CompileError:
        # A value without a literal is left as a placeholder.
        return str(select.compile(dialect=dialect))


def _fetched(
    connection: Connection, node: Node, names: Sequence[str], window: Window, squeeze: bool
) -> tuple[Tuples, RowDecoder]:
    """Return rows as the driver gives them, and their decoder."""

    def make() -> Reading:
        decoder = _decoder(connection, node, names, squeeze)
        return Reading(_select(connection, node, decoder.names, window), decoder)

    found, decoder = read(connection, node, (*names, window), make)
    return found, decoder or _decoder(connection, node, names, squeeze)


def _in_row(
    error: InvalidValueError,
    connection: Connection,
    node: Node,
    names: Sequence[str],
    window: Window = ALL_ROWS,
) -> InvalidValueError:
    """Return the error of an unreadable value with its row, where the error lacks the key."""
    key = [name for name in node.heading.primary_key if name not in names]
    found = None
    if "UTF-8" in str(error):
        found = _no_text(connection, node, [*names, *key], window)
    elif key:
        with suppress(DataJointError):
            fetched, decoder = _fetched(connection, node, [*names, *key], window, squeeze=False)
            try:
                decoder.rows(fetched)
            except InvalidValueError as told:
                found = told
    return found or error


def _no_text(
    connection: Connection, node: Node, names: Sequence[str], window: Window
) -> InvalidValueError | None:
    """Return the error of the first text that is not UTF-8, for which the driver itself fails."""
    return next(iter(_legible(connection, node, names, window)[1]), None)


def _legible(
    connection: Connection, node: Node, names: Sequence[str], window: Window
) -> tuple[list[Values], list[InvalidValueError]]:
    """Return the rows whose texts are UTF-8, and the errors of the others, read as bytes."""
    select = _select(connection, node, names, window, connection.backend.undecoded)
    attributes = [node.heading[name] for name in names]
    texts = [
        (position, attribute)
        for position, attribute in enumerate(attributes)
        if not holds_bytes(attribute, connection)
    ]
    found: list[Values] = []
    errors: list[InvalidValueError] = []
    for row in connection.read(fetch_select, select):
        cells = list(row)
        try:
            for position, attribute in texts:
                if isinstance(cells[position], bytes):
                    cells[position] = _text(cells[position], attribute)
        except InvalidValueError as error:
            given = dict(zip(names, map(_shown, row), strict=True))
            key = {name: given[name] for name in node.heading.primary_key if name in given}
            errors.append(InvalidValueError(f"{error}{in_row(key)}"))
        else:
            found.append(tuple(cells))
    return found, errors


def _text(value: bytes, attribute: Attribute) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"{attribute.table}.{attribute.name} holds text that is not UTF-8: {value!r:.80} "
            f"({error.reason}). Another program has written it; fetch the other attributes with "
            "proj."
        ) from error


def _shown(value: Value) -> Value:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _decoder(
    connection: Connection, node: Node, names: Sequence[str], squeeze: bool = False
) -> RowDecoder:
    for name in names:
        if name not in node.heading:
            raise unknown(name, node.heading)
    return RowDecoder(connection, node.heading, names, squeeze=squeeze)


def _select(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    window: Window,
    spelled: Callable[[Element], Element] = lambda column: column,
) -> Select:
    return _lowered(connection, node, names, window, spelled).select(*names)


def _lowered(
    connection: Connection,
    node: Node,
    names: Sequence[str],
    window: Window,
    spelled: Callable[[Element], Element] = lambda column: column,
) -> Lowered:
    lowering = Lowering(connection.backend)
    lowered = lowering.ordered(node, window.order, window.limit, window.offset)
    stored = {
        name: spelled(connection.backend.fetched(lowered.columns[name], kind))
        for name in names
        if (kind := node.heading[name].type) is not None
    }
    return replace(lowered, columns=lowered.columns | stored)


def _next_size(chunk: Tuples, size: int) -> int:
    """Return the number of rows to read next: more if they are small, fewer if they are large."""
    read = sum(len(value) for row in chunk for value in row if isinstance(value, bytes | str))
    if read > CHUNK_BYTES:
        return max(1, size // 2)
    return min(CHUNK_ROWS, 2 * size) if 2 * read < CHUNK_BYTES else size


@dataclass(frozen=True, slots=True)
class Reading:
    """A SELECT and the decoder of its rows, None if its values need no decoding."""

    select: Select
    decoder: RowDecoder | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The SQL of a shape of query; its parameters are the query's values, then `tail`.

    Attributes
    ----------
    decoder
        None for rows without a decoder, and for codecs, which can be registered anew.
    """

    sql: str
    tail: Values
    decoder: RowDecoder | None


def read(
    connection: Connection, node: Node, what: Hashable, make: Callable[[], Reading]
) -> tuple[Tuples, RowDecoder | None]:
    """Return rows as the driver gives them, and their decoder if it is known.

    Parameters
    ----------
    what
        Everything that the SELECT depends on besides the query itself.
    make
        Returns the SELECT; not called for a shape and `what` that are known.

    Raises
    ------
    QuerySyntaxError
        If SQL of the user cannot be parsed; the message shows the SQL.
    """
    if connection.write_buffer is not None:
        flush_before_reading(connection, node.tables)
    try:
        shape, values = shape_of(node, connection.backend)
        compiled = None if shape is None else connection.statements.get((shape, what))
        if compiled is None:
            reading = make()
            compiled = None if shape is None else _compile(connection, reading, values)
            if compiled is None:
                return connection.read(fetch_select, reading.select), reading.decoder
            connection.statements.put((shape, what), compiled)
        parameters = (*values, *compiled.tail)
        return connection.read(fetch_sql, compiled.sql, parameters), compiled.decoder
    except QuerySyntaxError as error:
        written = ", ".join(map(repr, user_texts(node)))
        raise QuerySyntaxError(f"{error}. Look at {written}." if written else str(error)) from error


def _compile(connection: Connection, reading: Reading, values: Sequence[Value]) -> Compiled | None:
    """Return a statement for all values, None if its parameters are not the expected ones."""
    compiled = reading.select.compile(dialect=connection.engine.dialect)
    names = compiled.positiontup or []
    given = [compiled.params[name] for name in names]
    # SQLAlchemy's names for the parameters of LIMIT and OFFSET.
    counted = all(name.startswith("param_") for name in names[len(values) :])
    if given[: len(values)] != list(values) or not counted:
        return None
    decoder = reading.decoder
    kept = None if decoder is not None and decoder.unpacks else decoder
    return Compiled(compiled.string, tuple(given[len(values) :]), kept)


def shape_of(node: Node, backend: Backend) -> tuple[Hashable | None, list[Value]]:
    """Return the shape of a query and its values for the driver, in the order of its SQL.

    The shape contains the heading objects themselves, so that an altered table has another shape.
    It is None for a query whose SQL has to be built each time.

    Raises
    ------
    InvalidValueError
        If a value is of another kind than its attribute.
    """
    values: list[Value] = []
    return _node(node, backend, values), values


def _node(node: Node, backend: Backend, values: list[Value]) -> Hashable | None:
    # The exact class: another kind of node may extend one of these.
    kind = type(node)
    if kind is Base:
        assert isinstance(node, Base)
        return (node.name, node.heading)
    if kind is Restricted:
        assert isinstance(node, Restricted)
        source = _node(node.source, backend, values)
        if source is None:
            return None
        condition = _condition(node.condition, node.source.heading, backend, values)
        return None if condition is None else (source, condition)
    if kind is Projected:
        assert isinstance(node, Projected)
        if not all(type(old) in (str, SQLText) for old in node.columns.values()):
            return None
        source = _node(node.source, backend, values)
        return None if source is None else (source, *node.columns.items())
    return None


def _condition(
    condition: Condition, heading: Heading, backend: Backend, values: list[Value]
) -> Hashable | None:
    if isinstance(condition, Equals):
        if condition.value is None:
            return (condition.name, None)
        if heading[condition.name].type is None:
            # How it is compared depends on the value.
            return None
        values += bound([condition.value], heading[condition.name], backend)
        return condition.name
    if isinstance(condition, SQLText):
        return condition
    if isinstance(condition, All):
        parts = [_condition(part, heading, backend, values) for part in condition.conditions]
        return None if None in parts else tuple(parts)
    return None
