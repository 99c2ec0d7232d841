"""SQL written by users: which words of it are attributes.

Attributes are spelled out as the columns that they are, so that a text keeps its meaning after
joins, renames and beside other tables, and a name that the heading lacks is found before the
server is asked. What is no plain expression, a text with a SELECT of its own, is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from dj_dagster.errors import UnknownAttributeError
from dj_dagster.relational.sql_elements import Element, Pieces

_GRAMMAR_WORDS = """
all and any as asc between binary by case collate distinct div else escape exists false from glob
in interval is isnull like mod not notnull null on or order over partition regexp rlike select
separator some then true using when where xor
"""
_OTHER_WORDS = """
against array at bigint bool boolean char character charset convert current current_date
current_role current_time current_timestamp current_user date datetime day day_hour
day_microsecond day_minute day_second dec decimal default desc double end expansion filter first
float following for full group groups having hour hour_microsecond hour_minute hour_second if
ignore int integer json key language last leading left limit localtime localtimestamp match member
microsecond minute minute_microsecond minute_second mode month national natural nchar nocase nulls
numeric of offset others position preceding precision quarter query range real replace respect
returning right rollup row rows rtrim second second_microsecond set signed smallint soundex sounds
sql text ties time timestamp tinyint to trailing truncate unbounded union unknown unsigned utc_date
utc_time utc_timestamp values varchar week window with without year year_month zone
"""
_GRAMMAR = frozenset(_GRAMMAR_WORDS.split())
"""Words that are never attributes, unless in backticks."""

_WORDS = _GRAMMAR | frozenset(_OTHER_WORDS.split())
"""Words that are no attributes where the heading does not have them."""

_TOKEN = re.compile(
    r"(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?!\w)"
    r"|(?P<word>[^\W\d][\w$]*)|(?P<quoted>`[^`]+`)|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)
_STRINGS = {
    # MySQL's backslashes escape; SQLite's do not.
    True: re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL),
    False: re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL),
}
_NOT_REPEATABLE = re.compile(
    r"\bover\s*\(|\b(?:rand|random|randomblob|uuid|uuid_short|sysdate|sleep)\s*\(|@", re.IGNORECASE
)


class Spelling(Protocol):
    """How a database writes what others write otherwise."""

    def double_quoted(self, text: str) -> str:
        """Return the literal of a double-quoted string."""
        ...

    def time_unit(self, word: str) -> str:
        """Return the unit of a ``timestampdiff``."""
        ...


Kind = Literal["string", "number", "word", "quoted", "space", "other"]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL; `text` of a quoted name is without its quotes."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """A text of SQL in pieces.

    Attributes
    ----------
    operands
        Which tokens stand where an attribute may stand, by position.
    nested
        Whether there is a SELECT in it, whose names may be those of other tables.
    units
        Which tokens are the unit of a ``timestampdiff``.
    repeatable
        Whether it gives the same value wherever it is written: no window function, nothing random.
    """

    tokens: tuple[Token, ...]
    operands: frozenset[int]
    units: frozenset[int]
    nested: bool
    repeatable: bool

    @property
    def words(self) -> frozenset[str]:
        """All that may be names of attributes."""
        return frozenset(self.tokens[position].text for position in self.operands)


@lru_cache(maxsize=2000)
def scan(text: str, backslashes: bool) -> Scanned:
    """Return a text in pieces.

    Parameters
    ----------
    backslashes
        Whether a backslash in a string escapes what follows.

    Examples
    --------
    >>> sorted(scan("score > 3 AND label LIKE 'a and b'", backslashes=True).words)
    ['label', 'score']
    """
    tokens = tuple(_tokens(text, backslashes))
    nested = any(token.kind == "word" and token.text.lower() == "select" for token in tokens)
    outside = "".join(token.text for token in tokens if token.kind != "string")
    repeatable = _NOT_REPEATABLE.search(outside) is None
    operands = frozenset(_operands(tokens))
    return Scanned(tokens, operands, frozenset(_units(tokens)), nested, repeatable)


def written(
    scanned: Scanned,
    columns: Mapping[str, Element],
    database: Spelling,
    missing: Callable[[str], UnknownAttributeError],
) -> Element:
    """Return a text as SQL with its attributes spelled out.

    Parameters
    ----------
    database
        How it writes what not every database takes as it is.
    missing
        Gives the error for a name that is none of the columns and no word of SQL.
    """
    pieces: list[str | Element] = []
    for position, token in enumerate(scanned.tokens):
        found = columns.get(token.text) if position in scanned.operands else None
        if found is not None and not scanned.nested:
            pieces.append(found)
        elif position in scanned.operands and not scanned.nested and _is_unknown(token):
            raise missing(token.text)
        else:
            is_unit = position in scanned.units
            pieces.append(_spelled(token, None if scanned.nested else database, is_unit))
    return Pieces(pieces)


def _tokens(text: str, backslashes: bool) -> list[Token]:
    tokens: list[Token] = []
    position, string = 0, _STRINGS[backslashes]
    while position < len(text):
        match = string.match(text, position) if text[position] in "'\"" else None
        if match is not None:
            tokens.append(Token("string", match[0]))
        else:
            match = _TOKEN.match(text, position)
            assert match is not None  # any character is some token
            kind: Kind = match.lastgroup  # pyright: ignore[reportAssignmentType]
            tokens.append(Token(kind, match[0].strip("`") if kind == "quoted" else match[0]))
        position = match.end()
    return tokens


def _units(tokens: tuple[Token, ...]) -> list[int]:
    solid = [position for position, token in enumerate(tokens) if token.kind != "space"]
    triples = zip(solid, solid[1:], solid[2:], strict=False)
    return [
        unit
        for name, bracket, unit in triples
        if _takes_unit(tokens[name]) and tokens[bracket].text == "("
    ]


def _operands(tokens: tuple[Token, ...]) -> list[int]:
    """Return the positions of words that stand where an expression may stand."""
    solid = [position for position, token in enumerate(tokens) if token.kind != "space"]
    found: list[int] = []
    for place, position in enumerate(solid):
        before = [tokens[n] for n in solid[max(0, place - 3) : place]]
        after = tokens[solid[place + 1]] if place + 1 < len(solid) else Token("other", "")
        ends_operand = bool(found) and place > 0 and found[-1] == solid[place - 1]
        if _may_be_attribute(tokens[position], before, after, ends_operand):
            found.append(position)
    return found


def _may_be_attribute(token: Token, before: list[Token], after: Token, ends_operand: bool) -> bool:
    if token.kind not in ("word", "quoted") or after.text in ("(", "."):
        return token.kind == "quoted" and after.text == "("
    if token.kind == "word":
        last = before[-1] if before else Token("other", "")
        follows_operand = ends_operand or last.kind in ("string", "number") or last.text == ")"
        # As in: cast(x as date), interval 1 day, date '2026-01-01', extract(day from x).
        is_sql = (
            token.text.lower() in _GRAMMAR
            or follows_operand
            or after.kind == "string"
            or after.text.lower() == "from"
            or last.text.lower() in ("as", "collate", "using", "charset")
            or (last.text == "(" and before[-2:-1] and _takes_unit(before[-2]))
        )
        if is_sql:
            return False
    return not before or before[-1].text not in (".", "@", ":")


def _takes_unit(token: Token) -> bool:
    return token.text.lower() in ("timestampdiff", "timestampadd")


def _is_unknown(token: Token) -> bool:
    """Whether a word is surely meant as an attribute: they are in lower case."""
    if token.kind == "quoted":
        return True
    return token.text.islower() and token.text not in _WORDS


def _spelled(token: Token, database: Spelling | None, is_unit: bool) -> str:
    if token.kind == "quoted":
        return f"`{token.text}`"
    if database is not None and token.kind == "string" and token.text.startswith('"'):
        return database.double_quoted(token.text)
    return database.time_unit(token.text) if database is not None and is_unit else token.text
