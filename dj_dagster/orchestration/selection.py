"""Choosing tables by name, schema and tier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration.naming import class_name, spellings
from dj_dagster.orchestration.table_sources import TableSource

TIER = "tier:"


def selected(
    sources: Sequence[TableSource], select: Iterable[str] | None, exclude: Iterable[str]
) -> list[TableSource]:
    """Return the tables that are selected and not excluded; parts go with their masters.

    Parameters
    ----------
    select, exclude
        Names of tables (``"lab.Session"``), of schemas (``"lab"``) and tiers (``"tier:computed"``),
        with ``*`` for anything: ``"lab.Old*"``. None selects all tables.

    Raises
    ------
    ConfigurationError
        When a name fits no table.
    """
    chosen = {s.name for s in sources} if select is None else _fitting(sources, select)
    chosen -= _fitting(sources, exclude)
    return [
        source
        for source in sources
        if source.name in chosen and (source.master is None or source.master in chosen)
    ]


def _fitting(sources: Sequence[TableSource], patterns: Iterable[str]) -> set[object]:
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found: set[object] = set()
    for pattern in patterns:
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
