"""Comparisons, logical operators, and choices between values: IF, CASE, COALESCE and their like."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dj_dagster.relational.user_sql import conversion, temporal
from dj_dagster.relational.user_sql.arithmetic import check_number, check_truth
from dj_dagster.relational.user_sql.kinds import (
    INT,
    NULL,
    YEAR,
    SqlValue,
    as_year,
    exact,
    fixed,
    number,
    true,
    value_kind,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.programs import (
    Arguments,
    CallForm,
    Form,
    Program,
    ProgramOf,
    Untranslatable,
    alike,
    argument,
    both,
    check_null,
    heeds_case,
    pair,
    strict,
)

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr


Truth = bool | None
"""Whether a condition holds; None for null."""


def known(value: Truth, *parts: Truth) -> Truth:
    """Return a truth value, null if one of its parts is null."""
    return None if None in parts else value


def tested(order: int | None, test: Callable[[int, int], bool]) -> int | None:
    """Return 1 or 0 for a test of an order, null for null."""
    return None if order is None else int(test(order, 0))


def _comparison(program_of: ProgramOf, node: Expr) -> Program:
    one, other = both(program_of, node)
    test = _TESTS[type(node).__name__]
    by_order = type(node).__name__ not in ("EQ", "NEQ")
    order = order_of(one, other, nearly=True, by_order=by_order, is_plain=True)
    return pair(one, other, lambda a, b: tested(order(a, b), test), INT)


def order_of(
    one: Program,
    other: Program,
    *,
    nearly: bool = False,
    by_order: bool = False,
    is_plain: bool = False,
) -> Callable[[SqlValue, SqlValue], int | None]:
    """Return the function that compares values of two programs, giving null if one does not fit.

    Parameters
    ----------
    nearly
        Whether numbers of known digits are equal if their shown digits are equal.
    by_order
        Whether the order counts, not only equality.
    is_plain
        Whether a literal beside a column of years may have the two digits of one.
    """
    families = {one.kind.family, other.kind.family}
    texts = [p for p in (one, other) if p.kind.is_text and p.literal is None]
    if "time" in families and texts:
        raise Untranslatable("comparing a time with a text: use CAST(... AS TIME)")
    for program in (one, other):
        written = program.literal
        is_number = program.kind.is_exact or program.kind.family == "float"
        if "time" in families and is_number:
            if written is None:
                raise Untranslatable("comparing a time with a number that is computed")
            places = (other if program is one else one).kind.scale
            # MySQL rounds the number to the digits of the time, and that of a moment may be one's.
            is_unlike = exact(written) * 10**places % 1 != 0 or number(written) >= 10**10
            if is_unlike or temporal.duration_of_number(number(written)) is None:
                raise Untranslatable(f"comparing a time with {written}")
        if "time" in families and isinstance(written, str) and not temporal.is_clock(written):
            raise Untranslatable(f"comparing a time with {written!r}")
    if families == {"json", "text"} and not nearly:
        # Servers unquote these in comparisons by =, but not always in others.
        raise Untranslatable("IN, BETWEEN or CASE of JSON and a text: use JSON_VALUE()")
    if not families.isdisjoint(("int", "decimal", "float")):
        check_number(one.kind)
        check_number(other.kind)
    precision = conversion.precision(one.kind, other.kind) if nearly else 0.0
    pair = conversion.converters(one.kind, other.kind)
    if pair is None:
        raise Untranslatable(
            f"comparing a value of kind {one.kind.family} with one of kind {other.kind.family}"
        )
    first, second = pair
    if nearly:
        first = conversion.as_shown(first, one.kind, other.kind, other.literal)
        second = conversion.as_shown(second, other.kind, one.kind, one.literal)
    if is_plain and one.kind == YEAR and other.literal is not None:
        first, second = number, as_year
    if is_plain and other.kind == YEAR and one.literal is not None:
        first, second = as_year, number
    for program, convert in ((one, first), (other, second)):
        if program.literal is not None and convert(program.literal) is None:
            raise Untranslatable(f"{program.literal!r} as a date or time")

    numbers = {"int", "decimal", "float"}
    is_truth = isinstance(one.literal, bool) or isinstance(other.literal, bool)
    told = partial(conversion.json_number, is_truth=is_truth, by_order=by_order)

    def order(a: SqlValue, b: SqlValue) -> int | None:
        left, right = first(a), second(b)
        if one.kind.family == "json" and other.kind.family in numbers:
            left = float(told(a, b))
        elif other.kind.family == "json" and one.kind.family in numbers:
            right = float(told(b, a))
        return None if left is None or right is None else conversion.compare(left, right, precision)

    return order


def _null_safe(program_of: ProgramOf, node: Expr) -> Program:
    one, other = both(program_of, node)
    order = order_of(one, other, nearly=True, is_plain=True)

    def run(row: Arguments) -> int:
        a, b = one.run(row), other.run(row)
        if a is None or b is None:
            return int(a is b)
        return int(order(a, b) == 0)

    return Program(run, INT)


def truth(program: Program) -> Callable[[Arguments], bool | None]:
    """Return the function that tests a program's value as a condition, null for null.

    Raises
    ------
    Untranslatable
        If servers differ in the result.
    """
    kind = program.kind
    check_truth(kind)
    return lambda row: true(program.run(row), kind)


def _and(program_of: ProgramOf, node: Expr) -> Program:
    return _logic(program_of, node, lambda a, b: False if False in (a, b) else known(a and b, a, b))


def _or(program_of: ProgramOf, node: Expr) -> Program:
    return _logic(program_of, node, lambda a, b: True if True in (a, b) else known(a or b, a, b))


def _xor(program_of: ProgramOf, node: Expr) -> Program:
    return _logic(program_of, node, lambda a, b: None if None in (a, b) else a is not b)


def _logic(program_of: ProgramOf, node: Expr, how: Callable[[Truth, Truth], Truth]) -> Program:
    one, other = map(truth, both(program_of, node))

    def run(row: Arguments) -> int | None:
        found = how(one(row), other(row))
        return None if found is None else int(found)

    return Program(run, INT)


def _not(program_of: ProgramOf, node: Expr) -> Program:
    holds = truth(program_of(node.this))

    def run(row: Arguments) -> int | None:
        found = holds(row)
        return None if found is None else int(not found)

    return Program(run, INT)


def _is(program_of: ProgramOf, node: Expr) -> Program:
    from sqlglot import exp

    value = program_of(node.this)
    if isinstance(node.expression, exp.Null):
        check_null(node.this)
        return Program(lambda row: int(value.run(row) is None), INT)
    if not isinstance(node.expression, exp.Boolean):
        raise Untranslatable("IS UNKNOWN")
    wanted = bool(node.expression.this)
    holds = truth(value)
    return Program(lambda row: int(holds(row) is wanted), INT)


def _in(program_of: ProgramOf, node: Expr) -> Program:
    from sqlglot import exp

    if node.args.get("query") or isinstance(node.this, exp.Tuple):
        raise Untranslatable("IN of a subquery or of several values inside an expression")
    for part in (node.this, *node.expressions):
        _check_extremes(program_of, part)
    value = program_of(node.this)
    others = [program_of(other) for other in node.expressions]
    literals = [other.literal for other in others if other.literal is not None]
    if value.kind == YEAR and len(others) > 1 and any(as_year(v) != number(v) for v in literals):
        raise Untranslatable("IN of a year and years of two digits, which servers differ in")
    orders = [order_of(value, other, is_plain=True) for other in others]

    def run(row: Arguments) -> int | None:
        wanted = value.run(row)
        if wanted is None:
            return None
        found = [other.run(row) for other in others]
        same = [None if v is None else order(wanted, v)
                for order, v in zip(orders, found, strict=True)]  # fmt: skip
        return 1 if 0 in same else None if None in same else 0

    return Program(run, INT)


def _check_extremes(program_of: ProgramOf, node: Expr) -> None:
    """Raise `Untranslatable` for values that MariaDB rounds inconsistently before IN."""
    for part in node.walk():
        name = call_name(part)
        if name not in ("MIN", "MAX") or type(part.parent).__name__ == "Window":
            continue
        is_computed = type(part.expressions[0]).__name__ != "Column"
        if is_computed and program_of(part).kind.family == "decimal":
            raise Untranslatable(f"IN over {name}() of decimals that are computed")


def _between(program_of: ProgramOf, node: Expr) -> Program:
    value = program_of(node.this)
    low, high = program_of(node.args["low"]), program_of(node.args["high"])
    is_number = value.kind.is_exact or value.kind.family == "float"
    if is_number and (low.kind.is_temporal or high.kind.is_temporal):
        raise Untranslatable("a number BETWEEN dates or times")
    bounds = [bound.kind.is_text for bound in (low, high) if bound.kind.family != "null"]
    if value.kind.is_text and any(bounds) and not all(bounds):
        raise Untranslatable("a text BETWEEN a text and what is none")
    above = order_of(value, low, by_order=True, is_plain=True)
    below = order_of(value, high, by_order=True, is_plain=True)

    def run(row: Arguments) -> int | None:
        given, first, last = value.run(row), low.run(row), high.run(row)
        if given is None:
            return None
        a = None if first is None else tested(above(given, first), operator.ge)
        b = None if last is None else tested(below(given, last), operator.le)
        return 0 if 0 in (a, b) else None if None in (a, b) else 1

    return Program(run, INT)


_TESTS: Mapping[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq, "NEQ": operator.ne, "LT": operator.lt, "LTE": operator.le,
    "GT": operator.gt, "GTE": operator.ge,
}  # fmt: skip
FORMS: Mapping[str, Form] = {
    **dict.fromkeys(_TESTS, _comparison), "NullSafeEQ": _null_safe, "And": _and, "Or": _or,
    "Xor": _xor, "Not": _not, "Is": _is, "In": _in, "Between": _between,
}  # fmt: skip


def _if(program_of: ProgramOf, node: Expr) -> Program:
    no = node.args.get("false")
    yes, other = program_of(node.args["true"]), program_of(no) if no else None
    if yes.kind.family == "null" and (other is None or other.kind.family == "null"):
        # Servers treat it as a text, unlike other choices of nulls.
        raise Untranslatable("IF() of NULL alone")
    return _chosen([(program_of(node.this), yes)], other)


def _case(program_of: ProgramOf, node: Expr) -> Program:
    default = node.args.get("default")
    branches: list[tuple[Program, Program]] = []
    for branch in node.args["ifs"]:
        when = program_of(branch.this)
        if node.this:
            value = program_of(node.this)
            order = order_of(value, when)
            when = pair(value, when, lambda a, b, o=order: int(o(a, b) == 0), INT)
        branches.append((when, program_of(branch.args["true"])))
    return _chosen(branches, program_of(default) if default else None)


def _chosen(branches: list[tuple[Program, Program]], default: Program | None) -> Program:
    last = default or Program(lambda row: None, NULL)
    values, kind = alike([value for _, value in branches] + [last])
    tests = [_held(test) for test, _ in branches]

    def run(row: Arguments) -> SqlValue | None:
        for holds, value in zip(tests, values, strict=False):
            if holds(row):
                return value(row)
        return values[-1](row)

    return Program(run, kind)


def _held(program: Program) -> Callable[[Arguments], bool | None]:
    """Return the test of a condition in IF or CASE, where servers take the number of JSON."""
    as_number = program.kind.family == "json"
    return truth(argument(program, "f") if as_number else program)


def _coalesce(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    values, kind = alike([program_of(part) for part in given])

    def run(row: Arguments) -> SqlValue | None:
        return next((found for value in values if (found := value(row)) is not None), None)

    return Program(run, kind)


def _nullif(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    one, other = (program_of(part) for part in given)
    order = order_of(one, other, nearly=True, is_plain=True)

    def run(row: Arguments) -> SqlValue | None:
        a, b = one.run(row), other.run(row)
        return None if a is not None and b is not None and order(a, b) == 0 else a

    return Program(run, replace(value_kind(one.kind), choices=()))


def _isnull(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    check_null(*given)
    (value,) = (program_of(part) for part in given)
    return Program(lambda row: int(value.run(row) is None), INT)


def _greatest(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _extreme(program_of, given, max, "GREATEST")


def _least(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    return _extreme(program_of, given, min, "LEAST")


def _field(program_of: ProgramOf, given: Sequence[Expr]) -> Program:
    """Return the position of the first value among the others, as texts or else as numbers."""
    if len(given) < 2:
        raise Untranslatable(f"FIELD() with {len(given)} arguments")
    programs = [program_of(part) for part in given]
    kinds = [program.kind for program in programs if program.kind.family != "null"]
    as_texts = all(kind.is_text or kind.is_temporal for kind in kinds)
    as_floats = not as_texts and not all(kind.is_exact for kind in kinds)
    if as_texts:
        programs = [argument(program, "t") for program in programs]
    elif as_floats:
        for kind in kinds:
            check_number(kind)
        programs = [argument(program, "f") for program in programs]

    def run(row: Arguments) -> int:
        wanted, *others = (program.run(row) for program in programs)
        return 0 if wanted is None or wanted not in others else others.index(wanted) + 1

    return Program(run, INT)


def _extreme(
    program_of: ProgramOf, given: Sequence[Expr], how: Callable[..., SqlValue], name: str
) -> Program:
    programs = [program_of(part) for part in given]
    families = {p.kind.family for p in programs} - {"null"}
    numbers = families <= {"int", "decimal", "float"}
    if not numbers and not families <= {"date", "datetime"} and len(families) > 1:
        raise Untranslatable(f"{name}() of values of several kinds")
    values, kind = alike(programs)
    case = heeds_case(f"{name}()", *programs)
    if kind.is_exact and any(program.kind.family == "null" for program in programs):
        kind = fixed(kind.scale)
    if kind.family == "text" and not kind.tag:
        # In a numeric context servers compare the numbers of the texts.
        kind = replace(kind, tag="unclear")

    def key(value: SqlValue) -> SqlValue | tuple[str, str]:
        return (value.casefold(), value) if isinstance(value, str) and not case else value

    def run(*found: SqlValue) -> SqlValue:
        return how(found, key=key)

    return strict([Program(value, kind) for value in values], run, kind)


CHOICE_FORMS: Mapping[str, Form] = {"If": _if, "Case": _case}
CALLS: Mapping[str, CallForm] = {
    "COALESCE": _coalesce, "IFNULL": _coalesce, "NVL": _coalesce, "NULLIF": _nullif,
    "ISNULL": _isnull, "GREATEST": _greatest, "LEAST": _least, "FIELD": _field,
}  # fmt: skip
