"""Alteration of a table, in place or by moving its rows to a new one, with values converted.

Each value becomes an equal one, or is refused, with the same result on all backends. Servers
convert more, but lose values silently: MySQL takes a number for the position of an enum's value and
the bytes of a UUID for text, and it rounds. Such a change is refused if there are values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import (
    AccessError,
    DefinitionError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    MissingTableError,
    QueryError,
    counted,
)
from dj_dagster.model.heading import Attribute, Value
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.algebra.operators import all_rows
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.caller import Confirm
from dj_dagster.relational.database.catalog import resolve
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.declaring.alteration import (
    Alteration,
    Present,
    alteration,
    altered_meanwhile,
    needed_indexes,
    single_floats,
)
from dj_dagster.relational.declaring.declare import refused, reported
from dj_dagster.relational.declaring.describe import index_line
from dj_dagster.relational.declaring.plan import (
    PlannedColumn,
    PlannedTable,
    TableSQL,
    create_statements,
    in_server_words,
    moment_text,
)
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.old_layout import ensure_external_tables
from dj_dagster.relational.old_log import log_change
from dj_dagster.relational.stored import ColumnChange, Remaking, StoredTable, TableChanges
from dj_dagster.relational.values import checked, integer_range, read_json, shown


def alter_table(connection: Connection, plan: PlannedTable, confirm: Confirm | None) -> bool:
    """Give a table the attributes, foreign keys, indexes and comment of its definition.

    Parameters
    ----------
    plan
        The table that the definition asks for.
    confirm
        Called first with the changes as text; None to proceed without asking.

    Returns
    -------
    bool
        Whether anything was changed.

    Raises
    ------
    DefinitionError
        If the primary key would change, or the rows cannot satisfy the definition. Nothing is
        changed then.
    QueryError
        Inside a transaction, which MySQL would commit.
    """
    if connection.holds_transaction or connection.write_buffer is not None:
        raise QueryError(f"{plan.name} cannot be altered inside a transaction or a make.")
    present = _present(connection, plan)
    changes = find_changes(connection, present, plan)
    if not changes:
        return False
    _check_rows(connection, present.stored, changes)
    question = "\n  ".join([f"Altering {plan.name}", *changes.lines()])
    if confirm is not None and not confirm(question):
        return False
    try:
        ensure_external_tables(connection, plan)
        _apply(connection, present, changes)
        if connection.backend.keeps_lineage and not plan.old:
            declare.write(connection, plan.name, plan.lineage)
    finally:
        # Tables that refer to it inherit types from it.
        for schema in {t.name.schema for t in connection.catalog.related(plan.name.schema)}:
            connection.catalog.forget(schema)
    log_change(connection, "Altered", plan.name)
    return True


def _apply(connection: Connection, present: Present, changes: Alteration) -> None:
    with refused(changes.plan.name, "altered"):
        try:
            if connection.backend.alters_tables:
                alter(connection, present, changes)
            else:
                rebuild(connection, present, changes)
        except DuplicateError as error:
            raise _duplicates(connection, present, changes, error) from error.__cause__


def _duplicates(
    connection: Connection, present: Present, changes: Alteration, error: DuplicateError
) -> DuplicateError:
    """Return the error for rows that a unique index of the changed table refuses."""
    unique = [index for index in changes.plan.indexes if index.unique]
    for index in unique:
        shared = _shared(connection, present.stored, changes, index.parts)
        if shared:
            return DuplicateError(
                f"{changes.plan.name} cannot have {index_line(index)}, because several rows would "
                f"have {shared}. Correct the rows, or leave the index out."
            )
    lines = ", ".join(map(index_line, unique)) or "its primary key"
    return DuplicateError(f"{changes.plan.name} cannot have {lines}: {error}")


def _shared(
    connection: Connection, stored: StoredTable, changes: Alteration, parts: Sequence[str]
) -> str:
    """Return the values that several rows would have for the parts of an index, or ""."""
    before = [stored.heading.all_attributes.get(changes.renamed.get(p, p)) for p in parts]
    pairs = [(old, changes.attributes[p]) for p, old in zip(parts, before, strict=True) if old]
    families = {_kind(old).family for old, _ in pairs}
    if len(pairs) < len(parts) or families & {Family.JSON, Family.CODEC}:
        # A part of a text, an expression, a new attribute, or values without a hash.
        return ""
    maps = [conversions(connection, stored, old, new) for old, new in pairs]
    rows = fetch.rows(
        connection, all_rows(stored.name, stored.heading), [old.name for old, _ in pairs]
    )
    seen = Counter(
        tuple(new.get(value, value) for new, value in zip(maps, row, strict=True))
        for row in rows
        if None not in row
    )
    [(values, count)] = seen.most_common(1) or [((), 0)]
    shared = (f"{part} = {shown(value)}" for part, value in zip(parts, values, strict=False))
    return ", ".join(shared) if count > 1 else ""


def find_changes(connection: Connection, present: Present, plan: PlannedTable) -> Alteration:
    """Return the difference between a table and its plan."""
    backend = connection.backend

    def wanted(planned: PlannedTable) -> StoredTable:
        return resolve(reported(planned, backend), connection.catalog.find)

    return alteration(
        present,
        plan,
        wanted,
        backend.index_part,
        server_indexes_keys=backend.indexes_in_table,
    )


def _present(connection: Connection, plan: PlannedTable) -> Present:
    connection.catalog.forget(plan.name.schema)
    raw, stored = connection.catalog.raw(plan.name), connection.catalog.find(plan.name)
    if raw is None or stored is None:
        raise MissingTableError(f"There is no table {plan.name} in {connection.url} to alter.")
    with connection.cursor() as session:
        indexes = connection.backend.indexes(session, *plan.name)
    return Present(raw, stored, indexes.get(plan.name.table, {}))


def _check_rows(connection: Connection, stored: StoredTable, changes: Alteration) -> None:
    """Refuse changes that existing rows cannot satisfy, before anything is changed."""
    rows = all_rows(stored.name, stored.heading)
    if not fetch.exists(connection, rows):
        return
    for name in changes.added:
        attribute = changes.attributes[name]
        if not attribute.nullable and attribute.default is None:
            raise DefinitionError(
                f"{stored.name} has rows, which have no value for the new attribute {name!r}: "
                "give it a default, or make it nullable, and fill it in before it is made to be "
                "required."
            )
    for name in changes.modified:
        old = stored.heading.all_attributes[changes.renamed.get(name, name)]
        new = changes.attributes[name]
        _check_values(connection, stored, old, new)
        if Family.CODEC not in {kind.family for kind in (old.type, new.type) if kind}:
            conversions(connection, stored, old, new)


def conversions(
    connection: Connection, stored: StoredTable, old: Attribute, new: Attribute
) -> Mapping[Value, Value]:
    """Return the new values of an attribute whose type changes, by old value.

    Empty if the new type holds all values of the old type unchanged.

    Raises
    ------
    DefinitionError
        If a value lacks an equal of the new type.
    """
    if not changes_values(old.type, new.type):
        return {}
    rows = fetch.rows(connection, all_rows(stored.name, stored.heading), [old.name])
    return converted((value for (value,) in rows if value is not None), old, new)


def _check_values(
    connection: Connection, stored: StoredTable, old: Attribute, new: Attribute
) -> None:
    converted = Family.CODEC in {kind.family for kind in (old.type, new.type) if kind}
    changes_type = converted and old.type != new.type
    if not changes_type and not (old.nullable and not new.nullable):
        return
    table = connection.backend.sql_table(stored.name, sa.column(old.name))
    column = table.c[old.name]
    if changes_type and _is_other_object(old, new):
        query = sa.select(sa.func.count()).select_from(table).where(column.is_not(None))
        if connection.rows(query)[0][0]:
            raise DefinitionError(
                f"The values of {stored.name}.{old.name} cannot be turned from {type_text(old)} "
                f"into {type_text(new)}: add a second attribute, fill it from the first, drop that "
                "one."
            )
    if old.nullable and not new.nullable:
        query = sa.select(sa.func.count()).select_from(table).where(column.is_(None))
        if found := connection.rows(query)[0][0]:
            raise DefinitionError(
                f"{stored.name}.{old.name} is null in {counted(found, 'row')}: give them values "
                "with update1 before the attribute is made to be required."
            )


def _is_other_object(old: Attribute, new: Attribute) -> bool:
    """Whether values are stored in another way; unmarked bytes may get their actual type."""
    unmarked = old.type is not None and old.type.family is Family.BYTES and not old.type.core
    inline = new.type is not None and new.type.store is None
    return not (unmarked and inline)


def _check_again(
    connection: Connection, session: SAConnection, present: Present, changes: Alteration
) -> None:
    """Refuse a table whose columns, indexes or rows others have changed since it was looked at.

    For a block in which others cannot write: they may have done so while the user was asked, or
    may only then have committed it.
    """
    name = changes.plan.name
    indexes = connection.backend.indexes(session, *name).get(name.table, {})
    if connection.catalog.read(session, name) != present.raw or indexes != present.indexes:
        raise altered_meanwhile(name)
    _check_rows(connection, present.stored, changes)


@contextmanager
def _locked(
    connection: Connection, session: SAConnection, present: Present, changes: Alteration
) -> Generator[None]:
    """Lock the table, and those that it is to refer to.

    A user who may not do so can still make changes that leave all values alone.
    """
    name, parents = changes.plan.name, [key.parent for key in changes.added_keys]
    with ExitStack() as lock:
        try:
            with connection.cursor():
                lock.enter_context(connection.backend.locked(session, name, parents))
        except AccessError as error:
            if _affects_values(present, changes):
                tables = ", ".join(map(str, dict.fromkeys([name, *parents])))
                raise AccessError(
                    f"{name} cannot be altered, because others could change its rows meanwhile: "
                    f"have LOCK TABLES and SELECT on {tables} granted to you. {error}"
                ) from error.__cause__
        yield


def _affects_values(present: Present, changes: Alteration) -> bool:
    """Whether the server could change values, or give rows a value, without an error."""
    before, after = present.stored.heading.all_attributes, changes.attributes
    inherited = {name for key in changes.added_keys for name in key.attributes}
    added = (after[name] for name in changes.added if name not in inherited)
    pairs = ((before[changes.renamed.get(name, name)], after[name]) for name in changes.modified)
    return any(new.default is None and not new.nullable for new in added) or any(
        (old.type, old.nullable) != (new.type, new.nullable) for old, new in pairs
    )


def alter(connection: Connection, present: Present, changes: Alteration) -> None:
    """Alter a table.

    Raises
    ------
    AccessError
        If the user may not lock the table, and values could change.
    DefinitionError, QueryError
        As by `rebuild`.
    """
    # Statements of an open transaction are not repeated in another session, without the lock.
    with (
        connection.open_transaction(),
        connection.cursor() as session,
        _locked(connection, session, present, changes),
    ):
        _check_again(connection, session, present, changes)
        names = connection.backend.foreign_key_names(session, changes.plan.name)
        plan = in_server_words(changes.plan, connection.backend)
        sql = TableSQL(plan, connection.backend, session.dialect)
        spelled = TableChanges(
            changes.plan.name,
            list(single_floats(present, changes)),
            [names[key.parent, tuple(key.attributes)] for key in changes.dropped_keys],
            list(changes.dropped_indexes),
            list(changes.dropped),
            list(_columns(sql, present, changes)),
            [sql.index(index) for index in [*changes.added_indexes, *needed_indexes(changes)]],
            [sql.foreign_key(key) for key in changes.added_keys],
            sql.text(plan.comment) if changes.comment_changes else None,
        )
        connection.backend.alter_table(session, spelled)


def _columns(sql: TableSQL, present: Present, changes: Alteration) -> Iterator[ColumnChange]:
    """Yield the added, changed and moved columns in their new order."""
    new_names = {old: new for new, old in changes.renamed.items()}
    here = [
        new_names.get(column.name, column.name)
        for column in present.raw.columns
        if column.name not in changes.dropped
    ]
    for position, name in enumerate(changes.columns):
        after = changes.columns[position - 1] if position else None
        stays = here[position : position + 1] == [name]
        if not stays:
            here = [other for other in here if other != name]
            here.insert(position, name)
        if name in changes.added:
            yield ColumnChange(name, None, sql.column(name), after)
        elif name in changes.renamed or name in changes.modified or not stays:
            old = changes.renamed.get(name, name)
            yield ColumnChange(name, old, sql.column(name), after)


def rebuild(connection: Connection, present: Present, changes: Alteration) -> None:
    """Rebuild a table with its changes; foreign keys of other tables to it are kept.

    Raises
    ------
    DefinitionError
        If a value lacks an equal of the new type of its attribute.
    QueryError
        If the table has changed since the changes were found.
    IntegrityError
        If a row lacks its parent by a new foreign key.
    """
    plan = in_server_words(_whole(changes, present), connection.backend)
    with connection.cursor() as session, connection.backend.remaking(session) as remaking:
        # From here on, no other process writes.
        _check_again(connection, session, present, changes)
        _rebuild(connection, session, remaking, plan, present, changes)


def _rebuild(
    connection: Connection,
    session: SAConnection,
    remaking: Remaking,
    plan: PlannedTable,
    present: Present,
    changes: Alteration,
) -> None:
    backend = connection.backend
    made = TableName(plan.name.schema, f"{plan.name.table}~new")
    create, *indexes = create_statements(plan, backend, made)
    session.execute(create)
    old_names = {name: changes.renamed.get(name, name) for name in changes.columns}
    kept = [name for name in changes.columns if name not in changes.added]
    source = backend.sql_table(plan.name, *[sa.column(old_names[name]) for name in kept])
    target = backend.sql_table(made, *map(sa.column, kept))
    before, after = present.stored.heading.all_attributes, changes.attributes
    with ExitStack() as meanwhile:
        values: list[Element] = []
        for name in kept:
            column, pairs = source.c[old_names[name]], None
            if name in changes.modified:
                old, new = before[old_names[name]], after[name]
                pairs = _conversion(connection, session, source, old, new)
            if pairs is not None:
                table = meanwhile.enter_context(remaking.translation(name, pairs))
                column = sa.select(table.c.new).where(table.c.old == column).scalar_subquery()
            values.append(column)
        session.execute(sa.insert(target).from_select(kept, sa.select(*values)))
    remaking.replace(plan.name, made)
    for statement in indexes:
        session.execute(statement)
    comments = {column.name: column.full_comment for column in plan.columns}
    backend.after_create(session, plan.name, plan.comment, comments)
    _check_references(remaking, plan.name)


def _whole(changes: Alteration, present: Present) -> PlannedTable:
    """Return the plan with the kept hidden columns, in the order of the new table."""
    planned = {column.name: column for column in changes.plan.columns}
    there = {column.name: column for column in present.raw.columns}
    hidden = present.stored.heading.all_attributes
    columns = [
        planned[name] if name in planned else _as_it_is(hidden[name], there[name].comment)
        for name in changes.columns
    ]
    return replace(changes.plan, columns=tuple(columns))


def _as_it_is(attribute: Attribute, comment: str) -> PlannedColumn:
    kind = attribute.type or AttributeType("bytes", Family.BYTES)
    return PlannedColumn(attribute.name, kind, attribute.nullable, attribute.default, comment, None)


def _conversion(
    connection: Connection,
    session: SAConnection,
    source: sa.TableClause,
    old: Attribute,
    new: Attribute,
) -> list[tuple[Value, Value]] | None:
    """Return the new value of each value of a column, None if what is stored does not change.

    Values are converted before they are written, since a column may change them itself: 1 becomes
    '1' in a column for text.
    """
    column = source.c[old.name]
    if old.type is None or new.type is None or old.type == new.type:
        return None
    if old.type.family not in _IN_DIGITS and not changes_values(old.type, new.type):
        return None
    if Family.CODEC in (old.type.family, new.type.family):
        return None
    decode, encode = connection.backend.decoder(old.type), connection.backend.encoder(new.type)
    found = session.execute(sa.select(column).distinct().where(column.is_not(None)))
    decoded = [(stored, decode(stored) if decode else stored) for (stored,) in found.fetchall()]
    wanted = converted((value for _, value in decoded), old, new, encode)
    return [(stored, wanted[value]) for stored, value in decoded]


def _check_references(remaking: Remaking, name: TableName) -> None:
    if lost := remaking.unmatched(name):
        raise IntegrityError(
            f"{counted(len(lost), 'row')} of {name} would refer to rows of {lost[0]} that do not "
            "exist. Insert those first, or correct the rows."
        )


_NUMBERS = (Family.INTEGER, Family.BOOL, Family.FLOAT, Family.DECIMAL)
_IN_DIGITS = (Family.FLOAT, Family.DECIMAL, Family.DATETIME, Family.TIME)
"""Types whose equal values are stored differently for another number of digits.

