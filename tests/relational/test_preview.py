"""Previews of queries, in text and in HTML."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import dj_dagster as dj


@pytest.fixture
def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        # things <of> all kinds
        id : int32          # a "number" <b>
        side : varchar(60)
        ---
        note = null : varchar(400)
        who = null : uuid
        b = null : <blob>
        kept = null : <blob@>
        """

    Item.insert(
        [
            (2, "left", "two\nlines", None, [1, 2], [3]),
            (1, "<i>&'\"", None, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", None, None),
        ]
    )
    return Item


def test_text(item: Any) -> None:
    comment, titles, rule, first, second, count = item.preview().splitlines()
    assert comment == "# things <of> all kinds"
    assert re.split(r"\s{2,}", titles) == ["*id", "*side", "note", "who", "b", "kept"]
    assert set(rule) == {"-", " "}
    assert re.split(r"\s{2,}", first)[:3] == ["1", "<i>&'\"", "None"]
    assert re.split(r"\s{2,}", second)[2] == "two lines"
    assert re.split(r"\s{2,}", first)[-2:] == ["None", "None"]
    assert second.endswith("list of 2  25 B in local")
    assert count == "(2 rows)"
    assert repr(item()) == item.preview()
    assert "6ba7b810-9dad-11d1-80b4…" in item.preview()
    assert "6ba7b810-9dad-11d1-80b4-00c04fd430c8" in item.preview(width=40)
    assert "(1 row)" in repr(item & {"id": 1})


def test_what_moves_the_cursor_is_escaped_in_text(item: Any) -> None:
    note = "\x1b]0;title\x07\x9b1A\r\t\u202eabc"
    item.update1({"id": 2, "side": "left", "note": note})
    assert r"\x1b]0;title\x07\x9b1A\r\t\u202eabc" in item.preview(width=80)
    assert not set(note[:1] + note[-4] + "\x07\x9b\r\t") & set(repr(item()))
    assert note[:12] in item()._repr_html_()


def test_html_is_escaped(item: Any) -> None:
    html = item()._repr_html_()
    assert "&lt;i&gt;&amp;&#x27;&quot;" in html
    assert "<i>" not in html
    assert "<caption>things &lt;of&gt; all kinds</caption>" in html
    assert "a &quot;number&quot; &lt;b&gt;" in html
    assert html.count('class="dj-key"') == 2
    assert "&lt;blob@&gt;" in html
    assert "2 rows" in html
    odd = item.proj(**{"<script>": "id + 1"})._repr_html_()
    assert "<script>" not in odd
    assert "&lt;script&gt;" in odd


def test_limits(item: Any) -> None:
    item.insert([{"id": n, "side": "x" * 60} for n in range(10, 60)])
    assert "\n...\n(52 rows)" in repr(item())
    assert len(item.preview().splitlines()) == 3 + 12 + 2
    assert len(item.preview(limit=2, width=9).splitlines()) == 3 + 2 + 2
    assert "xxxxxxxx…" in item.preview(width=9)
    assert "..." not in item.preview(limit=52)
    assert "<p>...</p>" in item()._repr_html_()
    item.connection.display.limit = 3
    item.connection.display.show_tuple_count = False
    assert repr(item()).splitlines()[-1] == "..."
    assert item()._repr_html_().count("<tr>") == 1 + 3
    assert "rows" not in item()._repr_html_()
    with pytest.raises(dj.QueryError, match="limit"):
        item.preview(limit=-1)


def test_every_kind_of_query(item: Any) -> None:
    best = item & dj.Top(2, "id DESC")
    lines = best.preview().splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["2", "1"]
    assert "(2 rows)" in repr(best)
    assert "*side" in repr(dj.U("side") & item)
    assert "twice" in repr(item.proj(twice="2 * id"))
    assert "(0 rows)" in repr(item & {"id": 9})
    assert "0 rows" in (item & {"id": 9})._repr_html_()


def test_what_cannot_be_read(item: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    on_sqlite = item.connection.backend.name == "sqlite"
    # MySQL keeps 16 bytes in any uuid, SQLite keeps what it is given.
    damaged = "b = x'6D596D0041'"  # an array of which all but the type is missing
    values = f"{damaged}, who = 'none'" if on_sqlite else damaged
    with item.connection.cursor() as session:
        session.execute(sa.text(f"UPDATE {item.full_table_name} SET {values}"))
    for shown in (repr(item()), item()._repr_html_()):
        assert "left" in shown
        assert "2 rows" in shown
        assert shown.count("(cannot be read)") == (4 if on_sqlite else 2)
    for name in ("b", "who", "kept") if on_sqlite else ("b", "kept"):
        with pytest.raises(dj.DataJointError, match=rf"item\.{name}"):
            item.to_arrays(name)


@pytest.fixture
def recording(schema: Any, tmp_path: Path) -> Any:
    @schema
    class Recording(dj.Manual):
        definition = """
        id : int32
        ---
        trace = null : <blob>
        movie = null : <blob@>
        mask = null : <npy@>
        folder = null : <object@>
        notes = null : <attach>
        raw = null : bytes
        """

    folder = tmp_path / "session.zarr"
    folder.mkdir()
    (folder / "a").write_bytes(b"12345")
    notes = tmp_path / "notes.txt"
    notes.write_text("all went well")
    Recording.insert1(
        {
            "id": 1,
            "trace": np.sin(np.arange(500.0)),
            "movie": np.zeros((20, 30, 40), "u2"),
            "mask": np.ones((5, 6), bool),
            "folder": folder,
            "notes": notes,
            "raw": b"abc",
        }
    )
    return Recording


def test_what_codecs_hold_is_described_without_reading_it(recording: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    shown = recording.preview(width=60).splitlines()[2]
    assert re.split(r"\s{2,}", shown) == [
        "1",
        "float64 array 500, 4 kB",
        "108 B in local",
        "bool array 5 × 6, 30 B",
        ".zarr folder of 1 file, 5 B in local",
        "notes.txt, 13 B",
        "bytes, 3 B",
    ]
    assert not (tmp_path / "notes_1.txt").exists()


def test_small_arrays_are_pictured_in_html(recording: Any) -> None:
    html = recording()._repr_html_()
    assert html.count('<img src="data:image/png;base64,') == 1
    recording.insert1({"id": 2, "trace": np.random.default_rng(1).random(100_000)})
    html = recording()._repr_html_()
    assert "float64 array 100000, 800 kB" in html
    assert html.count("<img") == 1
