"""Signatures of MySQL's functions: the arguments that they take, and the values that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dj_dagster.relational.user_sql.values import Kind

KindOf = Callable[[Sequence[Kind], Sequence[Any]], Kind]


@dataclass(frozen=True, slots=True)
class Function:
    """A function.

    Attributes
    ----------
    takes
        A letter for each argument: ``t`` text, ``i`` integer, ``n`` number, ``f`` float, ``d``
        moment, ``h`` time, ``b`` bytes, ``r`` the value as it is. After a bar those that may be
        left out; a star repeats the last.
    gives
        The kind of its values, or what tells it from the kinds of the arguments and their values
        where they are literals.
    nulls
        Whether it is called with null arguments; else null is the answer.
    pure
        Whether the same arguments give the same value.
    """

    call: Callable[..., Any]
    takes: str
    gives: Kind | KindOf
    nulls: bool = False
    pure: bool = True