0.1 has other bits as a longer float; SQLite stores digits of moments and decimals as text.
"""

_TEXTS = (Family.STRING, Family.ENUM)
_MOMENTS = (Family.DATE, Family.DATETIME)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

Convert = Callable[[Value], Value]


def changes_values(old: AttributeType | None, new: AttributeType | None) -> bool:
    """Return whether some value of the old type is not a value of the new type unchanged."""
    if old is None or new is None or old == new:
        return False
    if old.family is not new.family:
        return True
    sizes = (old.size or 0, old.scale or 0), (new.size or 0, new.scale or 0)
    match old.family:
        case Family.INTEGER:
            (low, high), (least, most) = integer_range(old), integer_range(new)
            return low < least or high > most
        case Family.FLOAT:
            smaller = sizes[0][0] > sizes[1][0] or (new.unsigned and not old.unsigned)
            return smaller or not _holds_digits(new, old)
        case Family.DECIMAL:
            whole = [size - scale for size, scale in sizes]
            return whole[0] > whole[1] or sizes[0][1] > sizes[1][1] or new.unsigned
        case Family.ENUM:
            return not set(old.values) <= set(new.values)
        case Family.DATETIME | Family.TIME:
            return sizes[0] > sizes[1] or old.text.split("(")[0] != new.text.split("(")[0]
        case Family.STRING:
            return True
        case _:
            return False


def _holds_digits(new: AttributeType, old: AttributeType) -> bool:
    """Whether a float is not rounded more than another one, nor bounded more closely."""
    if new.digits is None or old.digits is None:
        return new.digits is None
    scales = new.scale or 0, old.scale or 0
    return scales[0] >= scales[1] and new.digits - scales[0] >= old.digits - scales[1]


def converted(
    values: Iterator[Value], old: Attribute, new: Attribute, encode: Convert | None = None
) -> Mapping[Value, Value]:
    """Return the new value of each value, by the old one.

    Parameters
    ----------
    values
        Values of the old attribute, without nulls.
    encode
        Converts a new value for the driver.

    Raises
    ------
    DefinitionError
        If a value lacks an equal of the new type; the message names the attribute and the first
        such value.
    """
    convert: Convert | None = None
    found: dict[Value, Value] = {}
    for value in values:
        # Values of JSON are not hashable, and are not converted.
        if isinstance(value, Hashable) and value in found:
            continue
        try:
            convert = convert or _converter(old, new)
            found[value] = encode(convert(value)) if encode else convert(value)
        except (InvalidValueError, ValueError) as error:
            raise DefinitionError(
                f"The values of {old.table}.{old.name} cannot be turned from {type_text(old)} into "
                f"{type_text(new)} without loss, such as {shown(value)}: {_reason(error)}. Nothing "
                "was changed. Correct the values, or add a second attribute, fill it from the "
                "first and drop that one."
            ) from None
    return found


def _converter(old: Attribute, new: Attribute) -> Convert:
    """Return the function that converts a value; it raises ValueError for one without an equal."""
    one, other = _kind(old), _kind(new)
    match one.family, other.family:
        case (a, b) if a in _NUMBERS and b in _NUMBERS:
            return lambda value: _equal_number(value, checked(value, new))
        case (Family.INTEGER | Family.BOOL | Family.DECIMAL, Family.STRING):
            return lambda value: _kept(_number_text(value), new)
        case (Family.STRING, b) if b in _NUMBERS:
            return lambda value: _equal_number(_read_number(value), checked(value, new))
        case (a, b) if a in _TEXTS and b in _TEXTS:
            return lambda value: _kept(value, new)
        case (a, b) if a in _MOMENTS and b in _MOMENTS:
            return lambda value: _equal_moment(value, checked(value, new))
        case (Family.TIME, Family.TIME):
            return lambda value: _equal_moment(value, checked(value, new))
        case (Family.DATE | Family.DATETIME | Family.TIME, Family.STRING):
            return lambda value: _kept(moment_text(value, one), new)
        case (Family.STRING, Family.DATE | Family.DATETIME | Family.TIME):
            return lambda value: _read_moment(value, checked(value, new), other)
        case (Family.STRING, Family.JSON):
            return lambda value: checked(read_json(value), new)
        case (a, b) if a is b:
            return lambda value: _same(value, checked(value, new))
        case _:
            raise ValueError("no value of the one type equals one of the other")


def _same(value: Value, found: Value) -> Value:
    if found != value:
        raise ValueError(f"it would become {found!r}")
    return found


def _kept(text: str, new: Attribute) -> str:
    """Return a text that the new attribute keeps unchanged, including trailing blanks."""
    if _kind(new).text.startswith("char") and text.endswith(" "):
        raise ValueError("the blanks at its end would be lost")
    return _same(text, checked(text, new))


def _equal_number(value: Value, found: Value) -> Value:
    # A decimal and a float are equal if they are written alike, since 0.1 lacks an exact float.
    exact = not isinstance(value, float) and not isinstance(found, float)
    same = found == value if exact or not isinstance(value, Decimal) else None
    if isinstance(value, Decimal) and isinstance(found, float):
        same = Decimal(repr(found)) == value
    elif isinstance(value, float) and isinstance(found, Decimal):
        same = float(found) == value
    if not same:
        raise ValueError(f"it would become {found!r}")
    return found


def _number_text(value: Value) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(int(value))


def _read_number(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError("it is not a number in its usual form")
    return Decimal(text)


def _equal_moment(value: date | time, found: Value) -> Value:
    if isinstance(value, datetime) and not isinstance(found, datetime):
        found_whole = datetime(found.year, found.month, found.day)
        return found if _same(value, found_whole) else None
    if isinstance(found, datetime) and not isinstance(value, datetime | time):
        return found
    return _same(value, found)


def _read_moment(text: str, found: Value, kind: AttributeType) -> Value:
    if moment_text(found, kind) != text:
        raise ValueError(f"it is not written as {moment_text(found, kind)}")
    return found


def _kind(attribute: Attribute) -> AttributeType:
    return attribute.type or AttributeType("bytes", Family.BYTES)


def type_text(attribute: Attribute) -> str:
    """Return the type of an attribute as it is written, for messages."""
    return attribute.type.text if attribute.type else "?"


def _reason(error: Exception) -> str:
    """Return the reason from an error's message, without the attribute and value before it."""
    cause = error.__cause__ if isinstance(error, InvalidValueError) else error
    return str(cause or error).removesuffix(".")
