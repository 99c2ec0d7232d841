"""The types that a value inside JSON can be converted to, whatever they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dj_dagster.errors import QueryError

_TYPE = re.compile(r"([a-z][a-z0-9 ]*)(\([0-9, ]+\))?")
_SPELLINGS = {
    "int": "signed",
    "integer": "signed",
    "bigint": "signed",
    "signed integer": "signed",
    "unsigned integer": "unsigned",
    "int unsigned": "unsigned",
    **{f"int{bits}": "signed" for bits in (8, 16, 32, 64)},
    "bool": "signed",
    "numeric": "decimal",
    "double": "float",
    "real": "float",
    "float32": "float",
    "float64": "float",
    "varchar": "char",
    "text": "char",
}


def cast_type(text: str, known: Mapping[str, str]) -> str:
    """Return what CAST calls a type, with its size.

    Parameters
    ----------
    text
        In any usual spelling: ``signed``, ``int32``, ``decimal(10,2)``.
    known
        What a database calls ``signed``, ``unsigned``, ``decimal``, ``float``, ``char``, ``date``,
        ``datetime`` and ``time``.

    Raises
    ------
    QueryError
        If it is none of them.

    Examples
    --------
    >>> cast_type("numeric(10,2)", {"decimal": "DECIMAL"})
    'DECIMAL(10,2)'
    """
    match = _TYPE.fullmatch(text)
    kind = known.get(_SPELLINGS.get(match[1].strip(), match[1].strip())) if match else None
    if match is None or kind is None:
        raise QueryError(
            f"A value inside JSON cannot be converted to {text!r}. Write one of "
            f"{', '.join(known)}, such as ':decimal(10,2)'."
        )
    return kind + (match[2] or "")
