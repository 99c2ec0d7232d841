"""Translation of MySQL's expressions and aggregates for SQLite, by a function where they differ.

The function gets the user's text and the types of its attributes. Its result depends on them alone,
so that a statement means the same in any process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dj_dagster.errors import QueryError, QuerySyntaxError
from dj_dagster.model.heading import Heading
from dj_dagster.model.names import TableName
from dj_dagster.model.types import AttributeType, Family, parse_type
from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.user_sql.attributes import (
    Known,
    Made,
    known_of,
    types_text,
    with_made,
)
from dj_dagster.relational.user_sql.emission import (
    AGGREGATES,
    BITS,
    OWN,
    Attribute,
    Emitted,
    Emitter,
    Piece,
    SQLiteRun,
    SQLiteValue,
    Translator,
    bare,
    is_leaf,
    is_simple,
    kind_of,
    literal_of,
    lone_attribute,
    number_text,
    quoted,
    temporal_literal,
    time_order,
    with_more,
)
from dj_dagster.relational.user_sql.kinds import (
    ANY,
    FLOAT,
    INT,
    TEXT,
    UNSIGNED,
    YEAR,
    Kind,
    Number,
    as_year,
    decimal_kind,
    exact,
    fixed,
    value_kind,
)
from dj_dagster.relational.user_sql.parsing import (
    SIMPLE,
    Parsed,
    by_values,
    call_name,
    parse,
    qualified_tables,
    unquoted,
)
from dj_dagster.relational.user_sql.programs import SPREADS, Untranslatable, check_null, node_name
from dj_dagster.relational.user_sql.windows import window

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_SIGNS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_MIRRORED = {"EQ": "EQ", "NEQ": "NEQ", "LT": "GT", "LTE": "GTE", "GT": "LT", "GTE": "LTE"}


def _logic(translator: Translator, node: Expr) -> Emitted:
    word = " AND " if type(node).__name__ == "And" else " OR "
    one, other = _truth(translator, node.this), _truth(translator, node.expression)
    return Emitted(("(", *one, word, *other, ")"), INT)


def _not(translator: Translator, node: Expr) -> Emitted:
    return Emitted(("(NOT ", *_truth(translator, node.this), ")"), INT)


def _truth(translator: Translator, node: Expr) -> tuple[Piece, ...]:
    value = translator.value(node)
    return value.pieces if value.kind.is_condition else translator.program(node, "truth").pieces


def _is(translator: Translator, node: Expr) -> Emitted | None:
    from sqlglot import exp

    if not isinstance(node.expression, exp.Null):
        return None
    check_null(node.this)
    return Emitted(("(", *translator.value(node.this).pieces, " IS NULL)"), INT)


def _comparison(translator: Translator, node: Expr) -> Emitted | None:
    operator = type(node).__name__
    one, other = bare(node.this), bare(node.expression)
    if not is_simple(one):
        one, other, operator = other, one, _MIRRORED[operator]
    pair = _pair(translator, one, other, by_order=operator not in ("EQ", "NEQ"))
    if pair is None:
        return None
    first, second = pair
    return Emitted(("(", *first, f" {_SIGNS[operator]} ", *second, ")"), INT)


def _pair(
    translator: Translator, one: Expr, other: Expr, *, by_order: bool = False
) -> tuple[tuple[Piece, ...], tuple[Piece, ...]] | None:
    """Return the two sides if SQLite compares them as MySQL does, otherwise None."""
    if not is_simple(one):
        return None
    left = translator.value(one)
    # A sum of many digits is text.
    is_sum = call_name(one) == "SUM" and left.kind.family == "decimal"
    if (
        is_sum
        or left.exact
        or left.kind.tag == "fixed"
        or (by_order and left.kind.family == "time")
    ):
        return None
    if is_simple(other):
        right = translator.value(other)
        same = left.kind == right.kind and left.kind.family != "json"
        numbers = _is_plain_number(left.kind) and _is_plain_number(right.kind)
        texts = left.kind.family == right.kind.family == "text"
        both = (
            (same or numbers or texts) and translator.is_short(one) and translator.is_short(other)
        )
        return (left.pieces, right.pieces) if both and not right.exact else None
    literal = literal_of(other)
    if literal is not None:
        written = _literal_for(translator, one, left.kind, literal)
    else:
        written = _uuid_literal(translator, one, other)
    return None if written is None else (left.pieces, (written,))


def _literal_for(
    translator: Translator, node: Expr, kind: Kind, literal: str | Number
) -> str | None:
    """Return a literal in the form that SQLite needs for equality with a value."""
    family = kind.family
    if family in ("int", "float", "decimal"):
        if not translator.is_short(node):
            return None
        literal = as_year(literal) if kind == YEAR else literal
        return number_text(exact(literal) if isinstance(literal, str) else literal)
    if not isinstance(literal, str):
        return None
    if family == "text":
        return None if "\0" in literal else quoted(literal)
    if family == "bytes" and translator.is_uuid(node):
        # Servers hold it as 16 bytes, which no such text equals.
        raise Untranslatable(f"comparing a UUID with a text: restrict by {{{node.name!r}: UUID}}")
    if not kind.is_temporal:
        return None
    if family == "time" and not temporal.is_clock(literal):
        raise Untranslatable(f"comparing a time with {literal!r}")
    found = temporal.duration(literal) if family == "time" else temporal.moment(literal)
    if found is None:
        raise Untranslatable(f"{literal!r} as a date or time")
    return temporal_literal(found, kind)


def _uuid_literal(translator: Translator, node: Expr, other: Expr) -> str | None:
    """Return the text of a UUID that is written as its bytes, None for anything else."""
    is_written = type(other).__name__ == "HexString" and len(other.this) == 32
    if not is_written or not translator.is_uuid(node):
        return None
    return quoted(str(UUID(hex=other.this)))


def _between(translator: Translator, node: Expr) -> Emitted | None:
    this = bare(node.this)
    low = _pair(translator, this, bare(node.args["low"]), by_order=True)
    high = _pair(translator, this, bare(node.args["high"]), by_order=True)
    if low is None or high is None:
        return None
    return Emitted(("(", *low[0], " BETWEEN ", *low[1], " AND ", *high[1], ")"), INT)


def _in(translator: Translator, node: Expr) -> Emitted | None:
    this = bare(node.this)
    if node.args.get("query") or not node.expressions:
        return None
    if is_simple(this) and translator.value(this).kind == YEAR and len(node.expressions) > 1:
        return None
    pairs = [_pair(translator, this, bare(other)) for other in node.expressions]
    pieces: list[Piece] = []
    for pair in pairs:
        if pair is None:
            return None
        pieces += [", ", *pair[1]]
    return Emitted(("(", *translator.value(this).pieces, " IN (", *pieces[1:], "))"), INT)


def _like(translator: Translator, node: Expr) -> Emitted | None:
    this, pattern = bare(node.this), literal_of(bare(node.expression))
    if not is_simple(this) or not isinstance(pattern, str) or not pattern.isascii():
        return None
    left = translator.value(this)
    if left.kind.family != "text" or left.kind.tag or node.args.get("negate"):
        return None
    like = f" LIKE {quoted(pattern)} ESCAPE '\\')"
    return None if "\0" in pattern else Emitted(("(", *left.pieces, like), INT)


def _is_plain_number(kind: Kind) -> bool:
    return kind.family in ("int", "float", "decimal")


COMPARISON_EMITTERS: Mapping[str, Emitter] = {
    "And": _logic, "Or": _logic, "Not": _not, "Is": _is, **dict.fromkeys(_SIGNS, _comparison),
    "Between": _between, "In": _in, "Like": _like,
}  # fmt: skip

_PLAIN_NODES = frozenset((
    "Select", "From", "Where", "Group", "Having", "Order", "Ordered", "Limit", "Offset",
    "Join", "Table", "TableAlias", "Alias", "Subquery", "Union", "Intersect", "Except",
    "Column", "Identifier", "Star", "Literal", "Null", "Boolean", "Paren", "And", "Or", "Not",
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "Is", "In", "Between", "Exists", "Distinct", "Add",
    "Sub", "Mul", "Neg", "Tuple", "Anonymous", "With", "CTE",
))  # fmt: skip
_PLAIN_CALLS = frozenset(
    ["COUNT", "MIN", "MAX", "SUM", "AVG", "COALESCE", "IFNULL", "NULLIF", "ABS"]
)
_TIMES = (Family.DATE, Family.DATETIME, Family.TIME)
_TEMPORAL = re.compile("date|time|day|now|interval|as time|_tz", re.IGNORECASE)
_DATABASES = ("main", "temp")
_QUALIFIED = re.compile(
    r"(?:'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/)"
    r"|((?:\b(?:from|join|into|update|table|view|exists|references)\s+)?)"
    r"(`[^`]+`|\b[a-z_]\w*)\s*\.\s*(`[^`]+`|[a-z_]\w*)(\s*\.)?|`[^`]*`",
    re.IGNORECASE | re.DOTALL,
)
_STRING = re.compile(r"\"(?:[^\"\\]|\\.|\"\")*\"|'(?:[^'\\]|\\.|'')*'|`[^`]*`", re.DOTALL)


@dataclass(slots=True)
class Translation:
    """A user's text as SQL of SQLite.

    Attributes
    ----------
    programs
        The programs that the function runs, by number.
    order
        The argument with which ``dj_order`` makes keys that SQLite orders as MySQL orders the
        values; empty if SQLite orders the values themselves in this way.
    """

    pieces: tuple[Piece, ...] = ()
    kind: Kind = ANY
    order: str = ""
    programs: list[SQLiteRun] = field(default_factory=list[SQLiteRun])


@lru_cache(maxsize=5000)
def translate(source: str, types: str) -> Translation:
    """Return a user's text as SQL of SQLite.

    Parameters
    ----------
    types
        The types of the attributes that it names; see `types_text`.

    Raises
    ------
    QueryError
        If a part of it cannot be translated; the message names the part.
    """
    found = Translation()
    try:
        _fill(found, source, types)
    except Untranslatable as error:
        raise QueryError(
            f"SQLite cannot do this of MySQL's SQL: {error} (in {source!r}). Compute it in "
            f"Python, or write it in another way."
        ) from error
    except RecursionError as error:
        raise QueryError(f"SQLite: {source[:200]!r}... is nested too deeply.") from error
    return found


def _fill(found: Translation, source: str, types: str) -> None:
    known: dict[str, Any] = json.loads(types)
    simple = _simple(source, known)
    if simple is not None:
        found.pieces, found.kind = simple, INT
        return
    parsed = parse(f"({source})" if SIMPLE.fullmatch(source) else source)
    if not parsed.trees:
        raise QuerySyntaxError("There is a syntax error, or SQLite cannot do what is written")
    if parsed.nested:
        found.pieces = (_passed(parsed),)
        return
    if len(parsed.trees) > 1:
        raise Untranslatable("a list of expressions")
    tree = by_values(next(iter(parsed.trees)))
    check_precedence(tree)
    tree, plain = with_made(tree, known)
    translator = Translator(source, types, plain, found.programs, _EMITTERS)
    whole = translator.value(tree)
    pieces = whole.pieces
    is_sum = call_name(tree) == "SUM" and not translator.is_text(tree.expressions[0])
    if whole.exact or is_sum:
        # Otherwise its many digits would be a text, which the type of an attribute does not turn
        # into a number again. A mean is not an integer, even if its value is whole.
        pieces = ("CAST(", *pieces, " AS REAL)" if call_name(tree) == "AVG" else " AS NUMERIC)")
    if (whole.exact or is_sum) and whole.kind.family == "decimal" and not whole.kind.scale:
        pieces = ("dj_whole(", *whole.pieces, ")")
    if whole.kind.tag == "fixed":
        pieces = ("round(", *pieces, f", {whole.kind.scale})")
    found.pieces, found.kind = ("(", *pieces, ")"), whole.kind
    found.order = translator.order(tree, whole.kind)


def evaluate(source: str, types: str, place: int, *values: SQLiteValue) -> SQLiteValue:
    """Return the value of a part of a user's text, for SQLite; see `translate`."""
    return translate(source, types).programs[place](values)


