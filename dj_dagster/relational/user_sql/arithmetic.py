"""Arithmetic on numbers and bits, and MySQL's functions of numbers."""

from __future__ import annotations

import math
import operator
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql.date_functions import interval_sum
from dj_dagster.relational.user_sql.kinds import (
    EXACT,
    FLOAT,
    INT,
    MAX_SCALE,
    TEXT,
    UNSIGNED,
    Kind,
    Number,
    SqlValue,
    cut,
    decimal_kind,
    exact,
    fixed,
    floating,
    integer,
    leading_integer,
    number,
    rounded,
    text,
    unsigned_zero,
    value_kind,
    whole,
)
from dj_dagster.relational.user_sql.programs import (
    Arguments,
    CallForm,
    Form,
    Function,
    Program,
    ProgramOf,
    Untranslatable,
    both,
    constant,
    mapped,
    pair,
    written_integer,
)

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

_UNSIGNED = 2**64 - 1
Operation = Callable[[Number, Number], Number | None]


def computed(symbol: str, one: Program, other: Program, kinds: Sequence[Kind]) -> Program:
    """Return the program of an operation on numbers."""
    run = _OPERATIONS[symbol]
    kind = _result_kind(symbol, kinds)
    return pair(one, other, without_sign(run) if kind.tag == "unsigned" else run, kind)


def _result_kind(symbol: str, kinds: Sequence[Kind]) -> Kind:
    families = [kind.family for kind in kinds]
    one, other = (kind.scale for kind in kinds)
    scale = one + other if symbol == "*" and "float" not in families else max(one, other)
    if "any" in families:
        return Kind("any")
    if "float" in families:
        if any(kind == FLOAT for kind in kinds):
            return FLOAT
        # The server writes a rounded number with the digits that it was rounded to.
        return fixed(scale + 4 if symbol == "/" else scale)
    if symbol == "/":
        return decimal_kind(one + 4)
    if "decimal" in families:
        return decimal_kind(scale)
    return UNSIGNED if any(kind.tag == "unsigned" for kind in kinds) else INT


def _operation(
    floats: Callable[[float, float], float],
    integers: Callable[[int, int], int],
    decimals: Callable[[Decimal, Decimal], Decimal],
) -> Operation:
    def run(a: Number, b: Number) -> Number:
        if isinstance(a, float) or isinstance(b, float):
            return floating(floats(float(a), float(b)))
        if isinstance(a, int) and isinstance(b, int):
            return signed(integers(a, b))
        return unsigned_zero(decimals(Decimal(a), Decimal(b)))

    return run


def without_sign(how: Operation) -> Operation:
    """Return an operation that refuses results below zero."""

    def run(a: Number, b: Number) -> Number | None:
        found = how(a, b)
        if found is not None and found < 0:
            raise QueryError(f"SQL on SQLite: {found} is out of range of unsigned integers.")
        return found

    return run


def signed(value: int) -> int:
    """Return an integer of 64 bits with its sign; raise `QueryError` for a larger one."""
    if -(2**63) <= value < 2**63:
        return value
    raise QueryError(f"SQL on SQLite: the integer {value} is out of range, as it is on MySQL.")


def _remainder(a: Number, b: Number) -> Number | None:
    if not b:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return math.fmod(float(a), float(b))
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a)) * (abs(a) % abs(b))
    return EXACT.remainder(Decimal(a), Decimal(b))


def _divide(a: Number, b: Number) -> Number | None:
    if not b:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return floating(float(a) / float(b))
    return quotient(Decimal(a), Decimal(b))


