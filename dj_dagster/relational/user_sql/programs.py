"""MySQL's expressions run in Python: a tree becomes a function of its leaves' values."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import Any

from dj_dagster.relational.user_sql import comparing, functions, json_functions, temporal
from dj_dagster.relational.user_sql.casting import cast_to
from dj_dagster.relational.user_sql.operations import (
    Program,
    Row,
    Untranslatable,
    alike,
    argument,
    arithmetic,
    as_number,
    as_written,
    check_number,
    collation,
    constant,
    digits,
    has_null,
    heeds_case,
    is_made_text,
    known,
    later,
    letters,
    like_pattern,
    mapped,
    matches,
    moved_kind,
    node_name,
    number_kind,
    numeric_kind,
    pair,
    rounding,
    signed,
    step,
    strict,
    tested,
    unit,
    within,
    without_sign,
)
from dj_dagster.relational.user_sql.parsing import call_name
from dj_dagster.relational.user_sql.values import (
    BINARY,
    EXACT,
    FLOAT,
    INT,
    JSON,
    NULL,
    TEXT,
    UNSIGNED,
    Kind,
    decimal_kind,
    exact,
    integer,
    text,
    true,
    whole,
)

_UNSIGNED = 2**64 - 1


class Compiler:
    """Makes programs of trees.

    Parameters
    ----------
    leaves
        The place and the kind of each node whose value is given, by its identity.
    """

    def __init__(self, leaves: Mapping[int, tuple[int, Kind]]) -> None:
        self._leaves = leaves

    def compile(self, node: Any) -> Program:
        """Return the program of a tree.

        Raises
        ------
        Untranslatable
            If some of it is not known here.
        """
        leaf = self._leaves.get(id(node))
        if leaf is not None:
            return Program(operator.itemgetter(leaf[0]), leaf[1])
        method = _METHODS.get(type(node).__name__)
        if method is None:
            raise Untranslatable(node_name(node))
        return method(self, node)

    def _both(self, node: Any) -> tuple[Program, Program]:
        return self.compile(node.this), self.compile(node.expression)

    def _paren(self, node: Any) -> Program:
        return self.compile(node.this)

    def _literal(self, node: Any) -> Program:
        if node.is_string:
            return constant(node.this, TEXT)
        written = node.this
        if re.fullmatch("[0-9]+", written):
            value = int(written)
            return constant(value, INT if value < 2**64 else decimal_kind(0))
        if "e" in written.lower():
            return constant(float(written), FLOAT)
        found = Decimal(written)
        return constant(found, decimal_kind(-int(found.as_tuple()[2])))

    def _null(self, node: Any) -> Program:
        del node
        return Program(lambda row: None, NULL)

    def _boolean(self, node: Any) -> Program:
        return constant(int(node.this), INT)

    def _adjacent(self, node: Any) -> Program:
        """Return texts that stand side by side as one."""
        parts = [self.compile(part) for part in node.expressions]
        return constant("".join(part.literal for part in parts), TEXT)

    def _negative(self, node: Any) -> Program:
        value = self.compile(node.this)
        kind = value.kind if value.kind.is_exact else FLOAT
        if value.literal is not None and not value.kind.is_text:
            return constant(-value.literal, kind)

        def run(number_: Any) -> Any:
            if isinstance(number_, Decimal):
                return EXACT.minus(number_)
            return integer(-number_) if isinstance(number_, int) else -number_

        return mapped(as_number(value), run, numeric_kind(value.kind, kind))

    def _arithmetic(self, node: Any) -> Program:
        from sqlglot import exp

        if isinstance(node.expression, exp.Interval) or isinstance(node.this, exp.Interval):
            return self._interval_sum(node)
        one, other = self._both(node)
        kinds = [number_kind(one.kind), number_kind(other.kind)]
        symbol = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%"}[type(node).__name__]
        return arithmetic(symbol, as_number(one), as_number(other), kinds)

    def _whole_division(self, node: Any) -> Program:
        one, other = self._both(node)

        def run(a: Any, b: Any) -> Any:
            a, b = exact(a, one.kind), exact(b, other.kind)
            if not b:
                return None
            with_point = EXACT.divide(Decimal(a), Decimal(b))
            return signed(int(with_point.to_integral_value(ROUND_DOWN)))

        if "unsigned" in (one.kind.tag, other.kind.tag):
            return pair(one, other, without_sign(run), UNSIGNED)
        return pair(one, other, run, INT)

    def _bits(self, node: Any) -> Program:
        one, other = self._both(node)
        name = type(node).__name__

        def run(a: Any, b: Any) -> int:
            a, b = whole(a, one.kind) & _UNSIGNED, whole(b, other.kind) & _UNSIGNED
            if name in ("BitwiseLeftShift", "BitwiseRightShift"):
                if b > 63:
                    return 0
                return a << b & _UNSIGNED if name == "BitwiseLeftShift" else a >> b
            return {"BitwiseAnd": operator.and_, "BitwiseOr": operator.or_}.get(name, operator.xor)(
                a, b
            )

        return pair(rounding(one), rounding(other), run, UNSIGNED)

    def _complement(self, node: Any) -> Program:
        value = rounding(self.compile(node.this))
        return mapped(value, lambda v: ~whole(v, value.kind) & _UNSIGNED, UNSIGNED)

    def _comparison(self, node: Any) -> Program:
        one, other = self._both(node)
        test = _TESTS[type(node).__name__]
        order = self._order(one, other, nearly=True)
        return pair(one, other, lambda a, b: tested(order(a, b), test), INT)

    def _order(
        self, one: Program, other: Program, *, nearly: bool = False
    ) -> Callable[[Any, Any], int | None]:
        """Return what compares values of two programs; null where one is of no such kind.

        Parameters
        ----------
        nearly
            Whether numbers of known digits are equal if they are shown as equal.
        """
        families = {one.kind.family, other.kind.family}
        texts = [p for p in (one, other) if p.kind.is_text and p.literal is None]
        if "time" in families and texts:
            raise Untranslatable("comparing a time with a text: use CAST(... AS TIME)")
        if not families.isdisjoint(("int", "decimal", "float")):
            check_number(one.kind)
            check_number(other.kind)
        precision = comparing.precision(one.kind, other.kind) if nearly else 0.0
        pair = comparing.converters(one.kind, other.kind)
        if pair is None:
            raise Untranslatable(
                f"comparing a value of kind {one.kind.family} with one of kind {other.kind.family}"
            )
        first, second = pair
        if nearly:
            first = comparing.as_shown(first, one.kind, other.kind, other.literal)
            second = comparing.as_shown(second, other.kind, one.kind, one.literal)
        for program, convert in ((one, first), (other, second)):
            if program.literal is not None and convert(program.literal) is None:
                raise Untranslatable(f"{program.literal!r} as a date or time")

        def order(a: Any, b: Any) -> int | None:
            a, b = first(a), second(b)
            return None if a is None or b is None else comparing.compare(a, b, precision)

        return order

    def _null_safe(self, node: Any) -> Program:
        one, other = self._both(node)
        order = self._order(one, other, nearly=True)

        def run(row: Row) -> int:
            a, b = one.run(row), other.run(row)
            if a is None or b is None:
                return int(a is b)
            return int(order(a, b) == 0)

        return Program(run, INT)

    def _and(self, node: Any) -> Program:
        return self._logic(node, lambda a, b: False if False in (a, b) else known(a and b, a, b))

    def _or(self, node: Any) -> Program:
        return self._logic(node, lambda a, b: True if True in (a, b) else known(a or b, a, b))

    def _xor(self, node: Any) -> Program:
        return self._logic(node, lambda a, b: None if None in (a, b) else a is not b)

    def _logic(self, node: Any, how: Callable[[Any, Any], bool | None]) -> Program:
        one, other = self._both(node)

        def run(row: Row) -> int | None:
            found = how(true(one.run(row), one.kind), true(other.run(row), other.kind))
            return None if found is None else int(found)

        return Program(run, INT)

    def _not(self, node: Any) -> Program:
        value = self.compile(node.this)
        return mapped(value, lambda v: int(not true(v, value.kind)), INT)

    def _is(self, node: Any) -> Program:
        from sqlglot import exp

        value = self.compile(node.this)
        if isinstance(node.expression, exp.Null):
            return Program(lambda row: int(value.run(row) is None), INT)
        if not isinstance(node.expression, exp.Boolean):
            raise Untranslatable("IS UNKNOWN")
        wanted = bool(node.expression.this)
        return Program(lambda row: int(true(value.run(row), value.kind) is wanted), INT)

    def _in(self, node: Any) -> Program:
        from sqlglot import exp

        if node.args.get("query") or isinstance(node.this, exp.Tuple):
            raise Untranslatable("IN of a subquery or of several values inside an expression")
        value = self.compile(node.this)
        others = [self.compile(other) for other in node.expressions]
        orders = [self._order(value, other) for other in others]

        def run(row: Row) -> int | None:
            wanted = value.run(row)
            if wanted is None:
                return None
            found = [other.run(row) for other in others]
            same = [None if v is None else order(wanted, v)
                    for order, v in zip(orders, found, strict=True)]  # fmt: skip
            return 1 if 0 in same else None if None in same else 0

        return Program(run, INT)

    def _between(self, node: Any) -> Program:
        value = self.compile(node.this)
        low, high = self.compile(node.args["low"]), self.compile(node.args["high"])
        above, below = self._order(value, low), self._order(value, high)

        def run(row: Row) -> int | None:
            given, first, last = value.run(row), low.run(row), high.run(row)
            if given is None:
                return None
            a = None if first is None else tested(above(given, first), operator.ge)
            b = None if last is None else tested(below(given, last), operator.le)
            return 0 if 0 in (a, b) else None if None in (a, b) else 1

        return Program(run, INT)

    def _like(self, node: Any) -> Program:
        from sqlglot import exp

        escape = "\\"
        if isinstance(node, exp.Escape):
            escape = self.compile(node.expression).literal
            node = node.this
            if not isinstance(node, exp.Like) or not isinstance(escape, str) or len(escape) > 1:
                raise Untranslatable("ESCAPE")
        one, other = self._both(node)
        negate = bool(node.args.get("negate"))
        case = heeds_case("LIKE", one, other)

        def run(a: Any, b: Any) -> int:
            pattern = like_pattern(text(b, other.kind), escape, heeds_case=case)
            return int((pattern.fullmatch(text(a, one.kind)) is not None) is not negate)

        return pair(one, other, run, INT)

    def _regexp(self, node: Any) -> Program:
        return self._matched(*self._both(node))

    def _matched(self, one: Program, other: Program) -> Program:
        case = heeds_case("REGEXP", one, other)

        def run(a: Any, b: Any) -> int:
            return int(matches(text(b, other.kind), text(a, one.kind), heeds_case=case))

        return pair(one, other, run, INT)

    def _if(self, node: Any) -> Program:
        no = node.args.get("false")
        branches = [(self.compile(node.this), self.compile(node.args["true"]))]
        return self._chosen(branches, self.compile(no) if no else None)

    def _case(self, node: Any) -> Program:
        default = node.args.get("default")
        branches: list[tuple[Program, Program]] = []
        for branch in node.args["ifs"]:
            when = self.compile(branch.this)
            if node.this:
                value = self.compile(node.this)
                order = self._order(value, when)
                when = pair(value, when, lambda a, b, o=order: int(o(a, b) == 0), INT)
            branches.append((when, self.compile(branch.args["true"])))
        return self._chosen(branches, self.compile(default) if default else None)

    def _chosen(self, branches: list[tuple[Program, Program]], default: Program | None) -> Program:
        last = default or Program(lambda row: None, NULL)
        values, kind = alike([value for _, value in branches] + [last])
        tests = [test for test, _ in branches]

        def run(row: Row) -> Any:
            for test, value in zip(tests, values, strict=False):
                if true(test.run(row), test.kind):
                    return value(row)
            return values[-1](row)

        return Program(run, kind)

    def _cast(self, node: Any) -> Program:
        value = self.compile(node.this)
        convert, kind = cast_to(node.args["to"], value.kind)
        if convert is None:
            raise Untranslatable(f"CAST AS {node.args['to'].sql('mysql')}")
        return mapped(value, convert, kind)

    def _collate(self, node: Any) -> Program:
        raise Untranslatable(f"COLLATE {node.expression.sql()}")

    def _extract(self, node: Any) -> Program:
        unit = node.this.name.upper()
        parts = {"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND",
                 "MICROSECOND"}  # fmt: skip
        if unit == "YEAR_MONTH":
            value = self.compile(node.expression)
            return mapped(argument(value, "d"), lambda at: at.year * 100 + at.month, INT)
        if unit not in parts:
            raise Untranslatable(f"EXTRACT of {unit}")
        return self._called(unit, [node.expression])

    def _hexadecimal(self, node: Any) -> Program:
        digits = node.this if len(node.this) % 2 == 0 else f"0{node.this}"
        return constant(bytes.fromhex(digits), Kind("bytes"))

    def _substring(self, node: Any) -> Program:
        value = self.compile(node.this)
        letter = "b" if value.kind.family == "bytes" else "t"
        rest = [self.compile(part) for name in ("start", "length") if (part := node.args.get(name))]
        places = [argument(part, "i") for part in rest]
        kind = value.kind if letter == "b" else replace(TEXT, tag=collation([value]))
        return strict([argument(value, letter), *places], functions.substring, kind)

    def _trim(self, node: Any) -> Program:
        value = argument(self.compile(node.this), "t")
        what = node.args.get("expression")
        part = argument(self.compile(what), "t") if what else constant(" ", TEXT)
        kind = replace(TEXT, tag=collation([value, part]))
        where = str(node.args.get("position") or "BOTH").upper()

        def run(given: str, cut_off: str) -> str:
            while cut_off and where != "TRAILING" and given.startswith(cut_off):
                given = given[len(cut_off) :]
            while cut_off and where != "LEADING" and given.endswith(cut_off):
                given = given[: -len(cut_off)]
            return given

        return strict([value, part], run, kind)

    def _position(self, node: Any) -> Program:
        return self._called("LOCATE", [node.args["substr"], node.this])

    def _json_arrow(self, node: Any) -> Program:
        from sqlglot import exp

        one, other = self._both(node)
        found = strict([argument(v, "t") for v in (one, other)], json_functions.extract, JSON)
        unquotes = isinstance(node, exp.JSONExtractScalar)
        return mapped(found, json_functions.unquote, BINARY) if unquotes else found

    def _json_value(self, node: Any) -> Program:
        if node.args.get("on_condition"):
            raise Untranslatable("JSON_VALUE with ON EMPTY or ON ERROR")
        paths = [argument(self.compile(v), "t") for v in (node.this, node.args["path"])]
        found = strict(paths, json_functions.value, BINARY)
        returning = node.args.get("returning")
        if not returning:
            return found
        convert, kind = cast_to(returning, TEXT)
        if convert is None:
            raise Untranslatable(f"JSON_VALUE RETURNING {returning.sql('mysql')}")
        return mapped(found, convert, kind)

    def _moment_now(self, node: Any) -> Program:
        names = {"CurrentDate": "CURDATE", "CurrentTime": "CURTIME"}
        return self._called(names.get(type(node).__name__, "NOW"), [])

    def _call(self, node: Any) -> Program:
        return self._called(call_name(node), node.expressions)

    def _called(self, name: str, given: Sequence[Any]) -> Program:
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, given)
        name = functions.SPELLINGS.get(name, name)
        if name == "SUBSTRING":
            raise Untranslatable(name)
        function = functions.FUNCTIONS.get(name)
        if function is None:
            raise Untranslatable(f"{name}()")
        values = [self.compile(argument) for argument in given]
        each = letters(function.takes, len(values), name)
        kind = self._kind_given(name, function, values, each)
        if name == "QUOTE" and has_null(given[0]):
            raise Untranslatable("QUOTE() of NULL")
        if name in ("TIMESTAMP", "TIME") and is_made_text(values[0], given[0]):
            raise Untranslatable(f"{name}() of a text that is computed from none")
        if kind.scale < 0:
            raise Untranslatable(f"{name}() with this format")
        arguments = [argument(v, letter) for v, letter in zip(values, each, strict=True)]
        call = function.call
        if name in functions.COMPARING:
            # Servers heed the case of the text that is searched, not always of what is looked for.
            searched = values[name == "LOCATE"]
            case = heeds_case(name, *values)
            if case and name != "STRCMP" and collation([searched]) != "binary":
                raise Untranslatable(f"{name}() of a text from JSON in another text")
            call = partial(call, heeds_case=case)
        if not function.nulls:
            return strict(arguments, call, kind)
        runs = [argument.run for argument in arguments]
        return Program(lambda row: function.call(*[run(row) for run in runs]), kind)

    def _kind_given(
        self, name: str, function: functions.Function, values: Sequence[Program], each: str
    ) -> Kind:
        """Return the kind of what a function gives."""
        for value, letter in zip(values, each, strict=True):
            if letter in "fin":
                check_number(value.kind)
        if name in _ROUNDING and values[0].kind.is_temporal:
            raise Untranslatable(f"{name}() of a date or time")
        if isinstance(function.gives, Kind):
            kept = collation(values) if name in functions.KEEPING else ""
            return replace(function.gives, tag=kept) if kept else function.gives
        kinds = [number_kind(value.kind) if letter == "n" else value.kind
                 for value, letter in zip(values, each, strict=True)]  # fmt: skip
        return function.gives(kinds, [*(value.literal for value in values), None])

    def _modulo(self, given: Sequence[Any]) -> Program:
        one, other = (self.compile(part) for part in given)
        kinds = [number_kind(one.kind), number_kind(other.kind)]
        return arithmetic("%", as_number(one), as_number(other), kinds)

    def _coalesce(self, given: Sequence[Any]) -> Program:
        values, kind = alike([self.compile(part) for part in given])

        def run(row: Row) -> Any:
            return next((found for value in values if (found := value(row)) is not None), None)

        return Program(run, kind)

    def _nullif(self, given: Sequence[Any]) -> Program:
        one, other = (self.compile(part) for part in given)
        order = self._order(one, other, nearly=True)

        def run(row: Row) -> Any:
            a, b = one.run(row), other.run(row)
            return None if a is not None and b is not None and order(a, b) == 0 else a

        return Program(run, replace(one.kind, choices=()))

    def _isnull(self, given: Sequence[Any]) -> Program:
        (value,) = (self.compile(part) for part in given)
        return Program(lambda row: int(value.run(row) is None), INT)

    def _greatest(self, given: Sequence[Any]) -> Program:
        return self._extreme(given, max, "GREATEST")

    def _least(self, given: Sequence[Any]) -> Program:
        return self._extreme(given, min, "LEAST")

    def _extreme(self, given: Sequence[Any], how: Callable[..., Any], name: str) -> Program:
        programs = [self.compile(part) for part in given]
        families = {p.kind.family for p in programs} - {"null"}
        numbers = families <= {"int", "decimal", "float"}
        if not numbers and not families <= {"date", "datetime"} and len(families) > 1:
            raise Untranslatable(f"{name}() of values of several kinds")
        values, kind = alike(programs)
        case = heeds_case(f"{name}()", *programs)

        def key(value: Any) -> Any:
            fold = isinstance(value, str) and not case
            return (value.casefold(), value) if fold else value

        def run(*found: Any) -> Any:
            return how(found, key=key)

        return strict([Program(value, kind) for value in values], run, kind)

    def _regexp_call(self, given: Sequence[Any]) -> Program:
        if len(given) != 2:
            raise Untranslatable("REGEXP_LIKE() with a match type")
        one, other = (self.compile(part) for part in given)
        return self._matched(one, other)

    def _date_add(self, given: Sequence[Any]) -> Program:
        return self._added(given, 1)

    def _date_sub(self, given: Sequence[Any]) -> Program:
        return self._added(given, -1)

    def _added(self, given: Sequence[Any], sign: int) -> Program:
        from sqlglot import exp

        if len(given) != 2:
            raise Untranslatable("DATE_ADD() without two arguments")
        value = self.compile(given[0])
        if isinstance(given[1], exp.Interval):
            return self._moved(value, given[1].this, unit(given[1]), sign)
        return self._moved(value, given[1], "DAY", sign)

    def _add_time(self, given: Sequence[Any]) -> Program:
        return self._time_sum(given, 1)

    def _sub_time(self, given: Sequence[Any]) -> Program:
        return self._time_sum(given, -1)

    def _time_sum(self, given: Sequence[Any], sign: int) -> Program:
        one, other = (self.compile(part) for part in given)
        if one.kind.family not in ("datetime", "time"):
            raise Untranslatable("ADDTIME() or SUBTIME() of what is no time by its type")
        kind = replace(one.kind, scale=max(one.kind.scale, digits(other)))
        more = argument(other, "h")
        return strict([one, more], lambda at, by: later(at, sign * by), kind)

    def _timediff(self, given: Sequence[Any]) -> Program:
        one, other = (self.compile(part) for part in given)
        if one.kind.family != other.kind.family or one.kind.family not in ("datetime", "time"):
            raise Untranslatable("TIMEDIFF() of what are not two times or moments by their types")
        kind = Kind("time", max(one.kind.scale, other.kind.scale))
        return strict([one, other], lambda a, b: temporal.round_to(within(a - b), kind.scale), kind)

    def _timestampadd(self, given: Sequence[Any]) -> Program:
        unit = given[0].name.upper().removeprefix("SQL_TSI_")
        return self._moved(self.compile(given[2]), given[1], unit, 1)

    def _timestampdiff(self, given: Sequence[Any]) -> Program:
        unit = given[0].name.upper().removeprefix("SQL_TSI_")
        if unit not in temporal.SIMPLE_UNITS:
            raise Untranslatable(f"TIMESTAMPDIFF() in {unit}")
        values = [argument(self.compile(part), "d") for part in given[1:]]
        return strict(values, lambda a, b: temporal.between(unit, a, b), INT)

    def _interval_sum(self, node: Any) -> Program:
        from sqlglot import exp

        sign = 1 if isinstance(node, exp.Add) else -1 if isinstance(node, exp.Sub) else 0
        first = isinstance(node.this, exp.Interval)
        if not sign or (first and sign < 0):
            raise Untranslatable("INTERVAL in this place")
        value, interval = (node.expression, node.this) if first else (node.this, node.expression)
        return self._moved(self.compile(value), interval.this, unit(interval), sign)

    def _moved(self, value: Program, amount: Any, unit: str, sign: int) -> Program:
        if unit not in temporal.UNITS:
            raise Untranslatable(f"INTERVAL in {unit}")
        by = self.compile(amount)
        is_written = isinstance(value.literal, str)
        kind = moved_kind(value, by, unit)

        def run(at: Any, much: Any) -> Any:
            by_ = step(much, by.kind, unit)
            if by_ is None:
                return None
            months, rest = sign * by_[0], sign * by_[1]
            if isinstance(at, timedelta):
                return None if months else within(at + rest)
            at = comparing.moment(at)
            found = None if at is None else temporal.moved(at, months, rest)
            if found is None or found.year < 1:
                return None
            return found.date() if kind.family == "date" else found

        moved = strict([value, by], run, kind)
        if kind.family != "text":
            return moved
        # A text gives a text: a date where it was one and stays one.
        kind = Kind("text", tag="moment")
        return strict(
            [value, moved], lambda at, found: as_written(at, found, unit, is_written), kind
        )


_ROUNDING = ("CEIL", "FLOOR", "ROUND", "TRUNCATE")
_TESTS: dict[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq, "NEQ": operator.ne, "LT": operator.lt, "LTE": operator.le,
    "GT": operator.gt, "GTE": operator.ge,
}  # fmt: skip

_c: Any = Compiler
_METHODS: dict[str, Any] = {
    "Paren": _c._paren, "Literal": _c._literal, "Null": _c._null, "Boolean": _c._boolean,
    "Concat": _c._adjacent, "Neg": _c._negative, "IntDiv": _c._whole_division,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod"), _c._arithmetic),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseLeftShift",
                     "BitwiseRightShift"), _c._bits),
    "BitwiseNot": _c._complement, **dict.fromkeys(_TESTS, _c._comparison),
    "NullSafeEQ": _c._null_safe, "And": _c._and, "Or": _c._or, "Xor": _c._xor, "Not": _c._not,
    "Is": _c._is, "In": _c._in, "Between": _c._between, "Like": _c._like, "Escape": _c._like,
    "RegexpLike": _c._regexp, "If": _c._if, "Case": _c._case, "Cast": _c._cast,
    "Collate": _c._collate, "Extract": _c._extract, "HexString": _c._hexadecimal,
    "Substring": _c._substring, "Trim": _c._trim, "StrPosition": _c._position,
    "JSONExtract": _c._json_arrow, "JSONExtractScalar": _c._json_arrow,
    "JSONValue": _c._json_value, "Anonymous": _c._call,
    **dict.fromkeys(("CurrentDate", "CurrentTime", "CurrentTimestamp", "Localtime",
                     "Localtimestamp"), _c._moment_now),
}  # fmt: skip
_SPECIAL: dict[str, Callable[[Compiler, Sequence[Any]], Program]] = {
    "MOD": _c._modulo, "COALESCE": _c._coalesce, "IFNULL": _c._coalesce, "NVL": _c._coalesce,
    "NULLIF": _c._nullif, "ISNULL": _c._isnull, "GREATEST": _c._greatest, "LEAST": _c._least,
    "REGEXP_LIKE": _c._regexp_call, "DATE_ADD": _c._date_add, "ADDDATE": _c._date_add,
    "DATE_SUB": _c._date_sub, "SUBDATE": _c._date_sub, "ADDTIME": _c._add_time,
    "SUBTIME": _c._sub_time, "TIMEDIFF": _c._timediff, "TIMESTAMPADD": _c._timestampadd,
    "TIMESTAMPDIFF": _c._timestampdiff,
}  # fmt: skip