def inferred_type(source: str, over: Heading) -> AttributeType | None:
    """Return the type of a user's expression if it is a date, a time or a float, else None.

    Floats are told where attributes are 32-bit floats: servers would write six digits, and SQLite
    those of 64 bits. MySQL has 32-bit floats also of these and small integers, as in
    ``ifnull(gain, 0)``; MariaDB and SQLite have 64 bits, which are returned everywhere.
    """
    attributes = over.all_attributes
    named = [attr.type for name, attr in attributes.items() if attr.type and name in source]
    single = any(kind.is_single for kind in named)
    if not (single or any(kind.family in _TIMES for kind in named) or _TEMPORAL.search(source)):
        return None
    words = parse(source).words
    known = {name: known_of(attr) for name, attr in attributes.items() if name in words}
    try:
        kind = translate(source, types_text(known)).kind
    except QueryError:
        # It may be done all the same where a subquery computes its attributes.
        try:
            apart = {name: _kind_apart(each) for name, each in known.items()}
            kind = translate(source, types_text(apart)).kind
        except QueryError:
            return None
    if kind.single:
        return parse_type("float32")
    if kind.family == "float" and single:
        return parse_type("float64")
    if not kind.is_temporal:
        return None
    return parse_type(f"{kind.family}({kind.scale})" if kind.scale else kind.family)


