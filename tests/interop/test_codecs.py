"""Every codec of the two libraries: each reads what the other has written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.interop.conftest import Libraries
from tests.interop.test_tables import declare

FILE = b"a note"
ARRAY = np.arange(6.0).reshape(2, 3)


def content(value: Any) -> Any:
    """Return what a fetched value stands for, plain enough to compare."""
    if isinstance(value, str):
        return Path(value).read_bytes()
    if hasattr(value, "is_dir"):
        return sorted(value.listdir()) if value.is_dir else value.read()
    if hasattr(value, "load"):
        value = value.load()
    if isinstance(value, dict):
        return {name: content(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


CODECS: dict[str, tuple[Any, Any]] = {
    "<blob>": ({"x": ARRAY, "y": [1, None]}, {"x": ARRAY.tolist(), "y": [1, None]}),
    "<attach>": ("notes.txt", FILE),
    "<blob@main>": ({"x": ARRAY, "y": [1, None]}, {"x": ARRAY.tolist(), "y": [1, None]}),
    "<attach@main>": ("notes.txt", FILE),
    "<hash@main>": (b"\x00bytes", b"\x00bytes"),
    "<object@main>": ("notes.txt", FILE),
    "<npy@main>": (ARRAY, ARRAY.tolist()),
    "<filepath@main>": ("raw/notes.txt", FILE),
}
"""What is inserted, and what it is when it has been fetched, by codec."""

WRITERS = list(itertools.product(CODECS, ("ours", "theirs")))


def on_mariadb(libraries: Libraries) -> bool:
    (version,) = libraries.ours.connection.query("SELECT VERSION()").fetchone()
    return "MariaDB" in version


@pytest.fixture
def folder(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a file, and a file in the store."""
    monkeypatch.chdir(tmp_path)
    (store / "raw").mkdir(exist_ok=True)
    for place in (Path(), store / "raw"):
        (place / "notes.txt").write_bytes(FILE)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("codec", "writer"), WRITERS)
def test_a_value_is_read_by_both(
    libraries: Libraries, declares: str, codec: str, writer: str
) -> None:
    here, there = libraries.pair(declares)
    definition = f"id : int32\n---\nvalue = null : {codec}"
    table = declare(here, libraries.schema, definition)
    other = there.module(libraries.schema).Thing
    given, expected = CODECS[codec]
    write = table if writer == declares else other
    rows = [{"id": 1, "value": given}, {"id": 2, "value": None}]
    if writer == "theirs" and codec in ("<blob@main>", "<attach@main>") and on_mariadb(libraries):
        # Their driver is not told how to pass a dict to a column that MariaDB calls a text.
        with pytest.raises(TypeError, match="dict"):
            write.insert(rows)
        return
    write.insert(rows)
    for read in (table, other):
        assert content((read & "id = 1").fetch1("value")) == expected
        assert (read & "id = 2").fetch1("value") is None
        assert read.heading.names == ["id", "value"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_a_folder_is_read_by_both(libraries: Libraries, writer: str) -> None:
    here, there = libraries.pair(writer)
    Path("scan").mkdir()
    for name in ("a.txt", "b.txt"):
        Path("scan", name).write_bytes(FILE)
    table = declare(here, libraries.schema, "id : int32\n---\nscan : <object@main>")
    table.insert1({"id": 1, "scan": "scan"})
    for read in (table, there.module(libraries.schema).Thing):
        found = read.fetch1("scan")
        assert content(found) == ["a.txt", "b.txt"]
        assert found.open("a.txt").read() == FILE


@pytest.mark.parametrize("codec", ["<blob@>", "<hash@>"])
def test_they_read_what_we_put_into_the_default_store(libraries: Libraries, codec: str) -> None:
    # DataJoint itself has no default store that can be written to.
    table = declare(libraries.ours, libraries.schema, f"id : int32\n---\nvalue : {codec}")
    table.insert1({"id": 1, "value": b"value"})
    assert libraries.theirs.module(libraries.schema).Thing.fetch1("value") == b"value"
