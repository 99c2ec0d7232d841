"""Conditions on a parent's rows, carried over to a child that has inherited their attributes.

A child's rows that depend on ``Subject & {"subject_id": 1}`` are those with ``subject_id = 1``: no
query within a query is needed, so that a cascade over many generations stays flat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dj_dagster.model.heading import Heading
from dj_dagster.relational.algebra.algebra import (
    All,
    AnyOf,
    Condition,
    Equals,
    In,
    Matches,
    Negated,
    Node,
    SQLText,
)
from dj_dagster.relational.deleting.hierarchy import base_of, dependence, key_names
from dj_dagster.relational.stored import ForeignKey


def carried(parent: Node, foreign_key: ForeignKey) -> list[Condition] | None:
    """Return what holds, all of it, for the child's rows that refer to rows of a parent.

    None where the conditions on the parent are on more than what the child inherits, or say
    something else of a child without a parent: one with a null in its foreign key.
    """
    moved = _all_moved(parent, foreign_key)
    told = [condition for condition in moved if condition is not None]
    return told if told and len(told) == len(moved) and not foreign_key.nullable else None


def is_about_key(node: Node) -> bool:
    """Whether the conditions on a table's rows are on its primary key alone."""
    key = {name: name for name in key_names(node)}
    conditions = base_of(node)[1]
    return all(_moved(condition, key, node.heading) is not None for condition in conditions)


def narrowed(parent: Node, foreign_key: ForeignKey) -> Condition:
    """Return the condition under which a child's row refers to rows of its parent.

    What can be said of the child itself comes with it, so that a server need not go through the
    whole table and look for each row's parent.
    """
    matches = dependence(parent, foreign_key)
    told = [condition for condition in _all_moved(parent, foreign_key) if condition is not None]
    return All((*told, matches)) if told else matches


def any_of(choices: list[list[Condition]]) -> Condition:
    """Return that all conditions of one of the lists hold, each list taken once."""
    single: dict[int, Condition] = {}
    for choice in choices:
        whole = choice[0] if len(choice) == 1 else All(tuple(choice))
        parts = whole.conditions if isinstance(whole, AnyOf) else (whole,)
        single |= {id(part): part for part in parts}
    conditions = tuple(single.values())
    return conditions[0] if len(conditions) == 1 else AnyOf(conditions)


def _all_moved(parent: Node, foreign_key: ForeignKey) -> list[Condition | None]:
    inherited = {old: new for new, old in foreign_key.attributes.items()}
    conditions = base_of(parent)[1]
    return [_moved(condition, inherited, parent.heading) for condition in conditions]


def _moved(
    condition: Condition, inherited: Mapping[str, str], heading: Heading
) -> Condition | None:
    """Return a condition with the names that attributes have in the child.

    The very same condition where names stay, so that it is seen to be the same.
    """
    match condition:
        case Equals(name, value) if value is not None and name in inherited:
            return condition if inherited[name] == name else Equals(inherited[name], value)
        case In(names, values) if all(name in inherited for name in names):
            if all(inherited[name] == name for name in names):
                return condition
            return In(tuple(inherited[name] for name in names), values)
        case Matches(names) if names and all(inherited.get(name) == name for name in names):
            return condition
        case SQLText(text) if _is_about(text, inherited, heading):
            return condition
        case Negated(negated):
            moved_part = _moved(negated, inherited, heading)
            if moved_part is negated:
                return condition
            return None if moved_part is None else Negated(moved_part)
        case AnyOf(conditions) | All(conditions) if conditions:
            moved = [_moved(part, inherited, heading) for part in conditions]
            if all(new is old for new, old in zip(moved, conditions, strict=True)):
                return condition
            known = tuple(part for part in moved if part is not None)
            return type(condition)(known) if len(known) == len(moved) else None
        case _:
            return None


def _is_about(text: str, inherited: Mapping[str, str], heading: Heading) -> bool:
    """Whether SQL names only those attributes of the parent that the child has as they are."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    return all(inherited.get(name) == name for name in heading.all_attributes if name in words)