def _kind_apart(known: Known) -> Known:
    """Return the kind of a computed attribute, whose SQL is then not in the place of its name."""
    if not isinstance(known, Made):
        return known
    return translate(known.text, types_text(known.types)).kind


def _simple(source: str, types: Mapping[str, Any]) -> tuple[Piece, ...] | None:
    """Return a comparison of an integer with integers, None if it is not one."""
    match = SIMPLE.fullmatch(source)
    name = next(iter(types), "")
    kind = types.get(name)
    if match is None or not isinstance(kind, str):
        return None
    if parse_type(kind).family is not Family.INTEGER or kind == "year":
        return None
    if (match[3].lower() == "between") is not (" and " in " ".join(match[4].lower().split())):
        return None
    return ("(", Attribute(name), f" {match[3]} {match[4]})")


def _passed(parsed: Parsed) -> str:
    """Return a text that contains a SELECT, if its meaning does not depend on the database."""
    for tree in parsed.trees:
        for node in tree.walk():
            name = type(node).__name__
            call = call_name(node)
            if name not in _PLAIN_NODES or (call and call not in _PLAIN_CALLS):
                raise Untranslatable(f"{node_name(node)} beside a SELECT")

    def unescaped(match: re.Match[str]) -> str:
        if match[0][0] == "`":
            return match[0]
        inside = re.sub(r"\\(.)|''|\"\"", lambda m: m[1] or m[0][0], match[0][1:-1])
        return quoted(inside)

    # Quoted, since SQLite has words of its own, such as NOTHING and ISNULL.
    names = {name.start: (name.end, f"`{name.text}`") for name in unquoted(parsed)}
    for schema, table in qualified_tables(parsed):
        if schema.text not in _DATABASES:
            names.pop(table.start, None)
            names[schema.start] = table.end, joined_name(TableName(schema.text, table.text))
    text = parsed.source
    for start, (end, name) in sorted(names.items(), reverse=True):
        text = text[:start] + name + text[end:]
    return f"({_STRING.sub(unescaped, text)})"


