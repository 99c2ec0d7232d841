"""Restrictions by values inside JSON: any key, compared by value, the same on each database."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.errors import InvalidValueError, QueryError

UID = UUID(int=7)
PLAIN_KEYS = ("f-stop", "a b", "größe", "it's", "名前", "😀", "%s", "$", "1st")
KEYS = (*PLAIN_KEYS, 'say "x"', "a.b", "a:b", "a[0]", "back\\slash", "*", "", "line\nend")
VALUES: list[Any] = [
    *(True, False, 1, 0, 2, 1.5, -0.25, 1e300, 2**53, 2**53 + 1, -(2**63), 2**64 - 1),
    *("1", "true", "null", "", "é😀", "É😀", "x", "x ", "a/b", 'q"\\\n', "y" * 2000),
    *([], {}, [1, 2], [2, 1], [1], [True, 2], ["é", None], [[1], 2], {"a": 1}, {"a": 1, "b": 2}),
    *({"a": True}, {"b": {"é": [1.5, "x"]}}, {"a": None}, {"a": 2**53 + 1}, {"a": 2**53}),
]


@pytest.fixture
def notes(schema: Any) -> Any:
    @schema
    class Note(dj.Manual):
        definition = """
        note : int32
        ---
        info = null : json
        """

    return Note


def found(query: Any) -> list[int]:
    return [key["note"] for key in query.keys(order_by="KEY")]


def quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


@pytest.mark.parametrize("key", KEYS)
def test_any_key_can_be_in_a_path(notes: Any, key: str) -> None:
    notes.insert([(1, {key: 1, "in": {key: [5, 6]}}), (2, {key: 2, "in": {key: [6]}}), (3, {})])
    assert found(notes & {f"info.{quoted(key)}": 1}) == [1]
    assert found(notes - {f"info.{quoted(key)}": 1}) == [2, 3]
    assert found(notes & {f"info.in.{quoted(key)}[1]": 6}) == [1]
    assert found(notes & {f"info.in.{quoted(key)}[last]": 6}) == [1, 2]
    assert found(notes & {f"info.{quoted(key)}:int32": 2}) == [2]
    assert found(notes & {f"info.{quoted(key)}": None}) == [3]
    values = notes.proj(value=f"info.{quoted(key)}:int32").to_arrays("value", order_by="KEY")
    assert values.tolist() == [1, 2, None]
    (notes & {f"info.{quoted(key)}": 2}).delete()
    assert found(notes()) == [1, 3]


def test_mariadb_refuses_keys_that_it_does_not_find(notes: Any) -> None:
    notes.insert([(1, {"-x": 1}), (2, {"a": {"-1": 1}}), (3, {})])
    with notes.connection.cursor() as session:
        is_mariadb = getattr(session.dialect, "is_mariadb", False)
    for path, note in (("info.-x", 1), ("info.a.-1", 2)):
        if is_mariadb:
            with pytest.raises(QueryError, match="begin with '-'"):
                (notes - {path: 1}).delete()
        else:
            assert found(notes & {path: 1}) == [note]


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_a_key_without_signs_of_paths_needs_no_quotes(notes: Any, key: str) -> None:
    notes.insert([(1, {key: {key: 1}}), (2, {key: {key: 2}})])
    assert found(notes & {f"info.{key}.{key}": 1}) == [1]
    assert found(notes & [{f"info.{key}.{key}": 2}, {f"info.{key}.{key}:int32": 3}]) == [2]


@pytest.mark.parametrize(
    "path",
    [
        *("info.", "info[", "info..x", "info[*]", "info.*", "info.a.*.b", "info.x:", "info:int32"),
        *(
            'info."x',
            "info.x[-1]",
            "info.x[a]",
            "info.x]",
            "info. x.y",
            'info."\\q"',
            "info.x:int:y",
        ),
        *('info."\\ud800"', "info.x[0]y", 'info."x"y'),
    ],
)
def test_a_path_that_cannot_be_read_is_refused(notes: Any, path: str) -> None:
    notes.insert1((1, {"x": 1}))
    for restriction in ({path: 1}, [{path: 1}], {path: 1, "note": 1}, dj.Not({path: 1})):
        with pytest.raises(QueryError) as told:
            (notes & restriction).to_dicts()
        assert repr(path) in str(told.value)
        assert "info" in str(told.value)


@pytest.mark.parametrize("path", ["info.v", "info.list[0]", 'info."ö"'])
def test_values_are_compared_by_value(notes: Any, path: str) -> None:
    notes.insert([(n, {"v": v, "list": [v], "ö": v}) for n, v in enumerate(VALUES)])
    for number, value in enumerate(VALUES):
        assert found(notes & {path: value}) == [number], value
        assert len(notes - {path: value}) == len(VALUES) - 1, value


def test_values_of_python_are_those_that_json_has(notes: Any) -> None:
    values = [1.5, 1, True, [1, 2], "2026-01-02", str(UID), 2**63, {"a": [1]}]
    notes.insert([(n, {"v": v}) for n, v in enumerate(values)])
    given: list[tuple[Any, list[int]]] = [
        (np.float64(1.5), [0]),
        (Decimal("1.50"), [0]),
        (Decimal(1), [1]),
        (np.int8(1), [1]),
        (1.0, [1]),
        (np.bool_(True), [2]),
        (np.array([1, 2]), [3]),
        ((1.0, 2.0), [3]),
        (date(2026, 1, 2), [4]),
        (UID, [5]),
        ({"a": np.array([1])}, [7]),
    ]
    for value, numbers in given:
        assert found(notes & {"info.v": value}) == numbers
    for value in (float("nan"), {1, 2}, b"x", object()):
        with pytest.raises(InvalidValueError, match=r"info\.v"):
            found(notes & {"info.v": value})


def test_null_is_null_or_nothing_there(notes: Any) -> None:
    notes.insert(
        [(1, {"v": None}), (2, {}), (3, None), (4, {"v": 0}), (5, {"v": {}}), (6, {"v": ""})]
    )
    assert found(notes & {"info.v": None}) == [1, 2, 3]
    assert found(notes - {"info.v": None}) == [4, 5, 6]
    assert found(notes & {"info.v.x": None}) == [1, 2, 3, 4, 5, 6]


def test_json_that_other_programs_wrote(notes: Any, connection: dj.Connection) -> None:
    texts = [r'{"gr\u00f6\u00dfe": "\u00e9"}', '{"größe" : "é"}', r'{"gr\u00f6\u00dfe":["\u00e9"]}']
    texts += [r'{"größe": ["é"]}', r'{"url": "a\/b", "n": 1.0}', r'{"n": 10e-1, "url": "a"}']
    for number, text in enumerate(texts):
        connection.query(
            f"insert into {notes.full_table_name} values (%s, %s)", args=(number, text)
        )
    assert found(notes & {"info.größe": "é"}) == [0, 1]
    assert found(notes & {"info.größe": ["é"]}) == [2, 3]
    assert found(notes & {"info.url": "a/b"}) == [4]
    assert found(notes & {"info.n": 1}) == [4, 5]
    values = notes.proj(value='info."größe"').to_arrays("value", order_by="KEY")[:2]
    assert values.tolist() == ["é", "é"]


def test_a_path_into_what_is_not_json_is_refused(notes: Any) -> None:
    with pytest.raises(QueryError, match=r"note\.a b.*note is int32"):
        found(notes & {"note.a b": 1})
    assert found(notes & {"elsewhere.a b": 1}) == []
