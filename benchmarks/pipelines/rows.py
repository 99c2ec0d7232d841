"""The tables and rows that a run has left on a server, and what two runs have left alike."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

_SYSTEM = {"information_schema", "mysql", "performance_schema", "sys"}
_PACKED = b"ZL123\0"
_SHOWN = 3

Varying = Mapping[str, tuple[str, ...]]
"""By a pattern of ``schema.table``, the columns that no two runs have alike."""


@dataclass(frozen=True)
class Left:
    """What a run left in one table.

    Attributes
    ----------
    declared
        Its columns, foreign keys and indexes, the last two without their names.
    """

    declared: tuple[tuple[Any, ...], ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass
class Comparison:
    """Figures of a comparison, and the first differences as texts."""

    tables: int = 0
    keys: int = 0
    rows: int = 0
    declared_otherwise: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def read(url: str, varying: Varying) -> dict[str, Left]:
    """Return what all tables hold, without the columns that vary.

    Values that a server writes by the clock vary, and so does how bytes are compressed: what they
    are when unpacked is compared. Of hidden tables there are those of external objects and jobs.
    """
    engine = sa.create_engine(url)
    with engine.connect() as session:
        found = {
            f"{schema}.{table}": _table(session, schema, table, varying)
            for schema, table in session.exec_driver_sql(
                "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2"
            ).all()
            if schema not in _SYSTEM and not _is_hidden(table)
        }
    engine.dispose()
    return found


def compare(before: Mapping[str, Left], after: Mapping[str, Left]) -> Comparison:
    """Compare what two runs left."""
    result = Comparison()
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            only = one or other
            if only is not None and not only.rows and ".~" in name:
                # Either makes its hidden tables when it needs them.
                continue
            result.differences.append(f"{name} is in one of both only")
            continue
        result.tables += 1
        result.rows += len(one.rows)
        result.keys += sum(declared[0] in ("foreign key", "index") for declared in one.declared)
        for text, found in (
            ("only there", {*one.declared} - {*other.declared}),
            ("only here", {*other.declared} - {*one.declared}),
        ):
            changed = sorted(found, key=repr)
            result.declared_otherwise += [f"{name}, {text}: {part!r}" for part in changed]
        for text, rows in (
            ("only there", _missing(one, other)),
            ("only here", _missing(other, one)),
        ):
            result.differences += [f"{name}, {text}: {row!r:.300}" for row in rows[:_SHOWN]]
    return result


def _missing(one: Left, other: Left) -> list[tuple[Any, ...]]:
    known = set(other.rows)
    return [row for row in one.rows if row not in known]


def _is_hidden(table: str) -> bool:
    return table.startswith("~") and not table.startswith(("~external_", "~jobs"))


def _table(session: sa.Connection, schema: str, table: str, varying: Varying) -> Left:
    left_out = {
        column
        for pattern, columns in varying.items()
        if fnmatchcase(f"{schema}.{table}", pattern)
        for column in columns
    }
    columns = session.execute(
        sa.text(
            "SELECT column_name, column_type, is_nullable, column_default, column_comment, "
            "column_key FROM information_schema.columns "
            "WHERE table_schema = :schema AND table_name = :table ORDER BY ordinal_position"
        ),
        {"schema": schema, "table": table},
    ).all()
    names = [
        name
        for name, _, _, default, *_ in columns
        if name not in left_out and "current_timestamp" not in str(default).lower()
    ]
    listed = ", ".join(f"`{name}`" for name in names) or "1"
    rows = session.exec_driver_sql(f"SELECT {listed} FROM `{schema}`.`{table}`".replace("%", "%%"))
    unpacked = (tuple(map(_unpacked, row)) for row in rows)
    kinds = [(*column[:4], _with_plain_marker(column[4]), column[5]) for column in columns]
    declared = [*kinds, *_foreign_keys(session, schema, table), *_indexes(session, schema, table)]
    return Left(tuple(declared), tuple(sorted(unpacked, key=repr)))


def _foreign_keys(session: sa.Connection, schema: str, table: str) -> list[tuple[Any, ...]]:
    found = session.execute(
        sa.text(
            "SELECT 'foreign key', GROUP_CONCAT(k.column_name, '=', k.referenced_column_name"
            " ORDER BY k.ordinal_position), k.referenced_table_schema, k.referenced_table_name,"
            " r.update_rule, r.delete_rule"
            " FROM information_schema.key_column_usage k"
            " JOIN information_schema.referential_constraints r USING"
            " (constraint_schema, table_name, constraint_name)"
            " WHERE k.table_schema = :schema AND k.table_name = :table GROUP BY constraint_name"
        ),
        {"schema": schema, "table": table},
    )
    return [tuple(row) for row in found]


def _indexes(session: sa.Connection, schema: str, table: str) -> list[tuple[Any, ...]]:
    found = session.execute(
        sa.text(
            "SELECT 'index', GROUP_CONCAT(column_name ORDER BY seq_in_index), non_unique,"
            " index_type FROM information_schema.statistics"
            " WHERE table_schema = :schema AND table_name = :table GROUP BY index_name"
        ),
        {"schema": schema, "table": table},
    )
    return [tuple(row) for row in found]


def _with_plain_marker(comment: str) -> str:
    """Return a comment with the type in front of it in small letters: either way it is read."""
    return re.sub(r"^:\w+:", lambda marker: marker[0].lower(), comment)


def _unpacked(value: Any) -> Any:
    if isinstance(value, bytes) and value.startswith(_PACKED):
        return zlib.decompress(value[len(_PACKED) + 8 :])
    return value


def flat(comparison: Comparison) -> Iterator[str]:
    """Yield the lines that tell of a comparison."""
    tables, keys, rows = comparison.tables, comparison.keys, comparison.rows
    yield (
        f"{tables} tables in both, {keys} foreign keys and indexes, "
        f"{len(comparison.declared_otherwise)} differences of columns and keys"
    )
    yield from (f"   {text}" for text in comparison.declared_otherwise)
    yield f"{rows} rows in both, {len(comparison.differences)} differences"
    yield from (f"   {text}" for text in comparison.differences)
