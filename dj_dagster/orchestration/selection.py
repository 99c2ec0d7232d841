"""Choosing tables by name, schema and tier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration.naming import class_name, spellings
from dj_dagster.orchestration.table_sources import TableSource
from dj_dagster.relational.table import Table

Named = str | type[Table] | Table
Tables = Named | Iterable[Named]
"""Tables by name or by class."""

TIER = "tier:"


def selected(
    sources: Sequence[TableSource], select: Tables | None, exclude: Tables
) -> list[TableSource]:
    """Return the tables that are selected and not excluded; parts go with their masters.

    Parameters
    ----------
    select, exclude
        Names of tables (``"lab.Session"``), of schemas (``"lab"``) and tiers (``"tier:computed"``),
        with ``*`` for anything: ``"lab.Old*"``; or tables themselves. None selects all tables.

    Raises
    ------
    ConfigurationError
        When a name fits no table, or is not a name.
    """
    chosen = {s.name for s in sources} if select is None else _fitting(sources, select)
    chosen -= _fitting(sources, exclude)
    return [
        source
        for source in sources
        if source.name in chosen and (source.master is None or source.master in chosen)
    ]


def pattern_of(given: Any, setting: str) -> str:
    """Return the pattern that a name or a class stands for.

    Raises
    ------
    ConfigurationError
        When it is neither, naming the setting that it was given in.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Table) or (isinstance(given, type) and issubclass(given, Table)):
        table = given if isinstance(given, Table) else given()
        return str(table.name)
    raise ConfigurationError(
        f"{setting} has {given!r}, which is not a table: write its class, or its name as in "
        "'lab.Session'."
    )


def _fitting(sources: Sequence[TableSource], given: Tables) -> set[object]:
    single = isinstance(given, str | type | Table)
    found: set[object] = set()
    for each in [given] if single else given:
        pattern = pattern_of(each, "select or exclude")
        names = {source.name for source in sources if _fits(source, pattern)}
        if not names:
            titles = ", ".join(class_name(source.name) for source in sources)
            raise ConfigurationError(f"{pattern!r} fits no table; there are {titles or 'none'}")
        # A part belongs to its master.
        found |= names | {source.name for source in sources if source.master in names}
    return found


def _fits(source: TableSource, pattern: str) -> bool:
    if pattern.startswith(TIER):
        return fnmatchcase(source.table.tier.value, pattern.removeprefix(TIER).strip())
    names = (*spellings(source.name), source.name.schema)
    return any(fnmatchcase(name, pattern) for name in names)
