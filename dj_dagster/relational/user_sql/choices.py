"""Choices between values: IF, CASE, COALESCE, GREATEST and their like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dj_dagster.relational.user_sql.arithmetic import check_number
from dj_dagster.relational.user_sql.comparisons import order_of, truth
from dj_dagster.relational.user_sql.kinds import INT, NULL, fixed
from dj_dagster.relational.user_sql.programs import (
    CallForm,
    Form,
    Program,
    ProgramOf,
    Row,
    Untranslatable,
    alike,
    argument,
    check_null,
    heeds_case,
    pair,
    strict,
)


def _if(program_of: ProgramOf, node: Any) -> Program:
    no = node.args.get("false")
    yes, other = program_of(node.args["true"]), program_of(no) if no else None
    if yes.kind.family == "null" and (other is None or other.kind.family == "null"):
        # Servers treat it as a text, unlike other choices of nulls.
        raise Untranslatable("IF() of NULL alone")
    return _chosen([(program_of(node.this), yes)], other)


def _case(program_of: ProgramOf, node: Any) -> Program:
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
    tests = [truth(test) for test, _ in branches]

    def run(row: Row) -> Any:
        for holds, value in zip(tests, values, strict=False):
            if holds(row):
                return value(row)
        return values[-1](row)

    return Program(run, kind)


def _coalesce(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    values, kind = alike([program_of(part) for part in given])

    def run(row: Row) -> Any:
        return next((found for value in values if (found := value(row)) is not None), None)

    return Program(run, kind)


def _nullif(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    one, other = (program_of(part) for part in given)
    order = order_of(one, other, nearly=True)

    def run(row: Row) -> Any:
        a, b = one.run(row), other.run(row)
        return None if a is not None and b is not None and order(a, b) == 0 else a

    return Program(run, replace(one.kind, choices=()))


def _isnull(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    check_null(*given)
    (value,) = (program_of(part) for part in given)
    return Program(lambda row: int(value.run(row) is None), INT)


def _greatest(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    return _extreme(program_of, given, max, "GREATEST")


def _least(program_of: ProgramOf, given: Sequence[Any]) -> Program:
    return _extreme(program_of, given, min, "LEAST")


def _field(program_of: ProgramOf, given: Sequence[Any]) -> Program:
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

    def run(row: Row) -> int:
        wanted, *others = (program.run(row) for program in programs)
        return 0 if wanted is None or wanted not in others else others.index(wanted) + 1

    return Program(run, INT)


def _extreme(
    program_of: ProgramOf, given: Sequence[Any], how: Callable[..., Any], name: str
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

    def key(value: Any) -> Any:
        fold = isinstance(value, str) and not case
        return (value.casefold(), value) if fold else value

    def run(*found: Any) -> Any:
        return how(found, key=key)

    return strict([Program(value, kind) for value in values], run, kind)


FORMS: Mapping[str, Form] = {"If": _if, "Case": _case}
CALLS: Mapping[str, CallForm] = {
    "COALESCE": _coalesce, "IFNULL": _coalesce, "NVL": _coalesce, "NULLIF": _nullif,
    "ISNULL": _isnull, "GREATEST": _greatest, "LEAST": _least, "FIELD": _field,
}  # fmt: skip
