"""From the names in a definition's foreign keys to tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard

from dj_dagster.errors import DefinitionError
from dj_dagster.relational.table import Table
from dj_dagster.relational.table_meta import TableMeta


def find_class(target: str, cls: type[Table], names: Mapping[str, Any]) -> type[Table]:
    """Return the table class that a foreign key names.

    Looked up in the schema and the context given to it, then in the class's own module, as
    `Session`, `lab.Subject` or `Session.Trial`; `master` is the class that a part is written in.

    Raises
    ------
    DefinitionError
        If there is no such table, or it has not been declared yet.
    """
    first, *rest = target.split(".")
    module = vars(sys.modules.get(cls.__module__, object))
    found: Any = names.get(first, module.get(first))
    for attribute in rest:
        found = getattr(found, attribute, None)
    if not is_table(found):
        known = sorted({*names, *(n for n, v in module.items() if isinstance(v, TableMeta))})
        raise DefinitionError(_unknown(target, cls, known, found))
    if found._binding is None:
        raise DefinitionError(
            f"{cls.__qualname__} refers to {target}, which is not declared yet: "
            f"put {target} before it and decorate it with its schema."
        )
    return found


def is_table(value: object) -> TypeGuard[type[Table]]:
    """Whether something is a table class."""
    return isinstance(value, TableMeta) and issubclass(value, Table)


def _unknown(target: str, cls: type[Table], known: list[str], found: Any) -> str:
    if found is not None:
        return (
            f"{cls.__qualname__} refers to {target}, which is no table but "
            f"a {type(found).__name__}."
        )
    close = get_close_matches(target, known, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return (
        f"{cls.__qualname__} refers to {target}, which is no table known here. {hint}"
        "Declare it before this class, import it into the module, or pass it in the schema's "
        f"context. Known tables: {', '.join(known) or 'none'}."
    )
