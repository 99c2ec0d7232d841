"""Projection: the attributes that a query keeps, renames and computes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dj_dagster.errors import QueryError, UnknownAttributeError
from dj_dagster.model.heading import Attribute, Heading
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.algebra.algebra import Computed, JSONPath, Node, Projected, SQLText
from dj_dagster.relational.algebra.json_path import parse_json_path
from dj_dagster.relational.user_sql.translation import inferred_type

_AGGREGATE = re.compile(
    r"\s*(count|sum|min|max|any_value)\s*\(\s*(?:distinct\b)?\s*`?([^()`]*?)`?\s*\)\s*",
    re.IGNORECASE,
)
_COUNT = parse_type("int64")


def project(source: Node, *names: Any, **computed: str) -> Projected:
    """Return the key and the named attributes; see `QueryExpression.proj` for the spellings."""
    heading = source.heading
    columns = chosen_columns(heading, names, computed)
    projected = Heading(described(heading, columns), heading.comment)
    return Projected(projected, source.tables, source, columns)


def chosen_columns(
    heading: Heading, names: Iterable[Any], computed: Mapping[str, str]
) -> dict[str, Computed]:
    """Return what each attribute of a projection is, in order.

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
    # Put in parentheses, an attribute is copied; so is one that is asked for by name too.
    renamed = {text.strip() for text in computed.values()}.difference(map(str, names))
    columns: list[tuple[str, Computed]] = []
    for name in heading.all_attributes:
        columns += [(name, name)] if name in kept - renamed else []
        columns += [(new, what) for new, what in found.items() if what == name]
    columns += [(new, what) for new, what in found.items() if not isinstance(what, str)]
    _check_distinct([new for new, _ in columns])
    return dict(columns)


def described(heading: Heading, columns: Mapping[str, Computed]) -> list[Attribute]:
    """Return the attributes that columns of a query give, those of the key first."""
    attributes = [_projected(heading, new, old) for new, old in columns.items()]
    return sorted(attributes, key=lambda attribute: not attribute.in_key)


def unknown(name: str, heading: Heading) -> UnknownAttributeError:
    """Return the error for a name that a heading does not have."""
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


def _kept(heading: Heading, names: Iterable[Any]) -> set[str]:
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


def _computed(heading: Heading, new: str, text: Any) -> Computed:
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
    return SQLText(text)


def _is_json(attribute: Attribute) -> bool:
    return attribute.type is None or attribute.type.family is Family.JSON


def _projected(heading: Heading, new: str, old: Computed) -> Attribute:
    match old:
        case SQLText(text):
            return Attribute(new, _inferred(text, heading), nullable=True)
        case JSONPath():
            return Attribute(new, None, nullable=True)
        case _:
            return replace(heading[old], name=new)


def _inferred(text: str, heading: Heading) -> AttributeType | None:
    """Return the type of an aggregate where it follows from that of the attribute, and of dates.

    Without it, values would come as each database happens to compute them: decimals for sums of
    integers, text for the latest of dates.
    """
    match = _AGGREGATE.fullmatch(text)
    if match is None:
        return inferred_type(text, {name: heading[name].type for name in heading.all_attributes})
    function, name = match[1].lower(), match[2]
    if function == "count":
        return _COUNT
    kind = heading[name].type if name in heading else None
    if kind is None or kind.family is Family.CODEC:
        return None
    if function != "sum":
        return replace(kind, auto_increment=False)
    if kind.family is not Family.DECIMAL:
        return None
    return parse_type(f"decimal(65,{kind.scale or 0})")
