"""A damaged value spoils its own cell of a display, and is an error that names its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dj_dagster as dj

DEEP = "[" * 100_000
OF_SIZE = '{"path": "a", "size": %s}'
ENDLESS = (OF_SIZE % "1e400", OF_SIZE % ("1" + 400 * "0"))
DAMAGES = [
    *((name, OF_SIZE % size) for size in ('"many"', "[1]") for name in ("file", "kept")),
    ("array", '{"path": "a", "dtype": "no type", "shape": [1]}'),
    ("array", '{"path": "a", "dtype": "float64", "shape": "wide"}'),
    ("packed", b"dj0\0\x04\xff\xff\xff\xff\xff\xff\xff\xff"),
]
ONLY_SQLITE = [
    *((name, size) for size in ENDLESS for name in ("file", "kept")),
    *((name, DEEP) for name in ("array", "file", "kept", "options")),
    *((name, b"\xff\xfeA") for name in ("array", "note", "options", "born", "who")),
    ("born", "yesterday"),
    ("who", "nobody"),
    ("price", "dear"),
    ("array", 17),
    ("given", 10**13),
    *((name, "zzz") for name in ("count", "gain", "short", "taken", "good", "side")),
    *((name, b"\1") for name in ("count", "gain", "good", "side")),
    ("count", 1.5),
    ("good", 7),
]


@pytest.fixture
def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        item_id : int32
        ---
        title : varchar(30)
        array = null : <npy@>
        file = null : <object@>
        kept = null : <blob@>
        packed = null : <blob>
        given = null : <attach>
        options = null : json
        note = null : varchar(30)
        born = null : date
        who = null : uuid
        price = null : decimal(9,2)
        count = null : int32
        gain = null : float64
        short = null : float32
        taken = null : year
        good = null : bool
        side = null : enum('left', 'right')
        """

    Item.insert(
        {
            "item_id": n,
            "title": f"title {n}",
            "array": np.arange(5),
            "file": b"bytes",
            "kept": [n],
            "packed": [n],
            "options": {"a": n},
            "born": "2024-01-31",
            "who": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "price": 3,
            "count": n,
            "gain": n,
            "short": n,
            "taken": 2026,
            "good": True,
            "side": "left",
        }
        for n in (1, 2, 3)
    )
    return Item


def damage(item: Any, name: str, stored: Any) -> None:
    text = isinstance(stored, bytes) and name != "packed"
    value = "CAST(%s AS TEXT)" if text else "%s"
    table = item.connection.backend.full_name(item().name)
    item.connection.query(f"UPDATE {table} SET {name} = {value} WHERE item_id = 2", (stored,))


def cases(item: Any) -> list[tuple[str, Any]]:
    return [*DAMAGES, *(ONLY_SQLITE if item.connection.backend.name == "sqlite" else [])]


def test_the_other_cells_are_shown_and_the_damaged_one_says_what_is_wrong(item: Any) -> None:
    for name, stored in cases(item):
        damage(item, name, stored)
        html = item()._repr_html_()
        for shown in (repr(item()), html, item.preview(width=100)):
            assert all(f"title {n}" in shown for n in (1, 2, 3)), (name, stored)
            assert shown.count("(cannot be read) ") == 1, (name, stored)
        reason = html.partition("(cannot be read) ")[2].partition("</td>")[0]
        assert len(reason) > 10
        repair(item, name)
        assert "cannot be read" not in repr(item())


def repair(item: Any, name: str) -> None:
    """Set a damaged value to null."""
    table = item.connection.backend.full_name(item().name)
    item.connection.query(f"UPDATE {table} SET {name} = NULL WHERE item_id = 2")


def test_reading_a_damaged_value_names_table_attribute_and_row(item: Any) -> None:
    for name, stored in cases(item):
        if name == "file":
            continue
        damage(item, name, stored)
        reads = [item.to_dicts, lambda name=name: item.to_arrays(name), lambda: list(item())]
        for read in reads:
            with pytest.raises(dj.DataJointError, match=rf"item\.{name}\b.*item_id=2"):
                read()
        repair(item, name)
        assert len(item.to_dicts()) == 3


def test_half_a_character_can_be_shown_and_is_kept(item: Any) -> None:
    try:
        damage(item, "options", '"half \\udc80"')
    except dj.QueryError:
        # Servers take none.
        assert item.connection.backend.name != "sqlite"
        return
    for shown in (repr(item()), item()._repr_html_()):
        assert rb"half \udc80" in shown.encode()
    assert (item & {"item_id": 2}).fetch1("options") == "half \udc80"
    texts = (item & {"item_id": 2}).to_pandas()["options"]
    assert texts.tolist() == ["half \udc80"]
