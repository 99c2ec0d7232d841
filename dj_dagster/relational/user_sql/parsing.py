"""Users' SQL parsed into trees, with the positions of attributes in the text.

The parser is sqlglot's, which takes a moment to import and is therefore imported on demand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from dj_dagster.errors import QuerySyntaxError

if TYPE_CHECKING:
    from sqlglot import exp as expressions
    from sqlglot.dialects.mysql import MySQL
    from sqlglot.expressions.core import Expr
    from sqlglot.parser import Parser

_PIECE = re.compile(
    r"(?P<bytes>\b[xX]'(?:[0-9a-fA-F]{2})+')"
    r"|(?P<string>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\")|(?P<quoted>`[^`]*`)"
    r"|(?P<special>/\*[!M+].*?\*/|--(?![\s]|$))|(?P<comment>/\*.*?\*/|(?:--(?=\s|$)|\#)[^\n]*)",
    re.DOTALL,
)
SIMPLE = re.compile(
    r"\s*(`?)([a-z]\w*)\1\s*(=|<>|!=|<=?|>=?|\bbetween\b)\s*"
    r"(-?[0-9]{1,15}(?:\s+and\s+-?[0-9]{1,15})?)\s*",
    re.IGNORECASE | re.ASCII,
)
"""The most frequent comparisons of integers, which are recognised without the parser."""

_FOREIGN = re.compile(r"==|;|,\s*\)|\b(?:in|count)\s*\(\s*\)", re.IGNORECASE)
"""Spellings that the parser and SQLite accept, and servers do not."""

_WRITTEN = "written"
"""The note in a cast's ``meta`` that it is a literal, such as ``TIME '9:30:00.5'``."""

_FIRST_MARK = 0xF0000
_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}
_SYNTAX = (
    *("CAST", "CHAR", "CONVERT", "EXTRACT", "GROUP_CONCAT", "JSON_VALUE", "MATCH", "POSITION"),
    *("SUBSTR", "SUBSTRING", "TRIM"),
)
"""Functions whose arguments are not all separated by commas."""

