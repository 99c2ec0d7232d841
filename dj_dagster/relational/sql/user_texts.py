"""The SQL that users wrote into a query, for messages about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from dj_dagster.relational.algebra.algebra import Node, SQLText


def user_texts(node: Node) -> list[str]:
    """Return the restrictions and computed attributes of a query that are SQL, each once."""
    waiting: list[Any] = [node]
    texts: dict[str, None] = {}
    # The list grows while it is walked.
    for part in waiting:
        if isinstance(part, SQLText):
            texts[part.text] = None
        elif isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, tuple):
            waiting += part
        elif is_dataclass(part):
            names = [field.name for field in fields(part)]
            waiting += [getattr(part, name) for name in names if name not in ("heading", "tables")]
    return list(texts)
