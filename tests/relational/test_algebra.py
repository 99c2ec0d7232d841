"""The query algebra: what each operator means, on all databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import dj_dagster as dj
from tests.relational.algebra_lab import SOME, fill, keys_of, open_lab


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "mysql"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dj.Schema]:
    """The tables of the tests, made and filled once."""
    folder = tmp_path_factory.mktemp("algebra")
    for schema in open_lab(request.param, "algebra_lab", request, folder):
        fill(schema, SOME)
        yield schema


@pytest.fixture
def filled(lab: Any) -> dict[str, Any]:
    return dict(lab.tables)


def test_text_before_a_join_names_its_own_table(filled: dict[str, Any]) -> None:
    a, b = filled["A"], filled["B"]
    assert keys_of((a & "a > 1") * b) == [2]
    assert keys_of(b * (a & "a = 1").proj(x2="x + a")) == [1]
    assert keys_of((a & "a > 1") * (b & "a < 3")) == [2]


def test_text_finds_no_names_outside_its_query(filled: dict[str, Any]) -> None:
    with pytest.raises(dj.UnknownAttributeError, match=r"no attribute 's'.*a, b, y, other"):
        len(filled["A"] & (filled["B"] & "s = 'a'"))
    with pytest.raises(dj.UnknownAttributeError):
        len(filled["A"].proj() & "x > 0")
    with pytest.raises(dj.UnknownAttributeError):
        len(filled["A"].proj(n="x") & "x > 0")
    assert keys_of(filled["A"].proj(n="x") & "n > 1") == [3]


def test_nulls_on_the_right_of_a_difference(filled: dict[str, Any]) -> None:
    assert keys_of(filled["A"] - filled["C"]) == [2, 3]
    assert keys_of(filled["A"] - filled["C"].proj("a")) == [2, 3]
    assert keys_of(filled["A"] - {"x": 1}) == [2, 3]
    assert keys_of(filled["A"] - "x = 1") == [2, 3]
    assert keys_of(filled["A"] & dj.Not([filled["C"], "x = 3"])) == [2]


def test_queries_without_shared_names(filled: dict[str, Any]) -> None:
    number = filled["A"].proj(number="a")
    assert len(filled["C"].proj() & number) == 2
    assert len(filled["C"].proj() & (number & "number > 9")) == 0
    assert len(filled["C"].proj() - (number & "number > 9")) == 2
    assert len(filled["C"].proj() * number) == 6


def test_percent_and_colon_in_text(filled: dict[str, Any]) -> None:
    assert keys_of(filled["A"] & "s = '%'") == [2]
    assert keys_of(filled["A"] & "s LIKE '%' AND s <> ':a'") == [1, 2, 3]
    assert keys_of(filled["A"] & 's = "c"') == [3]
    assert (filled["A"] & "a = 1").proj(t="'50%:x'").fetch1("t") == "50%:x"


def test_self_join(filled: dict[str, Any]) -> None:
    b = filled["B"]
    other = b.proj(c="b", d="y")
    assert len(b.proj("y") * other) == 2
    pairs = filled["A"].proj() * filled["A"].proj(a2="a") & "a < a2"
    assert [(row["a"], row["a2"]) for row in pairs.to_dicts(order_by="KEY")] == [
        (1, 2),
        (1, 3),
        (2, 3),
    ]


@pytest.mark.parametrize("count", [1, 100_000])
def test_restriction_by_very_many_keys(filled: dict[str, Any], count: int) -> None:
    a = filled["A"]
    assert keys_of(a & [{"a": n, "s": "c"} for n in range(3, 3 + count)]) == [3]
    assert keys_of(a & [{"a": n} for n in range(3, 3 + count)]) == [3]
    assert keys_of(a - [{"a": n} for n in range(3, 3 + count)]) == [1, 2]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda t: t["A"] & 5, "cannot be restricted by 5"),
        (lambda t: t["A"] * 5, "not with 5"),
        (lambda t: len(t["A"] & {"a": "x"}), "cannot be compared"),
        (lambda t: t["A"].proj("nosuch"), "no attribute 'nosuch'"),
        (lambda t: t["A"].proj("-a"), "primary key"),
        (lambda t: t["A"].proj(..., x="s"), "second attribute"),
        (lambda t: t["A"].proj(5), "not 5"),
        (lambda t: t["A"] & t["B"].proj(x="y"), "not the same thing.*proj"),
        (lambda t: t["A"] & dj.Manual, "cannot be restricted|belongs to no schema"),
        (lambda t: len(t["A"] & "a ="), "syntax"),
        (lambda t: len(t["A"] & "nosuch = 1"), "nosuch"),
        (lambda t: t["A"].to_dicts(order_by="nosuch"), "order_by names 'nosuch'"),
        (lambda t: t["A"].to_dicts(order_by="a; DROP TABLE a"), "order_by"),
    ],
)
def test_senseless_queries(filled: dict[str, Any], use: Any, words: str) -> None:
    with pytest.raises(dj.QueryError, match=words):
        use(filled)


def test_swapping_names(filled: dict[str, Any]) -> None:
    swapped = (filled["B"] & "b = 1 and a = 2").proj(y="other", other="y")
    assert swapped.fetch1() == {"a": 2, "b": 1, "y": 1, "other": None}
