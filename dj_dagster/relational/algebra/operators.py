"""Operators of query trees: joins, projections, aggregations and unions."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Attribute, Computation, Heading
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.algebra.nodes import (
    Aggregated,
    All,
    AnyOf,
    Base,
    Computed,
    Condition,
    Equals,
    Grouped,
    Joined,
    JSONEquals,
    JSONPath,
    Matches,
    Negated,
    Node,
    Projected,
    Restricted,
    SQLText,
    Topped,
    United,
    parse_json_path,
)
from dj_dagster.relational.user_sql.emission import lone_aggregate, outside_aggregates
from dj_dagster.relational.user_sql.translation import inferred_type


def all_rows(name: TableName, heading: Heading) -> Base:
    """Return the query for all rows of a table."""
    return Base(heading, frozenset({name}), name)


def restrict(source: Node, condition: Condition) -> Node:
    """Return the rows for which a condition holds."""
    if isinstance(condition, All) and not condition.conditions:
        return source
    return Restricted(source.heading, source.tables | tables_of(condition), source, condition)


def tables_of(condition: Condition) -> frozenset[TableName]:
    """Return the tables that a condition reads."""
    match condition:
        case Matches():
            return condition.query.tables
        case All() | AnyOf():
            return frozenset[TableName]().union(*map(tables_of, condition.conditions))
        case Negated():
            return tables_of(condition.condition)
        case _:
            return frozenset()


def restrictions(query: Node | Condition) -> list[str]:
    """Return a query's equalities and SQL that must all hold, for messages."""
    match query:
        case Restricted(source=source, condition=condition):
            return [*restrictions(source), *restrictions(condition)]
        case Projected(source=source) | Topped(source=source):
            return restrictions(source)
        case Equals(name, value):
            return [f"{name} = {value!r:.80}"]
        case JSONEquals(path, value):
            return [f"{path.name}{path.path.removeprefix('$')} = {value!r:.80}"]
        case SQLText(text):
            return [text]
        case All(conditions):
            return [text for condition in conditions for text in restrictions(condition)]
        case _:
            return []


AS_BEFORE = "For code written for DataJoint 0.14 call dj.replace_datajoint(era='0.14') first."
"""The remedy if an error is due to the era that code was written for."""


@dataclass(frozen=True, slots=True)
class Matching:
    """The rules by which rows of two queries agree.

    Attributes
    ----------
    is_checked
        Whether names that may mean different things are refused; otherwise names alone decide.
    is_old
        Whether the rules are those of DataJoint 0.14. There a shared name has to be in the primary
        key of one side, and the key of a join has the attributes of both keys.
    """

    is_checked: bool = True
    is_old: bool = False


BY_LINEAGE = Matching()


def shared_names(left: Heading, right: Heading, matching: Matching = BY_LINEAGE) -> tuple[str, ...]:
    """Return the names that two headings share, refusing those that mean different things.

    Raises
    ------
    QueryError
        If a shared name has different lineages or lacks one: two attributes of one name that are
        not related by a foreign key. In the era of DataJoint 0.14, if it is in neither primary key.
    """
    shared = tuple(name for name in left.names if name in right.attributes)
    if matching.is_checked:
        (_check_keys if matching.is_old else _check_lineage)(left, right, shared)
    return shared


def _check_lineage(left: Heading, right: Heading, shared: Iterable[str]) -> None:
    for name in shared:
        ours, theirs = left[name].lineage, right[name].lineage
        if ours is None or ours != theirs:
            mine, other = _origin(left[name]), _origin(right[name])
            reason = f"by its lineage: {mine} and {other}"
            if mine == other:
                reason = f"as far as is known: {mine} is in no key, and has no lineage"
            raise QueryError(
                f"The attribute {name!r} is not the same thing on both sides, {reason}. Rename or "
                f"leave out one of them, for example with .proj(other_{name}='{name}'). Where "
                f"names alone are to decide: dj.config['semantic_check'] = False. {AS_BEFORE}"
            )


