"""From the names in a definition's foreign keys to tables."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TypeGuard

from dj_dagster.errors import DefinitionError
from dj_dagster.relational.scope import Scope
from dj_dagster.relational.table import Table
from dj_dagster.relational.table_meta import TableMeta


def find_class(target: str, cls: type[Table], scope: Scope) -> type[Table]:
    """Return the table class that a foreign key names, declared or not.

    `Session`, `lab.Subject` or `Session.Trial`; `master` is the class that a part is written in.

    Raises
    ------
    DefinitionError
        If there is no such table.
    """
    others: list[object] = []
    for found in scope.found(target):
        if is_table(found):
            return found
        others.append(found)
    if others:
        raise DefinitionError(
            f"{cls.__qualname__} refers to {target}, which is no table but "
            f"a {type(others[0]).__name__}."
        )
    raise DefinitionError(_unknown(target, cls, scope))


def find_declared(target: str, cls: type[Table], scope: Scope) -> type[Table]:
    """Return the table class that a foreign key names; see `find_class`.

    Raises
    ------
    DefinitionError
        If there is no such table, or it has not been declared yet.
    """
    found = find_class(target, cls, scope)
    if found is cls:
        raise DefinitionError(_to_itself(cls))
    if found._binding is None:
        raise DefinitionError(
            f"{cls.__qualname__} refers to {target}, which is not declared yet: "
            f"put {target} before it, decorate it with its schema, and activate that."
        )
    return found


def is_table(value: object) -> TypeGuard[type[Table]]:
    """Whether something is a table class."""
    return isinstance(value, TableMeta) and issubclass(value, Table)


def _to_itself(cls: type[Table]) -> str:
    return (
        f"{cls.__qualname__} refers to itself by its name, which is not known yet. Write self for "
        "it, with another name for its key: -> [nullable] self.proj(parent='...')."
    )


def _unknown(target: str, cls: type[Table], scope: Scope) -> str:
    known = sorted(
        name
        for name in scope.names() - {"self"}
        if any(is_table(found) and hasattr(found, "tier") for found in scope.found(name))
    )
    if target in (cls.__name__, cls.__qualname__):
        return _to_itself(cls)
    close = get_close_matches(target, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return (
        f"{cls.__qualname__} refers to {target}, which is no table known here. {hint}"
        "Declare it before this class, import it into the module, or pass it in the schema's "
        f"context. Known tables: {', '.join(known) or 'none'}."
    )
