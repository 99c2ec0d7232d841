"""Compilation of MySQL's expressions to Python, and the functions that they call by name."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import (
    arithmetic,
    comparisons,
    date_functions,
    json_functions,
    temporal,
    text_functions,
)
from dj_dagster.relational.user_sql.arithmetic import NUMBER_FUNCTIONS, check_number, number_kind
from dj_dagster.relational.user_sql.conversion import cast_to
from dj_dagster.relational.user_sql.date_functions import DATE_FUNCTIONS
from dj_dagster.relational.user_sql.kinds import (
    BINARY,
    FLOAT,
    INT,
    JSON,
    NULL,
    TEXT,
    Hexadecimal,
    Kind,
    SqlValue,
    decimal_kind,
    floating,
    text,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import (
    Arguments,
    Call,
    CallForm,
    Form,
    Function,
    Program,
    ProgramOf,
    Untranslatable,
    argument,
    both,
    collation,
    constant,
    heeds_case,
    letters,
    mapped,
    node_name,
    strict,
)
from dj_dagster.relational.user_sql.text_functions import TEXT_FUNCTIONS, substring

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_JSON: Mapping[str, Function] = {
    "JSON_EXTRACT": Function(json_functions.extract, "tt*", JSON),
    "JSON_UNQUOTE": Function(json_functions.unquote, "t", BINARY),
    "JSON_VALUE": Function(json_functions.value, "tt", BINARY),
    "JSON_LENGTH": Function(json_functions.length, "t|t", INT),
    "JSON_CONTAINS_PATH": Function(json_functions.contains_path, "ttt*", INT),
    "JSON_VALID": Function(json_functions.is_valid, "t", INT),
    "JSON_CONTAINS": Function(json_functions.contains, "tt|t", INT),
    "JSON_DEPTH": Function(json_functions.depth, "t", INT),
    "JSON_KEYS": Function(json_functions.keys, "t|t", JSON),
    "JSON_QUOTE": Function(json_functions.dumped, "t", Kind("text", tag="mixed")),
    "JSON_TYPE": Function(json_functions.type_of, "t", Kind("text", tag="mixed")),
}

KEEPING = frozenset((
    "CONCAT", "CONCAT_WS", "ELT", "INSERT", "LEFT", "LOWER", "LPAD", "LTRIM", "QUOTE", "REPEAT",
    "REPLACE", "REVERSE", "RIGHT", "RPAD", "RTRIM", "SUBSTRING_INDEX", "UPPER",
))  # fmt: skip
"""Functions whose result respects case if their arguments do."""

COMPARING = frozenset(("INSTR", "LOCATE", "STRCMP"))
"""Functions that compare texts and take the argument ``heeds_case``."""

FUNCTIONS: Mapping[str, Function] = {
    **NUMBER_FUNCTIONS, **TEXT_FUNCTIONS, **DATE_FUNCTIONS, **_JSON
}  # fmt: skip


SPELLINGS: Mapping[str, str] = {
    "CEILING": "CEIL", "POWER": "POW", "ATAN2": "ATAN", "CHARACTER_LENGTH": "CHAR_LENGTH",
    "OCTET_LENGTH": "LENGTH", "LCASE": "LOWER", "UCASE": "UPPER", "SHA": "SHA1",
    "DAYOFMONTH": "DAY", "CURRENT_DATE": "CURDATE", "CURRENT_TIME": "CURTIME",
    "CURRENT_TIMESTAMP": "NOW", "LOCALTIME": "NOW", "LOCALTIMESTAMP": "NOW", "SYSDATE": "NOW",
}  # fmt: skip
"""Other names of functions."""


def is_known(name: str) -> bool:
    """Whether a function of single rows has this name, in upper case."""
    name = SPELLINGS.get(name, name)
    return name in FUNCTIONS or name in _SPECIAL


def is_made_text(value: Program, node: Expr) -> bool:
    """Whether an expression's text is constant, so that the server knows it beforehand."""
    from sqlglot import exp

    made = value.kind.family == "text" and value.literal is None
    return made and (value.kind.tag == "moment" or node.find(exp.Column) is None)


def has_null(node: Expr) -> bool:
    """Whether an expression contains a literal NULL."""
    from sqlglot import exp

    return node.find(exp.Null) is not None


