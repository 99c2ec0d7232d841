"""Signatures of MySQL's functions: the kinds of their arguments and results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dj_dagster.relational.user_sql.values import Kind

KindOf = Callable[[Sequence[Kind], Sequence[Any]], Kind]


@dataclass(frozen=True, slots=True)
class Function:
    """The signature of a function.

    Attributes
    ----------
    takes
        A letter for each argument: ``t`` text, ``i`` integer, ``n`` number, ``f`` float, ``d``
        moment, ``h`` time, ``b`` bytes, ``r`` the value as it is. Arguments after a bar are
        optional; a star repeats the last.
    gives
        The kind of its values, or a function that returns it, given the kinds of the arguments and
        the values of literal ones.
    nulls
        Whether it is called with null arguments; otherwise the result is null.
    pure
        Whether the same arguments give the same value.
    """

    call: Callable[..., Any]
    takes: str
    gives: Kind | KindOf
    nulls: bool = False
    pure: bool = True
