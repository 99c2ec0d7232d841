"""Aggregation: rows computed from groups of other rows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import Aggregated, Computed, Grouped, Node, SQLText
from dj_dagster.relational.algebra.joining import shared_names
from dj_dagster.relational.algebra.projection import chosen_columns, described, unknown
from dj_dagster.relational.user_sql.emission import outside_aggregates


def aggregate(
    source: Node,
    group: Node,
    names: Iterable[Any],
    computed: Mapping[str, str],
    *,
    exclude_nonmatching: bool,
    semantic_check: bool = True,
) -> Aggregated:
    """Return the rows of a query with what is computed from the rows of another.

    Raises
    ------
    QueryError
        If `group` lacks attributes of the primary key of `source`, or computed attributes name
        something of `group` without an aggregate.
    """
    missing = [name for name in source.heading.primary_key if name not in group.heading.attributes]
    if missing:
        raise QueryError(
            f"aggr needs the whole primary key of the left side in the right side, which lacks "
            f"{', '.join(missing)}. Aggregate by fewer attributes: dj.U(...).aggr(...)."
        )
    shared = shared_names(source.heading, group.heading, semantic_check)
    columns = chosen_columns(source.heading, names, computed)
    _check_aggregates(columns, group.heading, source.heading, source.heading.primary_key)
    # SQL may name attributes of both sides; for the shared ones the left side answers.
    both = {**group.heading.attributes, **source.heading.all_attributes}
    heading = Heading(described(Heading(both.values()), columns), source.heading.comment)
    tables = source.tables | group.tables
    return Aggregated(heading, tables, source, group, shared, columns, not exclude_nonmatching)


def distinct(source: Node, names: tuple[str, ...]) -> Grouped:
    """Return the distinct combinations of some attributes, which are the key of the result."""
    return _grouped(source, names, {}, whole=False)


def aggregate_by(source: Node, names: tuple[str, ...], computed: Mapping[str, str]) -> Grouped:
    """Return what is computed from the rows that agree on `names`; of no names: from all rows."""
    return _grouped(source, names, computed, whole=not names)


def _grouped(
    source: Node, names: tuple[str, ...], computed: Mapping[str, str], *, whole: bool
) -> Grouped:
    for name in names:
        if name not in source.heading:
            raise unknown(name, source.heading)
    attributes = source.heading.all_attributes
    by = Heading(replace(attributes[name], in_key=True) for name in names)
    columns = chosen_columns(by, (), computed)
    _check_aggregates(columns, source.heading, names, names)
    known = {name: replace(attributes[name], in_key=name in names) for name in attributes}
    heading = Heading(described(Heading(known.values()), columns))
    return Grouped(heading, source.tables, source, names, columns, whole)


def _check_aggregates(
    columns: Mapping[str, Computed], group: Heading, fixed: Container[str], key: Iterable[str]
) -> None:
    """Raise QueryError for an attribute of which a group has many values, outside an aggregate.

    Parameters
    ----------
    fixed, key
        The attributes of which a group has one value, and those that tell groups apart.
    """
    has_one_row = {*group.primary_key} <= {*key}
    for new, what in columns.items():
        if not isinstance(what, SQLText):
            continue
        whole = what.text.strip(" ()")
        loose = [] if has_one_row else outside_aggregates(what.text)
        names = [name for name in loose if name in group and name not in fixed]
        for name in [whole] if whole in group else names:
            raise QueryError(
                f"aggr({new}={what.text!r}): a group has many values of {name!r}; write which, "
                f"such as {new}='max({name})', or 'count({name})' for how many."
            )
