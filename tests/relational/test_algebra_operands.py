"""All that may stand after & and -, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dj_dagster as dj
from tests.relational.algebra_lab import SOME, fill, keys_of, open_lab

WORDS = [
    "'; DROP TABLE `a`; --",
    "' OR '1'='1",
    '" OR ""="',
    "`",
    "%",
    "%s %(x)s %%",
    ":x ?",
    "\\",
    "\\'",
    "a\nb\tc\r",
    "/* x */ # y -- z",
    "日本 🐭",
    "$.a[0]",
]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "mysql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("operands")
    for schema in open_lab(request.param, "operands_lab", request, folder):
        fill(schema, SOME)
        place: Any = schema

        @place
        class Word(dj.Manual):
            definition = """
            word : varchar(60)
            ---
            info : json
            number : int32
            """

        Word().insert([(word, {"word": word}, n) for n, word in enumerate(WORDS)])
        yield schema


@pytest.fixture
def a(lab: Any) -> Any:
    return lab.tables["A"]


def operands() -> list[tuple[Any, list[int]]]:
    record = np.array([(1, 1), (3, 9)], dtype=[("a", "i8"), ("x", "i8")])
    frame = pd.DataFrame({"a": [1, 2], "x": [1.0, None]})
    return [
        ({"a": 1}, [1]),
        ({"a": np.int64(1), "nosuch": 5}, [1]),
        ({"nosuch": 5}, [1, 2, 3]),
        ({}, [1, 2, 3]),
        ({"x": None}, [2]),
        (record[0], [1]),
        (record, [1]),
        (record.view(np.recarray), [1]),
        (frame, [1, 2]),
        (frame.set_index("a"), [1, 2]),
        (frame.iloc[0], [1]),
        (frame.iloc[:0], []),
        (pl.DataFrame({"a": [1, 3]}), [1, 3]),
        (pa.table({"a": [1, 3]}), [1, 3]),
        ("a > 1", [2, 3]),
        (["a > 2", {"a": 1}], [1, 3]),
        (({"a": 1}, {"a": 3}), [1, 3]),
        ({"a > 2", "a < 2"}, [1, 3]),
        ([], []),
        ((), []),
        ([[], {"a": 1}], [1]),
        ([{"a": 1, "x": 1}, {"a": 2, "x": None}, {"a": 3, "x": 1}], [1, 2]),
        (dj.AndList(["a > 1", "a < 3"]), [2]),
        (dj.AndList(), [1, 2, 3]),
        (dj.AndList([[{"a": 1}, {"a": 2}], dj.Not({"a": 1})]), [2]),
        (dj.Not([{"a": 1}, "x is null"]), [3]),
        (dj.Not(dj.Not({"a": 1})), [1]),
        (True, [1, 2, 3]),
        (False, []),
        (np.bool_(False), []),
        ([True, {"a": 1}], [1, 2, 3]),
        (dj.U("a"), [1, 2, 3]),
        ([dj.U()], [1, 2, 3]),
    ]


@pytest.mark.parametrize("number", range(len(operands())))
def test_operands(a: Any, number: int) -> None:
    operand, found = operands()[number]
    assert keys_of(a & operand) == found
    assert keys_of(a() & operand & operand) == found
    assert keys_of(a.restrict(operand)) == found
    assert keys_of(a - operand) == [n for n in (1, 2, 3) if n not in found]
    assert keys_of(a & dj.Not(operand)) == [n for n in (1, 2, 3) if n not in found]
    assert len(a & operand) == len(found)
    assert bool(a & operand) == bool(found)


def test_queries_and_classes_as_operands(lab: Any, a: Any) -> None:
    b = lab.tables["B"]
    assert keys_of(a & b) == keys_of(a & b()) == [1, 2]
    assert keys_of(a - b) == [3]
    assert keys_of(a & [b & "y > 1", {"a": 3}]) == [1, 3]
    assert keys_of(a & (n for n in [{"a": 3}])) == [3]
    assert keys_of(a & dj.AndList([b, "a > 1"])) == [2]
    assert {"a": 1} in a
    assert {"a": 9} not in a()


def test_names_that_match_whatever_they_mean(lab: Any, a: Any) -> None:
    c = lab.tables["C"].proj(x="z")
    with pytest.raises(dj.QueryError, match="not the same thing"):
        a.restrict(c)
    assert keys_of(a.restrict(c.proj("x"), semantic_check=False)) == [1]
    assert keys_of(a.proj("x").restrict(dj.U("x") & c, semantic_check=False)) == [1]
    with pytest.raises(dj.QueryError, match="not the same thing"):
        a.join(dj.U("x") & c)
    joined = a.join(dj.U("x") & c, semantic_check=False)
    assert [(row["a"], row["x"]) for row in joined] == [(1, 1)]


def test_all_characters_are_data(lab: Any) -> None:
    word = lab.tables["Word"]
    for n, text in enumerate(WORDS):
        assert (word & {"word": text}).fetch1("number") == n
        assert (word & {"info.word": text}).fetch1("number") == n
        assert (word & [{"word": text}, {"word": "none"}]).fetch1("number") == n
        assert len(word - {"word": text}) == len(WORDS) - 1
        many = [{"word": text}, *({"word": f"none {k}'%"} for k in range(30))]
        assert (word & many).fetch1("number") == n
        pairs = [{"word": text, "number": n}, *({"word": f"{k}'", "number": k} for k in range(30))]
        assert (word & pairs).fetch1("number") == n
        assert text in str((word & {"word": text}).make_sql()) or any(c in text for c in "'\\")
    assert len(word & [{"word": text} for text in WORDS]) == len(WORDS)
    assert len(word) == len(WORDS)


@pytest.mark.parametrize("number", [2**63, -(2**70), 10**400])
def test_numbers_that_no_row_can_have(lab: Any, number: int) -> None:
    word = lab.tables["Word"]
    everything = len(word)
    assert len(word & {"number": number}) == 0
    assert len(word - {"number": number}) == everything
    assert len(word & [{"number": n} for n in (number, 0)]) == 1
    assert len(word & [{"number": n} for n in (number, *range(30))]) == everything


def test_characters_in_the_users_own_sql(lab: Any) -> None:
    word = lab.tables["Word"]
    assert (word & "word = '%'").fetch1("number") == WORDS.index("%")
    assert (word & 'word = "%s %(x)s %%"').fetch1("number") == WORDS.index("%s %(x)s %%")
    assert (word & "word = ':x ?'").fetch1("number") == WORDS.index(":x ?")
    assert (word & 'word = "number"').to_dicts() == []
    found = word.proj(text="'number % :x ?'") & "text = 'number % :x ?'"
    assert len(found) == len(WORDS)


@pytest.mark.parametrize("name", ["a`b", "a b", "nosuch", "x' or '1", "x; --"])
def test_odd_names_are_unknown(lab: Any, name: str) -> None:
    a = lab.tables["A"]
    assert len(a & {name: 1}) == 3
    for use in (a.proj, a.to_arrays, lambda n: dj.U(n) & a):
        with pytest.raises(dj.UnknownAttributeError, match="a, x, s"):
            use(name)


def test_unknown_names_in_sql(lab: Any) -> None:
    a = lab.tables["A"]
    for query in (a & "nosuch = 1", a & "`no such` = 1", a.proj(n="nosuch + 1")):
        with pytest.raises(dj.UnknownAttributeError, match="heading has: a, x, s"):
            len(query.proj(...) & "a > 0 or nosuch > 1")