def with_own_names(statement: str, is_table: Callable[[TableName], bool]) -> str:
    """Return a user's statement with the names that SQLite has for the tables of schemas.

    Examples
    --------
    >>> with_own_names("SELECT a.x FROM lab.session AS a", lambda name: True)
    'SELECT a.x FROM `lab.session` AS a'
    """
    schemas: set[str] = set()

    def own(match: re.Match[str], *, sure: bool = True) -> str:
        before, schema, table, column = match.groups("")
        name = TableName(schema.strip("`"), table.strip("`"))
        quoted = schema[:1] == table[:1] == "`"
        # Other pairs are mostly an alias and a column.
        asked = (before or column or quoted) if sure else name.schema in schemas
        if not asked or name.schema in _DATABASES or not is_table(name):
            return match[0]
        schemas.add(name.schema)
        return f"{before}{joined_name(name)}{column}"

    found = _QUALIFIED.sub(own, statement)
    if found == statement:
        return statement
    return _QUALIFIED.sub(partial(own, sure=False), found)


def joined_name(name: TableName) -> str:
    """Return the name of a table in SQLite, quoted."""
    return "`" + str(name).replace("`", "``") + "`"


def _column(translator: Translator, node: Expr) -> Emitted:
    name = translator.name(node)
    return Emitted((Attribute(name),), kind_of(translator.types[name]))