def _check_keys(left: Heading, right: Heading, shared: Iterable[str]) -> None:
    for name in shared:
        if not left[name].in_key and not right[name].in_key:
            raise QueryError(
                f"Cannot join query expressions on dependent attribute `{name}`, which is in the "
                f"primary key of neither side: {_origin(left[name])} and {_origin(right[name])}. "
                f"Rename or leave out one of them, for example with .proj(other_{name}='{name}'). "
                "Where names alone are to decide: @ in place of *, and ^ in place of &."
            )


def _joined_heading(left: Heading, right: Heading, matching: Matching, outer: bool) -> Heading:
    """Return the heading of a join.

    Raises
    ------
    QueryError
        If an outer join could leave nulls in the primary key, except in the era of DataJoint 0.14.
    """
    if outer and not matching.is_old:
        _check_determined(left, right)
    theirs = {
        name: replace(attribute, nullable=attribute.nullable or outer)
        for name, attribute in right.attributes.items()
    }
    key = _joined_key(left, right, matching.is_old)
    # The side that determines the key comes first, as in DataJoint 2.
    left_first = matching.is_old or key == left.primary_key
    merged = {**(left.attributes if left_first else theirs), **theirs, **left.attributes}
    order = [*key, *(name for name in merged if name not in key)]
    return Heading(replace(merged[name], in_key=name in key) for name in order)


def _joined_key(left: Heading, right: Heading, is_old: bool) -> list[str]:
    if not is_old and left.determines(right):
        return left.primary_key
    if not is_old and right.determines(left):
        return right.primary_key
    return list(dict.fromkeys([*left.primary_key, *right.primary_key]))


def _check_determined(left: Heading, right: Heading) -> None:
    missing = [name for name in right.primary_key if name not in left.attributes]
    if missing:
        raise QueryError(
            "This needs the left operand to determine the right one. It lacks "
            f"{', '.join(missing)} of that one's primary key, so that one row could have many "
            "partners, or none and a null in its key. Swap the sides, use * for pairs, or aggr for "
            "one row each."
        )


def _origin(attribute: Attribute) -> str:
    return attribute.lineage or f"{attribute.table or 'a computed'}.{attribute.name}"


def with_key(query: Node, names: Iterable[str]) -> Projected:
    """Return the same rows with more attributes in their key, like ``U * query`` in DataJoint 0.14.

    Raises
    ------
    UnknownAttributeError
        If the query lacks one of them.
    """
    heading = query.heading
    for name in names:
        if name not in heading:
            raise unknown(name, heading)
    key = dict.fromkeys([*heading.primary_key, *names])
    order = dict.fromkeys([*key, *heading.names])
    attributes = [replace(heading[name], in_key=name in key) for name in order]
    columns: dict[str, Computed] = {attribute.name: attribute.name for attribute in attributes}
    return Projected(Heading(attributes, heading.comment), query.tables, query, columns)


def join(left: Node, right: Node, matching: Matching = BY_LINEAGE, outer: bool = False) -> Joined:
    """Return the pairs of rows that agree on all shared names.

    Parameters
    ----------
    outer
        Whether to keep rows of `left` without a partner; each may have one partner at most, except
        in the era of DataJoint 0.14.

    Raises
    ------
    QueryError
        If shared names mean different things, or an outer join could leave nulls in the primary
        key.
    """
    shared = shared_names(left.heading, right.heading, matching)
    heading = _joined_heading(left.heading, right.heading, matching, outer)
    return Joined(heading, left.tables | right.tables, left, right, shared, outer)


_AGGREGATE = re.compile(
    r"\s*(count|sum|min|max|any_value)\s*\(\s*(?:distinct\b)?\s*`?([^()`]*?)`?\s*\)\s*",
    re.IGNORECASE,
)
_COUNT = parse_type("int64")


def project(source: Node, *names: object, **computed: str) -> Projected:
    """Return the key and the named attributes; see `QueryExpression.proj` for the syntax."""
    heading = source.heading
    columns = chosen_columns(heading, names, computed)
    _check_no_aggregates(columns)
    projected = Heading(described(heading, columns), heading.comment)
    return Projected(projected, source.tables, source, columns)


