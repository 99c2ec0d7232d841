"""The check of a schema names each value that is missing, damaged or unreferenced."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.workflow.checking import check_schema

STORED = ("trace", "one", "many", "chunks", "packed")


@pytest.fixture
def film(schema: Any, tmp_path: Path) -> Any:
    @schema
    class Film(dj.Manual):
        definition = """
        film_id : int32
        ---
        trace : <npy@>
        one : <object@>
        many : <object@>
        chunks : <zarr@>
        packed : <blob@>
        inline : <blob>
        """

    for n in (1, 2, 3):
        values = np.random.default_rng(n).normal(size=100)
        folder = tmp_path / f"many{n}"
        folder.mkdir()
        (folder / "a.bin").write_bytes(values.tobytes())
        Film.insert1((n, values, values.tobytes(), folder, values, values, [n]))
    return Film


def files(film: Any, store: Any, name: str) -> list[str]:
    """Return the files of the second row's object."""
    table = film.connection.backend.full_name(film().name)
    stored = film.connection.query(f"SELECT {name} FROM {table} WHERE film_id = 2").fetchone()[0]
    path = json.loads(stored)["path"]
    return [*store.list(path)] or [path]


@pytest.mark.parametrize("how", ["flip", "cut", "lose"])
def test_each_damage_is_found_and_nothing_else(schema: Any, film: Any, how: str) -> None:
    assert list(check_schema(schema, read_data=True)) == []
    store, chance = film.connection.stores.get(), random.Random()
    for name in STORED:
        file = chance.choice(files(film, store, name))
        whole = store.get(file)
        data = bytearray(whole)
        if how == "flip":
            data[chance.randrange(len(data))] ^= 1
        store.delete(file)
        if how != "lose":
            store.put(file, bytes(data[:-1] if how == "cut" else data))
        (found,) = check_schema(schema, read_data=True)
        assert found.place.endswith(f"film.{name}")
        assert "film_id=2" in str(found)
        assert len(list(check_schema(schema))) == (how != "flip")
        store.put(file, whole)
    assert list(check_schema(schema, read_data=True)) == []


def test_values_in_rows_and_orphans_are_found(schema: Any, film: Any) -> None:
    table = film.connection.backend.full_name(film().name)
    film.connection.query(f"UPDATE {table} SET inline = x'646a3000ffff' WHERE film_id = 3")
    assert list(check_schema(schema)) == []
    (found,) = check_schema(schema, read_data=True)
    assert "film.inline" in str(found)
    assert "film_id=3" in str(found)


def test_keys_that_a_server_would_take_for_one_are_named(schema: Any) -> None:
    @schema
    class Cell(dj.Manual):
        definition = """
        cell : varchar(20)
        number : int32
        ---
        label : varchar(20)
        unique index (label)
        """

    apart = schema.connection.backend.tells_text_apart
    Cell.insert([("Zelle", 1, "a"), ("zelle", 2, "b"), ("e", 1, "c")])
    assert list(check_schema(schema)) == []
    if apart:
        Cell.insert([("zelle", 1, "B"), ("é", 1, "d ")])
    pairs = [
        ("cell='Zelle', number=1", "cell='zelle', number=1"),
        ("cell='e', number=1", "cell='é', number=1"),
        ("label='B'", "label='b'"),
    ]
    expected = [f"({a}) and ({b}) are one key to a server's collation." for a, b in pairs]
    found = sorted(finding.text for finding in check_schema(schema))
    assert found == (expected if apart else [])
