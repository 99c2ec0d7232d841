"""The check of a schema names each value that is missing, damaged or unreferenced."""

from __future__ import annotations

import json
import os
import random
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.checksums import manifest_path
from dj_dagster.objects.stores.store import Store
from dj_dagster.workflow import integrity
from dj_dagster.workflow.integrity import check_schema
from tests.lab import connect
from tests.services.process import PATIENCE

DAMAGES = int(os.environ.get("DJ_TEST_DAMAGES", "0"))
"""Objects to damage, by default one of each codec in each way; the issue of bytes says 500."""

READ: dict[str, Callable[[Any, Path], object]] = {
    "trace": lambda value, _: value.load(),
    "one": lambda value, _: value.read(),
    "many": lambda value, folder: value.download(folder),
    "chunks": lambda value, _: np.asarray(value),
    "packed": lambda value, _: value,
    "attached": lambda value, _: value,
    "own": lambda value, _: value.read(),
    "owns": lambda value, folder: value.download(folder),
}
"""What reads a value in full, by attribute."""

WAYS = ("flip", "cut", "swap", "lose")


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
        attached : <attach@>
        own : <filepath@>
        owns : <filepath@>
        inline : <blob>
        """

    rows = -(-DAMAGES // len(READ)) if DAMAGES else len(WAYS)
    folder = tmp_path / "film"
    folder.mkdir()
    for n in range(rows + 2):
        values = np.random.default_rng(n).normal(size=100)
        (folder / "a.bin").write_bytes(values.tobytes())
        own = tmp_path / "store" / "own" / str(n)
        own.mkdir(parents=True)
        (own / "a.bin").write_bytes(values.tobytes())
        (own / "b.bin").write_bytes(bytes([n % 256]))
        places = (folder / "a.bin", f"own/{n}/a.bin", f"own/{n}")
        row = (n, values, values.tobytes(), folder, values, values, *places, values)
        Film.insert1(row)
    return Film


def references(film: Any, name: str) -> list[Any]:
    """Return the references of an attribute, in the order of the rows."""
    table = film.connection.backend.full_name(film().name)
    found = film.connection.query(f"SELECT {name} FROM {table} ORDER BY film_id")
    return [json.loads(row[0]) for row in found.fetchall()]


def files(store: Store, reference: Any) -> list[str]:
    """Return the files of an object."""
    path = reference["path"]
    found = sorted(store.list(path)) or [path]
    return [*found, manifest_path(path)] if store.exists(manifest_path(path)) else found


def damage(store: Store, file: str, other: str, how: str, chance: random.Random) -> bool:
    """Change a file; return whether its size tells."""
    data = bytearray(store.get(file))
    if how == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        data = data[: chance.randrange(len(data))]
    elif how == "swap":
        data = bytearray(store.get(other))
    size = store.size(file)
    store.delete(file)
    if how != "lose":
        store.put(file, bytes(data))
    return how == "lose" or len(data) != size


def test_random_damage_is_found_and_refused_and_nothing_else(
    schema: Any, film: Any, tmp_path: Path
) -> None:
    """With DJ_TEST_DAMAGES=500 this is the long run."""
    assert list(check_schema(schema, read_data=True)) == []
    store, chance = film.connection.stores.get(), random.Random(os.environ.get("DJ_TEST_SEED"))
    damaged, sizes = set[tuple[str, int]](), set[tuple[str, int]]()
    count = len(film()) - 2
    for name in READ:
        stored = references(film, name)
        for n in range(count):
            if len(damaged) >= (DAMAGES or len(READ) * len(WAYS)):
                break
            if name == "own" and ("owns", n) in damaged:
                continue
            mine, others = files(store, stored[n]), files(store, stored[-1])
            # The file of `own` is one of the folder of `owns`.
            at = 1 if name == "owns" else chance.randrange(len(mine))
            # That of a row which stays as it is, which differs from it.
            same = store.get(mine[at]) == store.get(others[at])
            how = chance.choice(["flip", "cut", "lose"]) if same else WAYS[n % len(WAYS)]
            told = damage(store, mine[at], others[at], how, chance)
            places = {(name, n)} | ({("owns", n)} if name == "own" else set())
            damaged |= places
            sizes |= places if told else set()
    print(f"{len(damaged)} damaged objects, {len(sizes)} of them of another size")

    def found(*, read_data: bool) -> set[tuple[str, int]]:
        findings = list(check_schema(schema, read_data=read_data))
        places = [(each.place.rpartition(".")[2], each.text) for each in findings]
        keys = {
            (name, int(text.partition("film_id=")[2].partition(")")[0])) for name, text in places
        }
        assert len(keys) == len(findings)
        return keys

    assert found(read_data=True) == damaged
    # What is not a list of files, or no array's description, is found without reading all as well.
    assert sizes <= found(read_data=False) <= damaged
    folder = tmp_path / "out"
    for name, read in READ.items():
        for n in range(count + 2):
            row = film & {"film_id": n}
            if (name, n) not in damaged:
                read(row.fetch1(name), folder / f"{name}{n}")
                continue
            with pytest.raises(dj.ObjectError, match=f"film.{name} .film_id={n}"):
                read(row.fetch1(name), folder / f"{name}{n}")


def test_values_in_rows_and_orphans_are_found(schema: Any, film: Any) -> None:
    table = film.connection.backend.full_name(film().name)
    film.connection.query(f"UPDATE {table} SET inline = x'646a3000ffff' WHERE film_id = 3")
    assert list(check_schema(schema)) == []
    (found,) = check_schema(schema, read_data=True)
    assert "film.inline" in str(found)
    assert "film_id=3" in str(found)


def test_values_of_other_types_in_a_file_are_found(tmp_path: Path) -> None:
    """SQLite stores any value in any column."""
    connection = connect(f"sqlite:///{tmp_path / 'lab.sqlite'}", tmp_path)
    schema = dj.Schema("lab", connection=connection)

    @schema
    class Odd(dj.Manual):
        definition = """
        odd_id : int32
        ---
        whole = null : int8
        real = null : float64
        flag = null : bool
        price = null : decimal(6,2)
        long = null : decimal(40,2)
        title = null : varchar(5)
        side = null : enum("left", "right")
        year = null : year
        clock = null : time
        day = null : date
        who = null : uuid
        options = null : json
        raw = null : bytes
        packed = null : <blob>
        file = null : <attach>
        """

    (tmp_path / "a.txt").write_text("")
    row = {"options": {"a": 1}, "raw": b"", "packed": 1, "file": tmp_path / "a.txt"}
    Odd.insert([{"odd_id": 1, "who": uuid.uuid4(), **row}, {"odd_id": 2}])
    assert list(check_schema(schema, read_data=True)) == []
    odd = {
        **{name: ["x'ff'"] for name in Odd.heading.secondary_attributes},
        "whole": ["x'ff'", "'abc'", "1.5", "300"],
        "real": ["'abc'"],
        "flag": ["'abc'", "5"],
        "price": ["'nan'", "9e999", "12345"],
        "long": ["'nan'"],
        "title": ["x'ff'", "'abcdef'"],
        "side": ["'zzz'"],
        "year": ["'abc'", "5"],
        "raw": ["'abc'", "5"],
        "packed": ["'abc'", "5"],
        "file": ["'abc'", "5", "x'ff'", "x'00ff'"],
    }
    for name, values in odd.items():
        for value in values:
            connection.query(f'UPDATE "lab.odd" SET "{name}" = {value} WHERE odd_id = 2')
            (found,) = check_schema(schema, read_data=True)
            assert (found.place, "odd_id=2" in found.text) == (f"lab.odd.{name}", True)
            with suppress(dj.DataJointError):
                Odd.to_dicts()
        connection.query(f'UPDATE "lab.odd" SET "{name}" = NULL WHERE odd_id = 2')
    assert Odd.to_dicts()
    connection.close()


def test_keys_that_a_server_would_take_for_one_are_named(schema: Any) -> None:
    @schema
    class Cell(dj.Manual):
        definition = """
        cell : varchar(20)
        number : int32
        ---
        label : varchar(20)
        unique index (label(6))
        """

    apart = schema.connection.backend.tells_text_apart
    Cell.insert([("Zelle", 1, "a"), ("zelle", 2, "b"), ("e", 1, "c")])
    assert list(check_schema(schema)) == []
    if apart:
        Cell.insert([("zelle", 1, "B"), ("é", 1, "abcdee"), ("か", 1, "d"), ("カ", 1, "f")])
        Cell.insert([("ø", 5, "ABCDEÉx"), ("o\0", 5, "g"), ("😀", 1, "h"), ("😁", 1, "i")])
        Cell.insert([("й", 1, "j"), ("и", 1, "k"), ("ᾳ", 1, "l"), ("α", 1, "m")])
    pairs = [
        ("cell='Zelle', number=1", "cell='zelle', number=1"),
        ("cell='e', number=1", "cell='é', number=1"),
        ("cell='o\\x00', number=5", "cell='ø', number=5"),
        ("cell='α', number=1", "cell='ᾳ', number=1"),
        ("cell='か', number=1", "cell='カ', number=1"),
        ("cell='😀', number=1", "cell='😁', number=1"),
        ("label='ABCDEÉx'", "label='abcdee'"),
        ("label='B'", "label='b'"),
    ]
    expected = [f"({a}) and ({b}) are one key to a server's collation." for a, b in pairs]
    found = sorted(finding.text for finding in check_schema(schema))
    assert found == (expected if apart else [])


@pytest.fixture
def sample(schema: Any) -> Any:
    """Rows whose keys are of several types, two of them with a damaged object."""

    @schema
    class Sample(dj.Manual):
        definition = """
        day : date
        name : varchar(20)
        code : uuid
        at : time(3)
        ---
        trace : <blob@>
        note : <blob>
        """

    def row(n: int) -> tuple[Any, ...]:
        code = uuid.UUID(int=n)
        return (f"2026-01-{n // 10 + 1:02}", f"n{n % 5}", code, f"10:00:{n:02}.5", [n], {"n": n})

    Sample.insert(map(row, range(40)))
    store = schema.connection.stores.get()
    for one in (Sample & {"code": uuid.UUID(int=5)}, Sample & {"code": uuid.UUID(int=35)}):
        table = one.connection.backend.full_name(one.name)
        query = f"SELECT trace FROM {table} WHERE name = 'n0' ORDER BY day, name, code"
        paths = [json.loads(found[0])["path"] for found in one.connection.query(query).fetchall()]
        store.put(paths[1 if one.fetch1("code").int == 5 else -1], b"damaged")
    return Sample


def test_an_interrupted_check_goes_on_where_it_was(
    schema: Any, sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "state" / "check.json", list[tuple[str, int, int]]()
    whole = list(check_schema(schema, read_data=True))
    assert len(whole) == 2

    def interrupted(place: str, done: int, total: int) -> None:
        seen.append((place, done, total))
        if place.endswith("trace") and done == 25:
            raise KeyboardInterrupt

    found: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(check_schema(schema, read_data=True, progress=interrupted, bookmark=file))
    assert seen[-1] == (f"{sample().name}.trace", 25, 40)
    said, rest = list[str](), list[tuple[str, int, int]]()
    again = check_schema(
        schema,
        read_data=True,
        say=said.append,
        progress=lambda *done: rest.append(done),
        bookmark=file,
    )
    assert list(again) == whole
    assert rest[0] == (f"{sample().name}.trace", 26, 40)
    assert len(rest) == 15 + 40
    assert str(file) in said[0]
    assert not file.exists()
    # Of another kind of check, and of one that came to its end, nothing is left.
    with pytest.raises(KeyboardInterrupt):
        list(check_schema(schema, progress=interrupted, bookmark=file))
    monkeypatch.setattr(integrity, "SECONDS", 0.0)
    assert list(check_schema(schema, read_data=True, bookmark=file)) == whole
    # A file that cannot be written costs the going on alone.
    said.clear()
    unwritable = tmp_path / "file" / "check.json"
    unwritable.parent.touch()
    again = check_schema(schema, read_data=True, say=said.append, bookmark=unwritable)
    assert list(again) == whole
    assert f"{unwritable} cannot be written" in said[0]


@pytest.mark.parametrize("key", ["kind : enum('b', 'a')", "number : float32", ""])
def test_keys_that_cannot_be_gone_on_from_are_checked_too(schema: Any, key: str) -> None:
    @schema
    class Odd(dj.Manual):
        definition = f"{key}\n---\nvalue : <blob@>"

    rows = [("a", [1]), ("b", [2])] if "enum" in key else [(0.1, [1]), (0.2, [2])]
    Odd.insert(rows if key else [([1],)])
    store = schema.connection.stores.get()
    for path in list(store.list("_hash")):
        store.put(path, b"damaged")
    assert len(list(check_schema(schema, read_data=True))) == len(Odd())


def test_a_store_that_is_not_reached_is_no_damage(
    schema: Any, sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = schema.connection.stores.get(), tmp_path / "check.json"
    get = store.get

    def lost(path: str) -> bytes:
        raise dj.TransientError(f"{path} cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", lost)
        with pytest.raises(dj.TransientError):
            list(check_schema(schema, read_data=True, bookmark=file))
    assert store.get == get
    assert len(list(check_schema(schema, read_data=True, bookmark=file))) == 2


def test_objects_of_a_server_are_read_at_once(
    schema: Any, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = schema.connection.stores.get()
    monkeypatch.setattr(store, "local_path", lambda _: None)
    # Two that meet once are enough. A barrier for every pair may strand one: its partner is not
    # asked for before its own result has come.
    inside, change, met = list[str](), threading.Lock(), threading.Event()
    get = store.get

    def together(path: str) -> bytes:
        if path.startswith("_hash"):
            with change:
                inside.append(path)
                if len(inside) == 2:
                    met.set()
            met.wait(PATIENCE)
            with change:
                inside.remove(path)
        return get(path)

    monkeypatch.setattr(store, "get", together)
    assert len(list(check_schema(schema, read_data=True))) == 2
    assert met.is_set()
