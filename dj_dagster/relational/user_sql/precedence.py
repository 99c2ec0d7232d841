"""Precedence of operators: parentheses are required where sqlglot and MySQL group differently."""

from __future__ import annotations

from typing import Any

from dj_dagster.relational.user_sql.programs import Untranslatable

_COMPARISONS = frozenset({"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "NullSafeEQ", "Is"})
_BITS = frozenset(
    {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseLeftShift", "BitwiseRightShift"}
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "IntDiv", "Mod"})
_LOGIC = frozenset({"And", "Or", "Not"})


def check(tree: Any) -> None:
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