_NO_BRACKETS = ("UTC_DATE", "UTC_TIME", "UTC_TIMESTAMP")
_UNIT_FIRST = ("TIMESTAMPDIFF", "TIMESTAMPADD")
_NOT_REPEATABLE = frozenset(
    ["RAND", "RANDOM", "RANDOMBLOB", "UUID", "UUID_SHORT", "SYSDATE", "SLEEP", "RANDOM_BYTES"]
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a text that may be an attribute's, and its position."""

    text: str
    start: int
    end: int
    is_quoted: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """A text of SQL.

    Attributes
    ----------
    source
        The text without its comments.
    trees
        Its expressions, several if commas separate them; empty if it cannot be parsed, and for a
        simple comparison that need not be parsed.
    names
        The names that may be attributes, in the order of the text.
    nested
        Whether it contains a SELECT, whose names may be those of other tables.
    repeatable
        Whether it gives the same value at each place: it is without window and random functions.
    """

    text: str
    source: str
    trees: tuple[Expr, ...]
    names: tuple[Name, ...]
    nested: bool
    repeatable: bool

    @property
    def words(self) -> frozenset[str]:
        """All words that may be names of attributes."""
        return frozenset(name.text for name in self.names)


@lru_cache(maxsize=2000)
def parse(text: str) -> Parsed:
    """Return a text in MySQL's SQL, parsed.

    Examples
    --------
    >>> sorted(parse("score > 3 AND label LIKE 'a and b' -- not this").words)
    ['label', 'score']

    Raises
    ------
    QuerySyntaxError
        If its brackets do not match.
    """
    simple = SIMPLE.fullmatch(text)
    if simple is not None:
        quotes = len(simple[1])
        name = Name(simple[2], simple.start(2) - quotes, simple.end(2) + quotes, quotes > 0)
        return Parsed(text, text, (), (name,), nested=False, repeatable=True)
    source, masked, strings = _masked(text)
    _check_brackets(text, source)
    trees = None if masked is None else _trees(masked, strings)
    if not trees:
        words = frozenset(re.findall(r"\w+", source))
        opaque = re.search(r"(?i)\bover\b|\brand\b|@", source) is None
        names = tuple(Name(word, 0, 0) for word in words)
        return Parsed(text, source, (), names, nested=True, repeatable=opaque)
    from sqlglot import exp

    nodes = [node for tree in trees for node in tree.walk()]
    nested = any(isinstance(node, exp.Query) for node in nodes)
    repeatable = not any(map(_is_new_each_time, nodes))
    names = [_name(node.this) for node in nodes if type(node) is exp.Column and not node.table]
    names = sorted(names, key=lambda name: name.start)
    return Parsed(text, source, tuple(trees), tuple(names), nested, repeatable)


def qualified_tables(parsed: Parsed) -> Iterator[tuple[Name, Name]]:
    """Yield the names of a schema and its table wherever a text names a table with its schema."""
    from sqlglot import exp

    for tree in parsed.trees:
        for node in tree.find_all(exp.Table, exp.Column):
            table = node.this if isinstance(node, exp.Table) else node.args.get("table")
            schema = node.args.get("db")
            if isinstance(schema, exp.Identifier) and isinstance(table, exp.Identifier):
                yield _name(schema), _name(table)


def unquoted(parsed: Parsed) -> Iterator[Name]:
    """Yield the names in a text that are written without quotes: of attributes, tables, aliases."""
    from sqlglot import exp

    for tree in parsed.trees:
        for node in tree.find_all(exp.Identifier):
            if not node.quoted and "start" in node.meta:
                yield _name(node)


def split(text: str) -> list[str]:
    """Return the parts of a text between commas outside of brackets and strings.

    >>> split("a desc, field(b, 'x,y')")
    ['a desc', " field(b, 'x,y')"]
    """
    if "(" not in text and "'" not in text and '"' not in text:
        return text.split(",")
    source, _, _ = _masked(text)
    hidden = _PIECE.sub(_blank, source)
    parts, depth, start = list[str](), 0, 0
    for place, char in enumerate(hidden):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(source[start:place])
            start = place + 1
    return [*parts, source[start:]]


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _check_brackets(text: str, source: str) -> None:
    """Raise `QuerySyntaxError` for brackets that would end those around a text in a statement.

    With them, ``1) or (1`` would hold for all rows, whatever else a query is restricted by.
    """
    depth = 0
    for char in re.findall(r"[()]", _PIECE.sub(_hide, source)):
        depth += 1 if char == "(" else -1
        if depth < 0:
            break
    if depth:
        raise QuerySyntaxError(
            f"The brackets of {text!r} do not match: write a closing one for each that is opened."
        )


def _hide(match: re.Match[str]) -> str:
    # Servers run what stands in special comments.
    return match[0] if match.lastgroup == "special" else _blank(match)


def by_values(tree: Expr) -> Expr:
    """Return a tree with comparisons of rows, as in ``(a, b) = (1, 2)``, spelled out by values."""
    return tree.transform(_by_values) if any(map(_row, tree.walk())) else tree


def _by_values(node: Expr) -> Expr:
    from sqlglot import exp

    if isinstance(node, exp.In) and not node.args.get("query"):
        pairs = [_row_pair(node.this, other) for other in node.expressions]
        known = [exp.and_(*map(_equal, pair)) for pair in pairs if pair]
        return exp.paren(exp.or_(*known)) if len(known) == len(pairs) > 0 else node
    pair = _row_pair(node.this, node.expression) if isinstance(node, exp.Binary) else []
    if not pair:
        return node
    match node:
        case exp.EQ() | exp.NullSafeEQ():
            return exp.paren(exp.and_(*(type(node)(this=a, expression=b) for a, b in pair)))
        case exp.NEQ():
            return exp.not_(exp.paren(exp.and_(*map(_equal, pair))))
        case exp.LT() | exp.GT() | exp.LTE() | exp.GTE():
            first = exp.LT if isinstance(node, exp.LT | exp.LTE) else exp.GT
            *before, last = pair
            found: Expr = type(node)(this=last[0], expression=last[1])
            for a, b in reversed(before):
                found = exp.or_(
                    first(this=a, expression=b), exp.and_(_equal((a, b)), exp.paren(found))
                )
            return exp.paren(found)
        case _:
            return node


def _equal(pair: tuple[Expr, Expr]) -> Expr:
    from sqlglot import exp

    return exp.EQ(this=pair[0].copy(), expression=pair[1].copy())


def _row_pair(one: Expr, other: Expr) -> list[tuple[Expr, Expr]]:
    """Return the pairs of values of two rows of one length, otherwise nothing."""
    ours, theirs = _row(one), _row(other)
    return list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else []


def _row(node: Expr) -> list[Expr]:
    """Return the values of a row, nothing for other nodes."""
    from sqlglot import exp

    node = node.unnest()
    return node.expressions if isinstance(node, exp.Tuple) or call_name(node) == "ROW" else []


def call_name(node: Expr) -> str:
    """Return the name of a function in upper case, empty for other nodes."""
    from sqlglot import exp

    return str(node.this).upper() if isinstance(node, exp.Anonymous) else ""


def _name(identifier: expressions.Identifier) -> Name:
    start, end = identifier.meta["start"] - 7, identifier.meta["end"] - 6
    return Name(identifier.name, start, end, identifier.quoted)


def _is_new_each_time(node: Expr) -> bool:
    from sqlglot import exp

    variable = isinstance(node, exp.Window | exp.Parameter | exp.SessionParameter)
    return variable or call_name(node) in _NOT_REPEATABLE


def _masked(text: str) -> tuple[str, str | None, list[str]]:
    """Return a text without comments, the same with strings replaced by marks, and the strings.

    Lengths are kept. The parser's own reading of strings and comments differs from MySQL's.
    """
    strings: list[str] = []
    special = False

    def seen(match: re.Match[str]) -> str:
        nonlocal special
        special = special or match.lastgroup == "special"
        return " " * len(match[0]) if match.lastgroup == "comment" else match[0]

    def mark(match: re.Match[str]) -> str:
        if match.lastgroup == "bytes":
            return f"0x{match[0][2:-1]} "
        if match.lastgroup != "string":
            return match[0]
        strings.append(_unquoted(match[0]))
        inside = len(match[0]) - 2
        return f"'{chr(_FIRST_MARK + len(strings) - 1):<{inside}}'" if inside else "''"

    source = _PIECE.sub(seen, text)
    masked = _PIECE.sub(mark, source)
    return source, None if special or len(strings) > 0xFFFF else masked, strings


def _unquoted(literal: str) -> str:
    def plain(match: re.Match[str]) -> str:
        # Characters escaped for LIKE keep their backslash; a quote may be doubled.
        escaped = match[1]
        if escaped is None:
            return literal[0]
        return match[0] if escaped in "%_" else _ESCAPES.get(escaped, escaped)

    return re.sub(rf"\\(.)|{literal[0] * 2}", plain, literal[1:-1], flags=re.DOTALL)


def _trees(masked: str, strings: list[str]) -> list[Expr] | None:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if _FOREIGN.search(masked):
        return None
    try:
        parsed = _dialect().parse(f"SELECT {masked}")
    except (SqlglotError, RecursionError):
        return None
    select = parsed[0] if len(parsed) == 1 else None
    if not isinstance(select, exp.Select) or _has_clauses(select):
        return None
    trees = list(select.expressions)
    if any(isinstance(tree, exp.Alias | exp.Aliases | exp.Star) for tree in trees):
        return None
    for node in list(select.walk()):
        _mend(node, strings)
    return list(select.expressions)


def _has_clauses(select: Expr) -> bool:
    return any(value for name, value in select.args.items() if name != "expressions")


def _mend(node: Expr, strings: list[str]) -> None:
    from sqlglot import exp

    if isinstance(node, exp.Literal) and node.is_string and node.this:
        first = ord(node.this[0])
        if first >= _FIRST_MARK:
            node.set("this", strings[first - _FIRST_MARK])
            if isinstance(node.parent, exp.Cast) and node.parent.meta.get(_WRITTEN):
                _keep_fraction(node.parent)
    elif isinstance(node, exp.JSONPath):
        # The path is kept as written, since its reading depends on the function.
        marks = [str(key.this) for key in node.find_all(exp.JSONPathKey)]
        if len(marks) == 1 and ord(marks[0][:1] or "$") >= _FIRST_MARK:
            node.replace(exp.Literal.string(strings[ord(marks[0][0]) - _FIRST_MARK]))
    elif isinstance(node, exp.Column) and not node.table and node.name.upper() in _NO_BRACKETS:
        if not node.this.quoted:
            node.replace(exp.Anonymous(this=node.name, expressions=[]))
    elif isinstance(node, exp.Interval):
        _mend_amount(node)
    elif call_name(node) in _UNIT_FIRST and node.expressions:
        unit = node.expressions[0]
        node.set("expressions", [exp.var(unit.name.upper()), *node.expressions[1:]])


def _mend_amount(interval: Expr) -> None:
    """Restore an amount that was written as a number, which the parser turns into a text."""
    from sqlglot import exp

    amount = interval.this
    if not isinstance(amount, exp.Literal) or not amount.is_string or not amount.this:
        return
    if ord(amount.this[0]) < _FIRST_MARK:
        interval.set("this", exp.Literal.number(amount.this))


def _keep_fraction(cast: Expr) -> None:
    """Set the type of a literal to the written number of digits of a second."""
    from sqlglot import exp

    places = min(len(cast.this.this.partition(".")[2].rstrip()), 6)
    size = exp.DataTypeParam(this=exp.Literal.number(places))
    cast.args["to"].set("expressions", [size])


def _read_literal(parser: Parser, this: Expr, kind: expressions.DataType) -> Expr:
    from sqlglot import exp

    found = parser.expression(exp.Cast(this=this, to=kind))
    found.meta[_WRITTEN] = True
    return found


@cache
def _dialect() -> MySQL:
    from sqlglot import exp
    from sqlglot.dialects.mysql import MySQL

    class UserSQL(MySQL):
        """MySQL's dialect with every function under the name that the user wrote."""

        class Parser(MySQL.Parser):
            """A parser that knows only the syntax of functions' arguments."""

            FUNCTIONS = {}  # noqa: RUF012
            TYPE_LITERAL_PARSERS = {  # noqa: RUF012
                **MySQL.Parser.TYPE_LITERAL_PARSERS,
                **dict.fromkeys((exp.DType.TIME, exp.DType.TIMESTAMPTZ), _read_literal),
            }
            FUNCTION_PARSERS = {  # noqa: RUF012
                name: MySQL.Parser.FUNCTION_PARSERS[name]
                for name in _SYNTAX
                if name in MySQL.Parser.FUNCTION_PARSERS
            }

    return UserSQL()