def _paren(translator: Translator, node: Expr) -> Emitted:
    inner = translator.value(node.this)
    return Emitted(("(", *inner.pieces, ")"), inner.kind)


_COMPARISONS = frozenset({"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "NullSafeEQ", "Is"})
_BITS = frozenset(
    {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseLeftShift", "BitwiseRightShift"}
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "IntDiv", "Mod"})
_LOGIC = frozenset({"And", "Or", "Not"})


def check_precedence(tree: Expr) -> None:
    """Raise `Untranslatable` if the meaning of a tree may differ from that of its text."""
    for node in tree.walk():
        name = type(node).__name__
        children = [type(child).__name__ for child in node.iter_expressions()]
        right = type(node.args.get("expression")).__name__
        if name in _COMPARISONS and right in _COMPARISONS | {"Not"}:
            raise Untranslatable("comparisons side by side: write parentheses")
        if name in _BITS and (_BITS - {name}).intersection(children):
            raise Untranslatable("several operators on bits: write parentheses")
        if name == "BitwiseXor" and {*_ARITHMETIC, "Neg"}.intersection(children):
            raise Untranslatable("^ beside other operators: write parentheses")
        if name == "Xor" and _LOGIC.intersection(children):
            raise Untranslatable("XOR beside AND, OR or NOT: write parentheses")


_SPREAD_FUNCTIONS = {
    **dict.fromkeys(SPREADS, "dj_std"), "STDDEV_SAMP": "dj_stddev_samp",
    **dict.fromkeys(("VARIANCE", "VAR_POP"), "dj_variance"), "VAR_SAMP": "dj_var_samp",
}  # fmt: skip


def _called(translator: Translator, node: Expr) -> Emitted | None:
    name = call_name(node)
    if name in AGGREGATES:
        return _aggregate(translator, name, node.expressions)
    if name in OWN:
        pieces: list[Piece] = []
        for argument in node.expressions:
            pieces += [", ", *translator.plain(argument)]
        return Emitted((f"{name.lower()}(", *pieces[1:], ")"), ANY)
    return None


def _aggregate(translator: Translator, name: str, given: Sequence[Expr]) -> Emitted:
    from sqlglot import exp

    distinct = ""
    if len(given) == 1 and isinstance(given[0], exp.Distinct):
        distinct, given = "DISTINCT ", given[0].expressions
    if name == "COUNT":
        return _count(translator, distinct, given)
    if len(given) != 1:
        raise Untranslatable(f"{name}() of several values")
    value = translator.value(given[0])
    kind = value.kind
    if name in ("MIN", "MAX", "ANY_VALUE"):
        return _extreme(translator, "MIN" if name == "ANY_VALUE" else name, given[0], value)
    if name in BITS:
        number_ = translator.program(given[0], "whole")
        # SQLite does not call aggregates of Python for no rows; there, BIT_AND gives all bits.
        none = "dj_all_bits()" if name == "BIT_AND" else "0"
        return Emitted((f"coalesce({BITS[name]}(", *number_.pieces, f"), {none})"), UNSIGNED)
    if kind.is_temporal:
        raise Untranslatable(f"{name}() of dates or times")
    if distinct and name in SPREADS:
        raise Untranslatable(f"{name}(DISTINCT)")
    if not kind.is_exact and kind.family not in ("float", "any"):
        kind = fixed(0) if kind.choices or kind.tag == "whole" else FLOAT
        value = translator.program(given[0], "float")
    is_made = _is_made(translator, given[0], kind) and not distinct
    if is_made:
        value = translator.program(given[0], "exact")
    scale = kind.scale if name == "SUM" else kind.scale + 4
    if name in SPREADS:
        kind = kind if kind in (ANY, FLOAT) else fixed(scale)
        return Emitted((f"{_SPREAD_FUNCTIONS[name]}({distinct}", *value.pieces, ")"), kind)
    exactly = kind.is_exact
    function = f"dj_{name.lower()}" if exactly else name.lower()
    function = "dj_exact_sum" if is_made and name == "SUM" else function
    if exactly:
        kind = decimal_kind(scale)
    else:
        # A sum of 32-bit floats has 64 bits.
        kind = fixed(scale) if kind.tag == "fixed" else replace(kind, single=False)
    pieces = (f"{function}({distinct}", *value.pieces, ")")
    has_more = is_made or (exactly and name == "AVG")
    return with_more(pieces, kind) if has_more else Emitted(pieces, kind)


def _is_made(translator: Translator, node: Expr, kind: Kind) -> bool:
    """Whether values are exact numbers with possibly more digits than are shown."""
    return kind.family == "decimal" and not is_leaf(bare(node))


def _extreme(translator: Translator, name: str, node: Expr, value: Emitted) -> Emitted:
    """Return the least or greatest value of a group; enums are compared as texts."""
    kind = value_kind(value.kind)
    if kind.family == "null":
        raise Untranslatable(f"{name}() of NULL")
    order = "" if kind.choices else translator.order(node, kind)
    order = "decimal" if _is_made(translator, node, kind) else order
    if kind.choices:
        # In some places servers use the number of the enum, in others that of a text.
        kind = Kind("text", tag="unclear")
    if order:
        call = f"dj_{name.lower()}("
        if _is_made(translator, node, kind):
            pieces = (call, *translator.program(node, "exact").pieces, ", 'decimal')")
            return with_more(pieces, kind)
        attribute = lone_attribute(value.pieces)
        if order == "time" and attribute is not None:
            # This calls Python for each group, not for each row.
            found = (f"dj_ordered_time({name.lower()}(", *time_order(attribute))
            return Emitted((*found, f"), {kind.scale})"), kind)
        return Emitted((call, *value.pieces, f", {quoted(order)})"), kind)
    # Only with one argument it is an aggregate.
    return Emitted((f"{name.lower()}(", *value.pieces, ")"), kind)


def _count(translator: Translator, distinct: str, given: Sequence[Expr]) -> Emitted:
    from sqlglot import exp

    if len(given) == 1 and isinstance(given[0], exp.Star):
        return Emitted(("count(*)",), INT)
    pieces: list[Piece] = []
    for argument in given:
        pieces += [", ", *translator.value(argument).pieces]
    if len(given) == 1:
        return Emitted((f"count({distinct}", *pieces[1:], ")"), INT)
    return Emitted(("coalesce(dj_count_distinct(", *pieces[1:], "), 0)"), INT)


def _group_concat(translator: Translator, node: Expr) -> Emitted:
    from sqlglot import exp

    this, order = node.this, []
    if isinstance(this, exp.Order):
        this, order = this.this, this.expressions
    distinct = isinstance(this, exp.Distinct)
    values = this.expressions if distinct else [this]
    if any(isinstance(part, exp.Concat) for part in values):
        values = [inner for part in values for inner in
                  (part.expressions if isinstance(part, exp.Concat) else [part])]  # fmt: skip
    if any(isinstance(part, exp.Order) for part in values):
        raise Untranslatable("GROUP_CONCAT() of this form")
    if distinct and not order and len(values) == 1:
        # Servers find equal values by sorting them.
        order = [exp.Ordered(this=values[0])]
    separator = node.args.get("separator")
    options = {
        "separator": "," if separator is None else separator.this,
        "distinct": distinct,
        "values": len(values),
        "descending": [bool(part.args.get("desc")) for part in order],
    }
    pieces: list[Piece] = [f"dj_group_concat({quoted(json.dumps(options))}"]
    for part in values:
        if translator.value(part).kind.family == "bytes":
            raise Untranslatable("GROUP_CONCAT() of bytes")
        pieces += [", ", *translator.program(part, "text").pieces]
    for part in order:
        pieces += [", ", *translator.ordered(part.this)]
    return Emitted((*pieces, ")"), TEXT)


_EMITTERS: Mapping[str, Emitter] = {
    "Column": _column, "Paren": _paren,
    "Anonymous": _called, "GroupConcat": _group_concat, **COMPARISON_EMITTERS, "Window": window,
}  # fmt: skip