def chosen_columns(
    heading: Heading, names: Iterable[object], computed: Mapping[str, str]
) -> dict[str, Computed]:
    """Return the source of each attribute of a projection, in order.

    Raises
    ------
    UnknownAttributeError
        If a name to keep or leave out is not in the heading.
    QueryError
        If two attributes would have one name, or one of the key would be left out.
    """
    names = list(names)
    kept = _kept(heading, names)
    found = {new: _computed(heading, new, text) for new, text in computed.items()}
    # An attribute in parentheses is copied, and so is one that is also requested by name.
    renamed = {text.strip() for text in computed.values()}.difference(map(str, names))
    columns: list[tuple[str, Computed]] = []
    for name in heading.all_attributes:
        columns += [(name, name)] if name in kept - renamed else []
        columns += [(new, what) for new, what in found.items() if what == name]
    columns += [(new, what) for new, what in found.items() if not isinstance(what, str)]
    _check_distinct([new for new, _ in columns])
    return dict(columns)


def described(heading: Heading, columns: Mapping[str, Computed]) -> list[Attribute]:
    """Return the attributes of a query's columns, those of the key first."""
    attributes = [_projected(heading, new, old) for new, old in columns.items()]
    return sorted(attributes, key=lambda attribute: not attribute.in_key)


def unknown(name: str, heading: Heading) -> UnknownAttributeError:
    """Return the error for a name that a heading lacks."""
    return UnknownAttributeError(
        f"There is no attribute {name!r}. The heading has: {', '.join(heading.names)}."
    )