def _cast(program_of: ProgramOf, node: Expr) -> Program:
    value = program_of(node.this)
    convert, kind = cast_to(node.args["to"], value.kind)
    if convert is None:
        raise Untranslatable(f"CAST AS {node.args['to'].sql('mysql')}")
    return mapped(value, convert, kind)


def _extract(program_of: ProgramOf, node: Expr) -> Program:
    unit = node.this.name.upper()
    value = program_of(node.expression)
    if unit in ("HOUR", "MINUTE", "SECOND", "MICROSECOND"):
        return _extracted_time(unit, value)
    if value.kind.family == "time":
        raise Untranslatable(f"EXTRACT({unit}) of a time")
    if unit == "YEAR_MONTH":
        return mapped(argument(value, "d"), lambda at: at.year * 100 + at.month, INT)
    if unit not in ("YEAR", "QUARTER", "MONTH", "WEEK", "DAY"):
        raise Untranslatable(f"EXTRACT of {unit}")
    return _called(program_of, unit, [node.expression])


def _extracted_time(unit: str, value: Program) -> Program:
    """Return part of a time with its sign, unlike HOUR() and similar functions."""

    def run(at: timedelta) -> int:
        if unit == "HOUR" and abs(at) >= timedelta(days=1):
            raise QueryError(
                "SQL on SQLite: servers differ in what EXTRACT(HOUR) of a time of 24 hours or more "
                "is. Use HOUR()."
            )
        found = FUNCTIONS[unit].call(at)
        assert isinstance(found, int)
        return -found if at < timedelta(0) else found

    return mapped(argument(value, "h"), run, INT)


def _substring(program_of: ProgramOf, node: Expr) -> Program:
    rest = [part for name in ("start", "length") if (part := node.args.get(name))]
    return _part_of(program_of, [node.this, *rest])


