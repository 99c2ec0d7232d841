"""Arguments and settings of users, checked where they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from dj_dagster.errors import ConfigurationError


def check_number(
    place: str, name: str, value: object, least: float, words: str, *, whole: bool = False
) -> None:
    """Refuse what is not a number, or is less than `least`.

    Parameters
    ----------
    place
        The class or function that has the argument, for errors.
    words
        The argument to write instead.
    whole
        Whether it must be an integer.

    Raises
    ------
    ConfigurationError
        If `value` is something else; the error names the argument.

    Examples
    --------
    >>> check_number("Work", "n", 0, 1, "1 or more", whole=True)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dj_dagster.errors.ConfigurationError: Work(n=0): write 1 or more...
    """
    kind = Integral if whole else Real
    # Python takes truth values for integers; a NaN is not even equal to itself.
    if isinstance(value, bool) or not isinstance(value, kind) or not float(value) >= least:
        raise ConfigurationError(f"{place}({name}={value!r}): write {words}.")


def check_kind(place: str, value: object, kinds: type | tuple[type, ...], words: str) -> None:
    """Refuse what is of another kind.

    Parameters
    ----------
    place
        The argument, or the setting, as an error is to name it.
    words
        The value to give instead.

    Raises
    ------
    ConfigurationError
        If `value` is something else.
    """
    if not isinstance(value, kinds):
        raise ConfigurationError(f"{place} is {value!r}: give {words}.")


def listed(place: str, value: Any, words: str) -> list[Any]:
    """Return what users gave as a list.

    Raises
    ------
    ConfigurationError
        If it is one thing alone.
    """
    # Dagster's specs and jobs may be named tuples, which are never lists of things.
    record = isinstance(value, tuple) and type(value) is not tuple
    if record or isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{place} is {value!r}: give {words} in a list.")
    return list(value)