def _check_distinct(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise QueryError(
                f"proj({name}=...) would give a second attribute of that name; "
                f"rename the first, leave it out with '-{name}', or choose another name."
            )


def _kept(heading: Heading, names: Iterable[object]) -> set[str]:
    kept = {name for name in heading.all_attributes if heading[name].in_key}
    excluded: set[str] = set()
    for name in names:
        if name is Ellipsis:
            kept |= set(heading.names)
        elif not isinstance(name, str):
            raise QueryError(f"proj takes names of attributes, not {name!r}.")
        elif name.startswith("-"):
            excluded.add(name.removeprefix("-").strip())
        else:
            kept.add(name.strip())
    for name in sorted(kept | excluded):
        if name not in heading:
            raise unknown(name, heading)
    in_key = excluded & set(heading.primary_key)
    if in_key:
        raise QueryError(f"proj cannot leave out {min(in_key)!r}: it is in the primary key.")
    return kept - excluded


def _computed(heading: Heading, new: str, text: object) -> Computed:
    if not isinstance(text, str) or not text.strip():
        raise QueryError(
            f"proj({new}={text!r}): write the name of an attribute or SQL, as text: "
            f"{new}='old_name', {new}='2 * x', {new}='3', {new}=\"'a word'\"."
        )
    old = text.strip()
    copied = old[1:-1].strip() if old.startswith("(") and old.endswith(")") else old
    if copied in heading:
        return copied
    path = parse_json_path(old)
    if path is not None and path.name in heading and _is_json(heading[path.name]):
        return path
    # DataJoint formats this text with %, so that programs double the sign.
    return SQLText(text.replace("%%", "%"))


def _is_json(attribute: Attribute) -> bool:
    return attribute.type is None or attribute.type.family is Family.JSON


def _projected(heading: Heading, new: str, old: Computed) -> Attribute:
    match old:
        case SQLText(text):
            kind = _inferred(text, heading)
            return Attribute(new, kind, nullable=True, computation=Computation(text, heading))
        case JSONPath():
            return Attribute(new, None, nullable=True)
        case _:
            return replace(heading[old], name=new)


def _inferred(text: str, heading: Heading) -> AttributeType | None:
    """Return the type of a computed attribute where its SQL determines it, as for aggregates.

    Without a type, values would depend on the database: decimals for sums of integers, text for the
    latest of dates.
    """
    match = _AGGREGATE.fullmatch(text)
    if match is None:
        return inferred_type(text, heading)
    function, name = match[1].lower(), match[2]
    if function == "count":
        return _COUNT
    if name not in heading:
        return inferred_type(text, heading)
    kind = heading[name].type
    if kind is None or kind.family is Family.CODEC:
        return None
    if function != "sum":
        return replace(kind, auto_increment=False)
    if kind.family is not Family.DECIMAL:
        return None
    return parse_type(f"decimal(65,{kind.scale or 0})")


def aggregate(
    source: Node,
    group: Node,
    names: Iterable[object],
    computed: Mapping[str, str],
    *,
    exclude_nonmatching: bool,
    matching: Matching = BY_LINEAGE,
) -> Aggregated:
    """Return the rows of a query with values computed from the rows of another.

    Raises
    ------
    QueryError
        If `group` lacks attributes of the primary key of `source`, which it may in the era of
        DataJoint 0.14, or computed attributes name an attribute of `group` outside an aggregate.
    """
    missing = [name for name in source.heading.primary_key if name not in group.heading.attributes]
    if missing and not matching.is_old:
        raise QueryError(
            f"aggr needs the whole primary key of the left side in the right side, which lacks "
            f"{', '.join(missing)}. Aggregate by fewer attributes: dj.U(...).aggr(...)."
        )
    shared = shared_names(source.heading, group.heading, matching)
    columns = chosen_columns(source.heading, names, computed)
    _check_aggregates(columns, group.heading, source.heading, source.heading.primary_key)
    # SQL may name attributes of both sides; the left side is used for shared ones.
    both = {**group.heading.attributes, **source.heading.all_attributes}
    heading = Heading(described(Heading(both.values()), columns), source.heading.comment)
    tables = source.tables | group.tables
    return Aggregated(heading, tables, source, group, shared, columns, not exclude_nonmatching)


def distinct(source: Node, names: tuple[str, ...]) -> Grouped:
    """Return the distinct combinations of some attributes, which are the key of the result."""
    return _grouped(source, names, {}, whole=False)


def aggregate_by(source: Node, names: tuple[str, ...], computed: Mapping[str, str]) -> Grouped:
    """Return values computed from the rows that agree on `names`; without names, from all rows."""
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
    """Raise `QueryError` for an attribute outside an aggregate that varies within a group.

    Parameters
    ----------
    fixed, key
        The attributes with one value in each group, and those that distinguish groups.
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


def _check_no_aggregates(columns: Mapping[str, Computed]) -> None:
    """Raise `QueryError` for an aggregate, which would make one row of all."""
    for new, what in columns.items():
        if not isinstance(what, SQLText):
            continue
        name = lone_aggregate(what.text)
        if name is not None:
            raise QueryError(
                f"proj({new}={what.text!r}): {name}() is of many rows. Write "
                f"query.aggr(other, {new}=...) for the rows of another query, or "
                f"dj.U().aggr(query, {new}=...) for all rows."
            )


def unite(left: Node, right: Node, matching: Matching = BY_LINEAGE) -> United:
    """Return the rows of both queries, one for each key, with the attributes of both.

    Raises
    ------
    QueryError
        If the primary keys have different names or meanings, or both sides have a secondary
        attribute of one name.
    """
    ours, theirs = left.heading, right.heading
    if set(ours.primary_key) != set(theirs.primary_key):
        raise QueryError(
            "A union needs one primary key on both sides; they have "
            f"({', '.join(ours.primary_key)}) and ({', '.join(theirs.primary_key)}). "
            "Rename with proj, or group with dj.U(...) &."
        )
    both = [name for name in ours.secondary_attributes if name in theirs.attributes]
    if both:
        raise QueryError(
            f"Both sides of a union have {', '.join(both)}, and a row can have only one value of "
            f"it. Leave it out of one side, .proj() for the key alone, or rename it."
        )
    shared_names(ours, theirs, matching)
    rest = {**ours.attributes, **theirs.attributes}
    key = [ours[name] for name in ours.primary_key]
    secondary = [
        replace(attribute, nullable=True) for attribute in rest.values() if not attribute.in_key
    ]
    return United(Heading([*key, *secondary]), left.tables | right.tables, left, right)
