"""Compilation of MySQL's expressions to Python: a tree becomes a function of its leaves."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dj_dagster.relational.user_sql import arithmetic, calls, choices, comparisons, text_functions
from dj_dagster.relational.user_sql.kinds import FLOAT, INT, NULL, TEXT, Kind, decimal_kind
from dj_dagster.relational.user_sql.programs import (
    Form,
    Program,
    ProgramOf,
    Untranslatable,
    constant,
    node_name,
)


def compiled(node: Any, leaves: Mapping[int, tuple[int, Kind]]) -> Program:
    """Return the program of a tree.

    Parameters
    ----------
    leaves
        The position and the kind of each node whose value is given, by its identity.

    Raises
    ------
    Untranslatable
        If a part of it is not supported.
    """

    def program_of(part: Any) -> Program:
        leaf = leaves.get(id(part))
        if leaf is not None:
            return Program(operator.itemgetter(leaf[0]), leaf[1])
        form = _FORMS.get(type(part).__name__)
        if form is None:
            raise Untranslatable(node_name(part))
        return form(program_of, part)

    return program_of(node)


def _paren(program_of: ProgramOf, node: Any) -> Program:
    return program_of(node.this)


def _literal(program_of: ProgramOf, node: Any) -> Program:
    if node.is_string:
        return constant(node.this, TEXT)
    written = node.this
    if re.fullmatch("[0-9]+", written):
        value = int(written)
        return constant(value, INT if value < 2**64 else decimal_kind(0))
    if "e" in written.lower():
        return constant(float(written), FLOAT)
    found = Decimal(written)
    return constant(found, decimal_kind(-int(found.as_tuple()[2])))


def _null(program_of: ProgramOf, node: Any) -> Program:
    del node
    return Program(lambda row: None, NULL)


def _boolean(program_of: ProgramOf, node: Any) -> Program:
    return constant(int(node.this), INT)


def _adjacent(program_of: ProgramOf, node: Any) -> Program:
    """Return adjacent literal texts as one."""
    parts = [program_of(part) for part in node.expressions]
    return constant("".join(part.literal for part in parts), TEXT)


def _collate(program_of: ProgramOf, node: Any) -> Program:
    raise Untranslatable(f"COLLATE {node.expression.sql()}")


def _hexadecimal(program_of: ProgramOf, node: Any) -> Program:
    digits = node.this if len(node.this) % 2 == 0 else f"0{node.this}"
    return constant(bytes.fromhex(digits), Kind("bytes"))


_FORMS: Mapping[str, Form] = {
    "Paren": _paren, "Literal": _literal, "Null": _null, "Boolean": _boolean,
    "Concat": _adjacent, "Collate": _collate, "HexString": _hexadecimal,
    **arithmetic.FORMS, **calls.FORMS, **choices.FORMS, **comparisons.FORMS, **text_functions.FORMS,
}  # fmt: skip
