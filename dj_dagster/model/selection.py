"""The selection of tables by what users write for them: one reading of names for all settings.

Spellings that select tables, for example in a schema ``lab``:

========================== ======================================================================
``lab.Session.Trial``      schema and class, a part after its master
``Session.Trial``          the class alone, where only one schema has it
``lab/session/trial``      the asset key, also ``key:lab/session/trial`` as in Dagster's own syntax
``lab.session__trial``     the name in SQL, also quoted, or without the prefix of the tier
``lab``                    the tables of a schema
``tier:computed``          the tables of a tier
``lab.S*``                 any of these with ``*`` for anything
``+Result``, ``Session+2`` any of these with the tables above or below, all or so many levels
========================== ======================================================================

A table, its class or its asset key may be given instead of a text. As in Dagster's own selections,
``+Result`` has all tables above, ``1+Result`` only those that it refers to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TypeVar, cast

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.names import TableName, Tier, class_names, snake_case, title

T = TypeVar("T")

TIER, KEY = "tier:", "key:"

SHOWN = 20
"""Tables that an error lists, at most."""

_EXPRESSION = re.compile(r"(?:(?P<up>\d*)\+)?(?P<name>[^+].*?)(?:\+(?P<down>\d*))?", re.DOTALL)
_WILD = re.compile(r"[*?\[]")
_QUOTES = re.compile(r"""[`"']""")


@dataclass(frozen=True)
class Candidate:
    """A table that a text may stand for.

    Attributes
    ----------
    parents
        The tables that it refers to, and a part's master.
    """

    name: TableName
    tier: Tier
    parents: tuple[TableName, ...] = ()

    @cached_property
    def classes(self) -> str:
        """The class, for a part after that of its master: ``"Session.Trial"``."""
        return ".".join(class_names(self.name))

    @cached_property
    def title(self) -> str:
        """Schema and class."""
        return title(self.name)

    @cached_property
    def key(self) -> str:
        """The asset key as text."""
        return "/".join([self.name.schema, *map(snake_case, class_names(self.name))])

    @property
    def spellings(self) -> tuple[str, str, str, str]:
        """The texts that stand for this table alone, unless another one has the same."""
        return str(self.name), self.title, self.key, self.classes


def matched(given: object, tables: Sequence[Candidate], place: str) -> frozenset[TableName]:
    """Return the tables that users mean, each of their names by itself.

    Parameters
    ----------
    given
        A text, table, class or asset key, or several of these.
    tables
        The tables that there are.
    place
        The setting that `given` stands in, for errors.

    Raises
    ------
    ConfigurationError
        When one of the names stands for no table, or for several by accident, or is not a name.

    Examples
    --------
    >>> lab = [Candidate(TableName("lab", name), Tier.MANUAL) for name in ("subject", "session")]
    >>> sorted(matched(["Session", "lab/subject"], lab, "select"))
    [TableName(schema='lab', table='session'), TableName(schema='lab', table='subject')]
    >>> matched("Sesion", lab, "select")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dj_dagster.errors.ConfigurationError: select has 'Sesion', which names no table; near it: \
lab.Session...
    """
    found: set[TableName] = set()
    for text in texts(given, place):
        names = _expression(text, tables, place)
        if not names:
            raise unknown(text, tables, place)
        found |= names
    return frozenset(found)


def single(given: object, tables: Sequence[Candidate], place: str) -> TableName:
    """Return the one table that a name stands for; see `matched`.

    Raises
    ------
    ConfigurationError
        When it stands for no table, or for several.
    """
    text = text_of(given, place)
    chosen = _named(text, tables, place)
    if not chosen:
        raise unknown(text, tables, place)
    if len(chosen) > 1:
        raise _ambiguous(text, chosen, place)
    return chosen[0].name


def by_table(
    settings: Mapping[object, T],
    tables: Sequence[Candidate],
    place: str,
    left_out: Sequence[Candidate] = (),
) -> dict[TableName, T]:
    """Return what settings by name mean for each table.

    Where several fit a table, the one that fits fewest tables counts, of equals the last.

    Parameters
    ----------
    left_out
        Tables that may be named, although they are not used.

    Raises
    ------
    ConfigurationError
        See `matched`.
    """
    found: list[tuple[frozenset[TableName], T]] = []
    for given, value in settings.items():
        text = text_of(given, place)
        names = _expression(text, tables, place)
        found.append((names or matched(text, (*tables, *left_out), place), value))
    found.sort(key=lambda each: -len(each[0]))
    return {name: value for names, value in found for name in names}


def texts(given: object, place: str) -> list[str]:
    """Return the names that users gave, alone or several, as texts.

    Raises
    ------
    ConfigurationError
        When one of them does not stand for a table.
    """
    # A record, as Dagster's own selections are, is not several names.
    record = isinstance(given, tuple) and type(given) is not tuple
    if _text(given) is not None or record or not isinstance(given, Iterable):
        return [text_of(given, place)]
    return [text_of(each, place) for each in cast("Iterable[object]", given)]


def text_of(given: object, place: str) -> str:
    """Return the text of a text, table, class or asset key.

    Raises
    ------
    ConfigurationError
        When `given` is something else.
    """
    found = _text(given)
    if found is None:
        raise ConfigurationError(
            f"{place} has {given!r}, which is not a table: write its class, or its name as in "
            "'lab.Session'."
        )
    return found


def schemas_of(given: object, schemas: Iterable[str]) -> list[str]:
    """Return the schemas in which a table of a name can be: the one in the name, or all.

    Examples
    --------
    >>> schemas_of("`lab`.`session`", ["lab", "old"]), schemas_of("Session", ["lab", "old"])
    (['lab'], ['lab', 'old'])
    """
    known = list(schemas)
    text = _QUOTES.sub("", _text(given) or "").removeprefix(KEY)
    return [name for name in known if text.startswith((f"{name}.", f"{name}/"))] or known


def unknown(
    text: str, tables: Iterable[Candidate], place: str, none: str = ""
) -> ConfigurationError:
    """Return the error for a name that stands for no table, with those that are meant perhaps.

    Parameters
    ----------
    none
        Words after "names no table".
    """
    # The answer is in the spelling of the question.
    known = {
        word.casefold(): each.key if "/" in text else each.title
        for each in tables
        for word in each.spellings
    }
    bare = _WILD.sub("", text).strip("+").removeprefix(KEY).casefold()
    near = dict.fromkeys(known[word] for word in get_close_matches(bare, known, n=6, cutoff=0.7))
    if text.startswith(TIER):
        near = dict.fromkeys(sorted(f"{TIER}{each.tier.value}" for each in tables))
    there = f"near it: {', '.join(near)}" if near else f"there are {_listed(known.values())}"
    return ConfigurationError(f"{place} has {text!r}, which names no table{none}; {there}.")


def _listed(titles: Iterable[str]) -> str:
    found = list(dict.fromkeys(titles))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (", ".join(found[:SHOWN]) or "none") + more


def _text(given: object) -> str | None:
    # Tables of ours and of DataJoint have a full name, asset keys of Dagster a path.
    if isinstance(given, str):
        return given.strip()
    full, path = (getattr(given, name, None) for name in ("full_table_name", "path"))
    if isinstance(full, str):
        return _QUOTES.sub("", full)
    return "/".join(map(str, cast("list[object]", path))) if isinstance(path, list) else None


def _expression(text: str, tables: Sequence[Candidate], place: str) -> frozenset[TableName]:
    """Return the tables of a name with those above and below that it asks for."""
    parsed = _EXPRESSION.fullmatch(text)
    if parsed is None:
        return frozenset()
    chosen = frozenset(each.name for each in _named(parsed["name"], tables, place))
    found = chosen
    if parsed["up"] is not None:
        parents = {each.name: each.parents for each in tables}
        found |= _reached(chosen, parents, parsed["up"])
    if parsed["down"] is not None:
        children: dict[TableName, list[TableName]] = {each.name: [] for each in tables}
        for each in tables:
            for parent in each.parents:
                children.setdefault(parent, []).append(each.name)
        found |= _reached(chosen, children, parsed["down"])
    return found


def _reached(
    start: frozenset[TableName], links: Mapping[TableName, Iterable[TableName]], depth: str
) -> frozenset[TableName]:
    """Return the tables of `links` within a number of links, without a number all."""
    found, last, left = set(start), set(start), int(depth) if depth else len(links)
    while last and left:
        last = {each for name in last for each in links[name] if each in links} - found
        found |= last
        left -= 1
    return frozenset(found)


def _named(text: str, tables: Sequence[Candidate], place: str) -> list[Candidate]:
    """Return the tables that a name without ``+`` stands for."""
    plain = _QUOTES.sub("", text)
    if plain.startswith(TIER):
        wanted = plain.removeprefix(TIER).strip()
        return [each for each in tables if fnmatchcase(each.tier.value, wanted)]
    if plain.startswith(KEY):
        wanted = plain.removeprefix(KEY).strip()
        return [each for each in tables if fnmatchcase(each.key, wanted)]
    if _WILD.search(plain):
        return [
            each
            for each in tables
            if any(fnmatchcase(word, plain) for word in (*each.spellings, each.name.schema))
        ]
    for fits in _FITS:
        if found := [each for each in tables if fits(each, plain)]:
            # Tables that differ only in their tier are one in Dagster.
            schemas = all(each.name.schema == plain for each in found)
            if len({each.key for each in found}) > 1 and not schemas:
                raise _ambiguous(text, found, place)
            return found
    return []


_FITS: Sequence[Callable[[Candidate, str], bool]] = (
    lambda each, text: text == str(each.name),
    lambda each, text: text in (each.title, each.key),
    lambda each, text: text in (each.classes, each.name.schema),
    lambda each, text: text == f"{each.name.schema}.{each.name.table.lstrip('_#')}",
)
"""Whether a table is meant by a text without ``*``: the first of these that fits any table counts,
so that each table has a name that is its own."""


def _ambiguous(text: str, found: Iterable[Candidate], place: str) -> ConfigurationError:
    # Tables with equal titles are told apart by their names in SQL.
    titles = sorted(each.title for each in found)
    names = sorted(str(each.name) for each in found)
    told = titles if len(set(titles)) == len(titles) else names
    return ConfigurationError(
        f"{place} has {text!r}, which names more than one table; write one of {_listed(told)}."
    )
