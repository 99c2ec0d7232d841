"""What tables are called in Dagster: asset keys, names of ops, groups and columns' origins."""

from __future__ import annotations

import re

from dagster import AssetKey

from dj_dagster.model import names
from dj_dagster.model.names import TableName, camel_case, parse_table_name, snake_case


def asset_key(name: TableName) -> AssetKey:
    """Return ``[schema, table]``, or ``[schema, master, part]``, in snake case of the class names.

    Examples
    --------
    >>> asset_key(TableName("lab", "__processed")).path
    ['lab', 'processed']
    >>> asset_key(TableName("lab", "session__trial")).path
    ['lab', 'session', 'trial']
    """
    return AssetKey([name.schema, *map(snake_case, class_path(name))])


def class_path(name: TableName) -> list[str]:
    """Return the class name of a table, behind that of its master for a part."""
    parsed = parse_table_name(name.table)
    if parsed is None:
        return [camel_case(re.sub(r"[^a-z0-9]+", "_", name.table).strip("_"))]
    return names.class_path(name.table).split(".")


def class_name(name: TableName) -> str:
    """Return how a user reads a table's name: ``"lab.Session.Trial"``."""
    return f"{name.schema}.{short_name(name)}"


def short_name(name: TableName) -> str:
    """Return the same without the schema: ``"Session.Trial"``."""
    return ".".join(class_path(name))


def spellings(name: TableName) -> tuple[str, ...]:
    """Return how people may write a table's name: as class or asset, or as in the database."""
    return class_name(name), short_name(name), asset_key(name).to_user_string(), str(name)


def op_name(key: AssetKey) -> str:
    """Return the name of the op that fills a table; Dagster allows letters, digits and ``_``."""
    return "__".join(_word(part) for part in key.path)


def group_name(schema: str) -> str:
    """Return the asset group of a schema's tables."""
    return _word(schema)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", text)