def quotient(a: Decimal, b: Decimal) -> Decimal:
    """Return a quotient with the digits that the server keeps internally, in groups of nine."""
    digits = [-int(value.as_tuple()[2]) for value in (a, b)]
    words = [-(-count // 9) * 9 for count in digits]
    more = max(0, 4 - (sum(words) - sum(digits)))
    return cut(EXACT.divide(a, b), -(-(sum(words) + more) // 9) * 9)


_OPERATIONS: dict[str, Operation] = {
    "+": _operation(operator.add, operator.add, EXACT.add),
    "-": _operation(operator.sub, operator.sub, EXACT.subtract),
    "*": _operation(operator.mul, operator.mul, EXACT.multiply),
    "/": _divide,
    "%": _remainder,
}


def number_kind(kind: Kind) -> Kind:
    """Return the kind of the number that a value counts as."""
    kind = value_kind(kind)
    if kind.is_exact or kind.family in ("any", "float"):
        return kind
    if kind.family == "null":
        return fixed(0)
    if kind.choices:
        return INT
    if kind.is_temporal:
        return decimal_kind(kind.scale) if kind.scale else INT
    return fixed(0) if kind.tag == "whole" else FLOAT


def numeric_kind(kind: Kind, otherwise: Kind) -> Kind:
    """Return the kind of a number made from a value, `otherwise` if it is not known."""
    found = number_kind(kind)
    keeps = found.is_exact or found.family in ("any", "float")
    return found if keeps and found.tag != "unsigned" else otherwise


def as_number(program: Program) -> Program:
    """Return a program whose values are numbers."""
    if program.kind.is_exact or program.kind.family == "float":
        return program
    check_number(program.kind)
    if program.kind.tag == "whole":
        return mapped(program, _whole_number, fixed(0))
    return mapped(program, lambda value: number(value, program.kind), number_kind(program.kind))


def _whole_number(value: str) -> float:
    found = float(number(value))
    if not found.is_integer():
        raise QueryError(
            f"SQL on SQLite: what number MariaDB reads in {value!r:.60}, a text of DATE_FORMAT, "
            f"depends on the place: use CAST(... AS DECIMAL(20, 6))."
        )
    return found


def check_number(kind: Kind) -> None:
    """Raise `Untranslatable` if servers do not read the same number in a text."""
    if kind.family == "bytes":
        raise Untranslatable("a number of bytes")
    if kind.tag == "moment":
        raise Untranslatable("a number or the truth of a text that is a date")
    if kind.tag == "unclear":
        raise Untranslatable(
            "the number or truth of CAST AS CHAR, HEX, GREATEST or LEAST of texts, or of MIN, MAX "
            "or a choice of enums"
        )


def check_truth(kind: Kind) -> None:
    """Raise `Untranslatable` if servers differ in whether texts of a kind are true."""
    if kind.tag in ("unclear", "moment"):
        check_number(kind)


def rounding(program: Program) -> Program:
    """Return a program whose texts are read as whole numbers, truncated at the point."""
    if not program.kind.is_text or program.kind.choices:
        return program
    check_truth(program.kind)
    if program.kind.family == "json":
        return mapped(program, lambda value: number(value, program.kind), FLOAT)
    return mapped(program, _whole_of_text, INT)


def _whole_of_text(value: SqlValue) -> int:
    found = exact(value)
    if found != leading_integer(text(value)) or abs(found) >= 2**63:
        raise QueryError(
            f"SQL on SQLite: servers read different integers in the text {value!r:.60}. Use CAST."
        )
    return int(found)


def _negative(program_of: ProgramOf, node: Expr) -> Program:
    value = program_of(node.this)
    kind = replace(value.kind, tag="") if value.kind.is_exact else FLOAT
    if value.literal is not None and not value.kind.is_text:
        found = number(value.literal)
        return constant(EXACT.minus(found) if isinstance(found, Decimal) else -found, kind)

    def run(number_: Number) -> Number:
        if isinstance(number_, Decimal):
            return EXACT.minus(number_)
        return integer(-number_) if isinstance(number_, int) else -number_

    return mapped(as_number(value), run, numeric_kind(value.kind, kind))


def _arithmetic(program_of: ProgramOf, node: Expr) -> Program:
    from sqlglot import exp

    if isinstance(node.expression, exp.Interval) or isinstance(node.this, exp.Interval):
        return interval_sum(program_of, node)
    one, other = both(program_of, node)
    kinds = [number_kind(one.kind), number_kind(other.kind)]
    symbol = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%"}[type(node).__name__]
    return computed(symbol, as_number(one), as_number(other), kinds)


def _whole_division(program_of: ProgramOf, node: Expr) -> Program:
    one, other = both(program_of, node)
    for side in (one, other):
        if side.kind.tag == "moment":
            check_number(side.kind)

    def run(a: SqlValue, b: SqlValue) -> int | None:
        a, b = exact(a, one.kind), exact(b, other.kind)
        if not b:
            return None
        with_point = EXACT.divide(Decimal(a), Decimal(b))
        return signed(int(with_point.to_integral_value(ROUND_DOWN)))

    if UNSIGNED in (number_kind(one.kind), number_kind(other.kind)):
        return pair(one, other, without_sign(run), UNSIGNED)
    return pair(one, other, run, INT)


def _bits(program_of: ProgramOf, node: Expr) -> Program:
    one, other = both(program_of, node)
    name = type(node).__name__

    def run(a: SqlValue, b: SqlValue) -> int:
        a, b = _bits_of(a, one.kind), _bits_of(b, other.kind)
        if name in ("BitwiseLeftShift", "BitwiseRightShift"):
            if b > 63:
                return 0
            return a << b & _UNSIGNED if name == "BitwiseLeftShift" else a >> b
        return {"BitwiseAnd": operator.and_, "BitwiseOr": operator.or_}.get(name, operator.xor)(
            a, b
        )

    return pair(rounding(one), rounding(other), run, UNSIGNED)


def _complement(program_of: ProgramOf, node: Expr) -> Program:
    value = rounding(program_of(node.this))
    return mapped(value, lambda v: ~_bits_of(v, value.kind) & _UNSIGNED, UNSIGNED)


def _bits_of(value: SqlValue, kind: Kind) -> int:
    if isinstance(value, float) and abs(value) % 1 == 0.5:
        raise QueryError(
            f"SQL on SQLite: servers round {value} to different integers before they look at its "
            f"bits. Use ROUND() or FLOOR()."
        )
    if isinstance(value, float) and abs(value) >= 2**63:
        raise QueryError(f"SQL on SQLite: {value} has more bits than an integer.")
    return whole(value, kind) & _UNSIGNED


def _modulo(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    one, other = (program_of(part) for part in given)
    kinds = [number_kind(one.kind), number_kind(other.kind)]
    return computed("%", as_number(one), as_number(other), kinds)


FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod"), _arithmetic), "Neg": _negative,
    "IntDiv": _whole_division, "BitwiseNot": _complement,
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseLeftShift",
                     "BitwiseRightShift"), _bits),
}  # fmt: skip
CALLS: Mapping[str, CallForm] = {"MOD": _modulo}


def round_to(value: Number, places: int = 0) -> Number:
    """Return a number rounded to a number of digits after the point, as servers round."""
    if isinstance(value, float):
        if abs(places) > 300:
            return value if places > 0 else 0.0
        scale = 10.0 ** abs(places)
        big = value * scale if places >= 0 else value / scale
        if big - big != 0:
            return value
        return round(big) / scale if places >= 0 else round(big) * scale
    return _exact_round(value, places, rounded)


def _truncate(value: Number, places: int) -> Number:
    if isinstance(value, float):
        scale = 10.0 ** min(abs(places), 300)
        big = value * scale if places >= 0 else value / scale
        if big - big != 0 or (places >= 0 and abs(big) >= 2**53):
            return value
        return math.trunc(big) / scale if places >= 0 else math.trunc(big) * scale
    return _exact_round(value, places, cut)


def _exact_round(
    value: int | Decimal, places: int, how: Callable[[Decimal, int], Decimal]
) -> int | Decimal:
    places = max(min(places, MAX_SCALE), -80)
    found = how(Decimal(value), places)
    return integer(int(found)) if isinstance(value, int) else found


def _round_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    kind = kinds[0]
    is_given = len(kinds) > 1 and kinds[1].family != "null"
    places = written_integer(literals[1]) if is_given else 0
    if kind.family == "decimal":
        return decimal_kind(kind.scale if places is None else max(0, min(places, MAX_SCALE)))
    if kind.family == "int":
        return kind
    return _same_number(kinds, literals) if places is None else fixed(max(0, places))


def _same_number(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    del literals
    return kinds[0] if kinds[0].is_exact or kinds[0].tag == "fixed" else FLOAT


def _whole_kind(kinds: Sequence[Kind], literals: Arguments) -> Kind:
    del literals
    if not kinds[0].is_exact:
        return fixed(0)
    return kinds[0] if kinds[0].family == "int" else INT


def _ceil(value: Number) -> Number:
    return float(math.ceil(value)) if isinstance(value, float) else math.ceil(value)


def _floor(value: Number) -> Number:
    return float(math.floor(value)) if isinstance(value, float) else math.floor(value)


def _atan(one: float, other: float | None = None) -> float:
    return math.atan(one) if other is None else math.atan2(one, other)


def _power(base: float, exponent: float) -> float:
    try:
        found = base**exponent
    except (OverflowError, ZeroDivisionError):
        found = math.inf
    return floating(math.nan if isinstance(found, complex) else found)


def _log(first: float, second: float | None = None) -> float | None:
    if second is None:
        return math.log(first) if first > 0 else None
    if first <= 0 or first == 1 or second <= 0:
        return None
    return math.log(second) / math.log(first)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return floating(math.inf)


def _conv(value: str, old: int, new: int) -> str | None:
    if not value or not (2 <= abs(old) <= 36 and 2 <= abs(new) <= 36):
        return None
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    known = digits[: abs(old)]
    match = re.match(rf"\s*([+-]?)([{known}]+)", value, re.IGNORECASE)
    left, is_minus = (int(match[2], abs(old)), match[1] == "-") if match else (0, False)
    if is_minus and left >= 2**64:
        raise QueryError(
            f"SQL on SQLite: servers differ in CONV() of {value}, which is below 64 bits."
        )
    left = min(left, 2**64 - 1)
    left = (-left if is_minus else left) & (2**64 - 1)
    negative = new < 0 and left >= 2**63
    left = 2**64 - left if negative else left
    shown = ""
    while left:
        left, digit = divmod(left, abs(new))
        shown = digits[digit] + shown
    return f"{'-' if negative else ''}{shown or '0'}"


def _bit_count(value: Number) -> int:
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 2**63):
        raise QueryError(
            f"SQL on SQLite: servers round {value} to different integers before they count its "
            f"bits. Use ROUND() or FLOOR()."
        )
    whole = int(rounded(Decimal(value), 0))
    return (whole & (2**64 - 1)).bit_count()


def _absolute(value: Number) -> Number:
    if isinstance(value, Decimal):
        return EXACT.abs(value)
    if isinstance(value, int):
        return value if value >= 0 else signed(-value)
    return abs(value)


NUMBER_FUNCTIONS: Mapping[str, Function] = {
    "ABS": Function(_absolute, "n", _same_number),
    "SIGN": Function(lambda v: (v > 0) - (v < 0), "n", INT),
    "CEIL": Function(_ceil, "n", _whole_kind),
    "FLOOR": Function(_floor, "n", _whole_kind),
    "ROUND": Function(round_to, "n|i", _round_kind),
    "TRUNCATE": Function(_truncate, "ni", _round_kind),
    "POW": Function(_power, "ff", FLOAT),
    "SQRT": Function(lambda v: math.sqrt(v) if v >= 0 else None, "f", FLOAT),
    "EXP": Function(_exp, "f", FLOAT),
    "LN": Function(_log, "f", FLOAT),
    "LOG": Function(_log, "f|f", FLOAT),
    "LOG2": Function(lambda v: math.log(v) / math.log(2) if v > 0 else None, "f", FLOAT),
    "LOG10": Function(lambda v: math.log10(v) if v > 0 else None, "f", FLOAT),
    "PI": Function(lambda: math.pi, "", fixed(6)),
    "SIN": Function(math.sin, "f", FLOAT),
    "COS": Function(math.cos, "f", FLOAT),
    "TAN": Function(math.tan, "f", FLOAT),
    "COT": Function(lambda v: 1 / math.tan(v) if v else floating(math.inf), "f", FLOAT),
    "ASIN": Function(lambda v: math.asin(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ACOS": Function(lambda v: math.acos(v) if -1 <= v <= 1 else None, "f", FLOAT),
    "ATAN": Function(_atan, "f|f", FLOAT),
    "DEGREES": Function(lambda v: v * (180 / math.pi), "f", FLOAT),
    "RADIANS": Function(lambda v: v * (math.pi / 180), "f", FLOAT),
    "CRC32": Function(zlib.crc32, "b", UNSIGNED),
    # A seed makes servers give each row of a statement its own number.
    "RAND": Function(random.random, "", FLOAT, pure=False, nulls=True),
    "CONV": Function(_conv, "tii", TEXT),
    "BIN": Function(lambda v: _conv(v, 10, 2), "t", TEXT),
    "OCT": Function(lambda v: _conv(v, 10, 8), "t", TEXT),
    "BIT_COUNT": Function(_bit_count, "n", INT),
}  # fmt: skip
