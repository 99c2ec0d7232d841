"""Attributes in users' SQL: what is known of their values, from a type or from SQL that makes them.

A server puts the SQL of a computed attribute in the place of its name where both are in one SELECT.
The translation for SQLite does the same, so that values keep their digits and their collation. If
a subquery is between them, the kind of the values is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql.kinds import ANY, Kind
from dj_dagster.relational.user_sql.parsing import by_values, parse

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_LONGEST = 2000
"""Size of SQL up to which it is put in the place of a name."""
_EACH = 50
"""Size that each computed attribute adds, which bounds how deep they are nested."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An attribute that SQL computes, in a SELECT that other SQL may be part of.

    Attributes
    ----------
    types
        The types of the attributes that the SQL names.
    kind
        The kind of its values.
    """

    text: str
    types: Mapping[str, Known]
    kind: Kind

    @property
    def size(self) -> int:
        """The length of the SQL with that of computed attributes in it."""
        inner = (known.size for known in self.types.values() if isinstance(known, Made))
        return len(self.text) + _EACH + sum(inner)

    @property
    def is_short(self) -> bool:
        """Whether the SQL can be put in the place of the attribute's name."""
        return self.size <= _LONGEST


Plain = AttributeType | Kind | None
"""The type or the kind of values; None if only a database knows it."""

Known = Plain | Made


def known_of(attribute: Attribute, depth: int = 0) -> Known:
    """Return what a heading tells of an attribute."""
    computed = attribute.computation
    if attribute.type is not None or computed is None or depth * _EACH > _LONGEST:
        return attribute.type
    parsed, over = parse(computed.text), computed.over
    if parsed.nested:
        return None
    types = {name: known_of(over[name], depth + 1) for name in parsed.words if name in over}
    made = Made(computed.text, types, ANY)
    return made if made.is_short else None


def types_text(types: Mapping[str, Known]) -> str:
    """Return what is known of attributes as one text."""
    return json.dumps(_spelled(types), ensure_ascii=False, separators=(",", ":"))


def _spelled(types: Mapping[str, Known]) -> dict[str, Any]:
    return {name: _type_text(known) for name, known in sorted(types.items())}


def _type_text(known: Known) -> Any:
    match known:
        case Made():
            return {"text": known.text, "types": _spelled(known.types)}
        case Kind():
            return astuple(known)
        case None:
            return None
        case _:
            return "<codec>" if known.family is Family.CODEC else known.text


def with_made(tree: Expr, types: Mapping[str, Any]) -> tuple[Expr, dict[str, Plain]]:
    """Return a tree with the SQL of computed attributes in the place of their names.

    Parameters
    ----------
    types
        The types of its attributes, as in `types_text`.

    Returns
    -------
    tree
        Attributes of a computed attribute ``c`` are named ``c.a`` in it.
    types
        The types of its attributes.
    """
    found: dict[str, Plain] = {}
    return _with_made(tree, types, "", found), found


def _with_made(tree: Expr, types: Mapping[str, Any], place: str, found: dict[str, Plain]) -> Expr:
    from sqlglot import exp

    folded = {name.lower(): name for name in types}
    found.update({f"{place}{name}": _plain(known) for name, known in types.items()
                  if not isinstance(known, dict)})  # fmt: skip

    def replaced(node: Expr) -> Expr:
        if not isinstance(node, exp.Column) or node.text("table"):
            return node
        name = node.name if node.name in types else folded.get(node.name.lower(), "")
        known = types.get(name)
        if isinstance(known, dict):
            inner = by_values(parse(f"({known['text']}\n)").trees[0])
            return _with_made(inner, known["types"], f"{place}{name}.", found)
        return exp.column(exp.to_identifier(f"{place}{name}", quoted=True)) if place else node

    is_changed = place or any(isinstance(known, dict) for known in types.values())
    return tree.transform(replaced) if is_changed else tree


def _plain(known: Any) -> Plain:
    if isinstance(known, list):
        family, scale, choices, tag, single = list[Any](known)
        return Kind(family, scale, tuple(choices), tag, single)
    return known and parse_type("bytes" if known == "<codec>" else known)