def _part_of(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    value, *rest = (program_of(part) for part in given)
    letter = "b" if value.kind.family == "bytes" else "t"
    places = [argument(part, "i") for part in rest]
    kind = value.kind if letter == "b" else replace(TEXT, tag=collation([value]))
    return strict([argument(value, letter), *places], substring, kind)


def _trim(program_of: ProgramOf, node: Expr) -> Program:
    value = argument(program_of(node.this), "t")
    what = node.args.get("expression")
    part = argument(program_of(what), "t") if what else constant(" ", TEXT)
    kind = replace(TEXT, tag=collation([value, part]))
    where = str(node.args.get("position") or "BOTH").upper()

    def run(given: str, cut_off: str) -> str:
        while cut_off and where != "TRAILING" and given.startswith(cut_off):
            given = given[len(cut_off) :]
        while cut_off and where != "LEADING" and given.endswith(cut_off):
            given = given[: -len(cut_off)]
        return given

    return strict([value, part], run, kind)


def _position(program_of: ProgramOf, node: Expr) -> Program:
    return _called(program_of, "LOCATE", [node.args["substr"], node.this])


def _check_json(name: str, values: Iterable[Program]) -> None:
    """Raise `Untranslatable` for numbers and moments, which MySQL refuses and MariaDB may not."""
    texts = {"any", "bytes", "null", "text"} | ({"json"} if name != "JSON_QUOTE" else set())
    if any(value.kind.family not in texts for value in values):
        raise Untranslatable(f"{name}() of other values than texts: use CAST(... AS CHAR)")


def _json_arrow(program_of: ProgramOf, node: Expr) -> Program:
    from sqlglot import exp

    values = both(program_of, node)
    _check_json("JSON_EXTRACT", values)
    found = strict([argument(value, "t") for value in values], json_functions.extract, JSON)
    unquotes = isinstance(node, exp.JSONExtractScalar)
    return mapped(found, json_functions.unquote, BINARY) if unquotes else found


def _json_value(program_of: ProgramOf, node: Expr) -> Program:
    if node.args.get("on_condition"):
        raise Untranslatable("JSON_VALUE with ON EMPTY or ON ERROR")
    values = [program_of(part) for part in (node.this, node.args["path"])]
    _check_json("JSON_VALUE", values)
    found = strict([argument(value, "t") for value in values], json_functions.value, BINARY)
    returning = node.args.get("returning")
    if not returning:
        return found
    convert, kind = cast_to(returning, TEXT)
    if convert is None:
        raise Untranslatable(f"JSON_VALUE RETURNING {returning.sql('mysql')}")
    return mapped(found, convert, kind)


_MADE_JSON = Kind("json", tag="mixed")
"""JSON that is not an attribute's: case counts on MySQL only."""


def _json_array(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    items = [_json_item(program_of, part) for part in given]
    return Program(lambda row: json_functions.dumped([item(row) for item in items]), _MADE_JSON)


def _json_object(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    if len(given) % 2:
        raise Untranslatable("JSON_OBJECT() with a key that has no value")
    keys = [argument(program_of(part), "t").run for part in given[::2]]
    items = [_json_item(program_of, part) for part in given[1::2]]

    def run(row: Arguments) -> str:
        pairs = [(key(row), item(row)) for key, item in zip(keys, items, strict=True)]
        return json_functions.made_object(pairs)

    return Program(run, _MADE_JSON)


def _json_item(program_of: ProgramOf, node: Expr) -> Callable[[Arguments], object]:
    """Return the function that gives an argument as a value in JSON."""
    program = program_of(node)
    family = program.kind.family
    is_truth = program.kind == INT and type(node.unnest()).__name__ not in _NUMBERS_IN_JSON
    if family not in ("int", "text", "json", "null") or is_truth:
        # Servers write floats, decimals, times and conditions differently.
        raise Untranslatable(f"JSON of {node.sql('mysql')}, which servers write differently")

    def run(row: Arguments) -> object:
        value = program.run(row)
        return json.loads(text(value)) if value is not None and family == "json" else value

    return run


_NUMBERS_IN_JSON = ("Column", "Literal", "Neg", "Add", "Sub", "Mul", "Anonymous")


def _moment_now(program_of: ProgramOf, node: Expr) -> Program:
    names = {"CurrentDate": "CURDATE", "CurrentTime": "CURTIME"}
    return _called(program_of, names.get(type(node).__name__, "NOW"), [])


def _call(program_of: ProgramOf, node: Expr) -> Program:
    return _called(program_of, call_name(node), node.expressions)


def _called(program_of: ProgramOf, name: str, given: Sequence[Expr]) -> Program:
    special = _SPECIAL.get(name)
    if special is not None:
        return special(program_of, given)
    name = SPELLINGS.get(name, name)
    function = FUNCTIONS.get(name)
    if function is None:
        raise Untranslatable(f"{name}()")
    values = [program_of(argument) for argument in given]
    each = letters(function.takes, len(values), name)
    kind = _kind_given(name, function, values, each)
    if name in _UNLIKE_OF_NULL and any(map(has_null, given)):
        raise Untranslatable(f"{name}() of NULL")
    if name == "INSERT" and (not values[0].kind.is_text or call_name(given[0].unnest()) == "QUOTE"):
        # On MariaDB the inserted text then has another character set.
        raise Untranslatable("INSERT() into a number, or into QUOTE(): use CONCAT()")
    if name in ("TIMESTAMP", "TIME") and is_made_text(values[0], given[0]):
        raise Untranslatable(f"{name}() of a text that is computed from none")
    if kind.scale < 0:
        raise Untranslatable(f"{name}() of such arguments")
    arguments = [argument(v, letter) for v, letter in zip(values, each, strict=True)]
    call = function.call
    if name in COMPARING:
        # Servers respect the case of the searched text, but not always that of the pattern.
        searched = values[name == "LOCATE"]
        case = heeds_case(name, *values)
        if case and name != "STRCMP" and collation([searched]) != "binary":
            raise Untranslatable(f"{name}() of a text from JSON in another text")
        call = partial(call, heeds_case=case)
    if kind.family in ("datetime", "time"):
        call = _with_digits(call, kind.scale)
    if not function.nulls:
        return strict(arguments, call, kind)
    runs = [argument.run for argument in arguments]
    return Program(lambda row: function.call(*[run(row) for run in runs]), kind)


def _with_digits(call: Call, places: int) -> Call:
    def cut(*values: SqlValue | None) -> SqlValue | None:
        found = call(*values)
        is_moment = isinstance(found, datetime | timedelta)
        return temporal.round_to(found, places) if is_moment else found

    return cut


def _kind_given(name: str, function: Function, values: Sequence[Program], each: str) -> Kind:
    """Return the kind of a function's result."""
    for value, letter in zip(values, each, strict=True):
        if letter in "fin":
            check_number(value.kind)
    if name == "DATE_FORMAT" and values[0].kind.family == "time":
        raise Untranslatable("DATE_FORMAT() of a time: use TIME_FORMAT()")
    if name in _ROUNDING and values[0].kind.is_temporal:
        raise Untranslatable(f"{name}() of a date or time")
    if name in _JSON:
        _check_json(name, values)
    if name == "ELT" and any(value.kind.is_temporal for value in values):
        return Kind("text", tag="moment")
    if name == "ELT" and any(value.kind.choices for value in values):
        # In some places servers use the number of the choice.
        return Kind("text", tag="unclear")
    if isinstance(function.gives, Kind):
        kept = collation(values) if name in KEEPING else ""
        return replace(function.gives, tag=kept) if kept else function.gives
    kinds = [number_kind(value.kind) if letter == "n" else value.kind
             for value, letter in zip(values, each, strict=True)]  # fmt: skip
    return function.gives(kinds, [*(value.literal for value in values), None])


_UNLIKE_OF_NULL = ("QUOTE", "REPLACE", "WEEK", "YEARWEEK")
_ROUNDING = ("CEIL", "FLOOR", "FORMAT", "ROUND", "TRUNCATE")
_SPECIAL: Mapping[str, CallForm] = {
    **arithmetic.CALLS, **comparisons.CALLS, **date_functions.CALLS, **text_functions.CALLS,
    "MID": _part_of, "JSON_ARRAY": _json_array, "JSON_OBJECT": _json_object,
}  # fmt: skip
"""Functions whose arguments are not only values."""

FORMS: Mapping[str, Form] = {
    "Anonymous": _call, "Cast": _cast, "Extract": _extract, "Substring": _substring,
    "Trim": _trim, "StrPosition": _position, "JSONExtract": _json_arrow,
    "JSONExtractScalar": _json_arrow, "JSONValue": _json_value,
    **dict.fromkeys(("CurrentDate", "CurrentTime", "CurrentTimestamp", "Localtime",
                     "Localtimestamp"), _moment_now),
}  # fmt: skip


def compiled(node: Expr, leaves: Mapping[int, tuple[int, Kind]]) -> Program:
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

    def program_of(part: Expr) -> Program:
        leaf = leaves.get(id(part))
        if leaf is not None:
            return Program(operator.itemgetter(leaf[0]), leaf[1])
        form = _FORMS.get(type(part).__name__)
        if form is None:
            raise Untranslatable(node_name(part))
        return form(program_of, part)

    return program_of(node)


def _paren(program_of: ProgramOf, node: Expr) -> Program:
    return program_of(node.this)


def _literal(program_of: ProgramOf, node: Expr) -> Program:
    if node.is_string:
        return constant(node.this, TEXT)
    written = node.this
    if re.fullmatch("[0-9]+", written):
        value = int(written)
        return constant(value, INT if value < 2**64 else decimal_kind(0))
    if "e" in written.lower():
        return constant(floating(float(written)), FLOAT)
    found = Decimal(written)
    return constant(found, decimal_kind(-int(found.as_tuple()[2])))


def _null(program_of: ProgramOf, node: Expr) -> Program:
    del node
    return Program(lambda row: None, NULL)


def _boolean(program_of: ProgramOf, node: Expr) -> Program:
    # Beside JSON, unlike 1, it is true.
    return constant(bool(node.this), INT)


def _adjacent(program_of: ProgramOf, node: Expr) -> Program:
    """Return adjacent literal texts as one."""
    parts = [program_of(part) for part in node.expressions]
    return constant("".join(str(part.literal) for part in parts), TEXT)


def _collate(program_of: ProgramOf, node: Expr) -> Program:
    value = program_of(node.this)
    if value.kind.family != "text" or not node.expression.name.lower().endswith("_bin"):
        raise Untranslatable(f"COLLATE {node.expression.sql()}")
    return replace(value, kind=replace(value.kind, tag="binary"))


def _hexadecimal(program_of: ProgramOf, node: Expr) -> Program:
    digits = node.this if len(node.this) % 2 == 0 else f"0{node.this}"
    return constant(Hexadecimal(bytes.fromhex(digits)), Kind("bytes"))


_FORMS: Mapping[str, Form] = {
    "Paren": _paren, "Literal": _literal, "Null": _null, "Boolean": _boolean,
    "Concat": _adjacent, "Collate": _collate, "HexString": _hexadecimal,
    **arithmetic.FORMS, **FORMS, **comparisons.CHOICE_FORMS, **comparisons.FORMS,
    **text_functions.FORMS,
}  # fmt: skip
