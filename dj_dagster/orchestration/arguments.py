"""Numbers that users give in settings, checked where they are written."""

from __future__ import annotations

from numbers import Integral, Real

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
        What to write instead.
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
