"""Inserting from files and frames, in chunks, and in the order given."""

from __future__ import annotations

import csv
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dj_dagster as dj


@pytest.fixture
def session(schema: Any) -> Any:
    @schema
    class Session(dj.Manual):
        definition = """
        subject : varchar(12)
        number  : int32
        ---
        day = null     : date
        start = null   : datetime(3)
        score = 0.5    : float64
        good = 1       : bool
        side = 'left'  : enum('left', 'right')
        info = null    : json
        note = ''      : varchar(40)
        """

    return Session


def rows(table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_dicts(order_by="KEY")]


A1 = ("a", 1, date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678_000), 1.5, False, "right")
FRAME = pd.DataFrame(
    {
        "subject": ["a", "b"],
        "number": [1, 2],
        "day": [date(2026, 1, 2), None],
        "start": pd.to_datetime(["2026-01-02 03:04:05.678", None], format="ISO8601"),
        "score": [1.5, np.nan],
        "good": pd.array([False, None], dtype="boolean"),
        "side": pd.Categorical(["right", None]),
    }
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FRAME,
        lambda: FRAME.set_index(["number", "subject"]),
        lambda: pl.from_pandas(FRAME),
        lambda: pa.Table.from_pandas(FRAME),
        lambda: pa.Table.from_pandas(FRAME).to_batches()[0],
        lambda: (row for _, row in FRAME.astype(object).iterrows()),
    ],
    ids=["pandas", "indexed", "polars", "arrow", "batch", "series"],
)
def test_frames(session: Any, make: Any) -> None:
    session.insert(make())
    assert rows(session) == [
        (*A1, None, ""),
        ("b", 2, None, None, 0.5, True, "left", None, ""),
    ]


def test_json_comes_back_from_frames(schema: Any) -> None:
    @schema
    class Note(dj.Manual):
        definition = "n : int32\n---\nj = null : json"

    given = [{"a": ["x", None]}, "5", 5, '"', True, [], None]
    for read in (Note.to_polars, Note.to_arrow, Note.to_pandas):
        Note.insert(enumerate(given))
        frame = read(order_by="KEY")
        Note.delete_quick()
        Note.insert(frame)
        assert Note.to_arrays("j", order_by="KEY").tolist() == given
        Note.delete_quick()
    with pytest.raises(dj.InvalidValueError, match=r"'n': 3.*\.note\.j : json.* not JSON"):
        Note.insert(pl.DataFrame({"n": [3], "j": ["left"]}))


def test_insert_dataframe_round_trips(session: Any) -> None:
    session.insert(FRAME)
    frame = session.to_pandas()
    session.delete_quick()
    session.insert_dataframe(frame)
    assert rows(session)[0][:7] == A1
    session.delete_quick()
    session.insert_dataframe(FRAME, index_as_pk=False)
    assert len(session) == 2
    with pytest.raises(dj.QueryError, match="set_index"):
        session.insert_dataframe(FRAME, index_as_pk=True)
    with pytest.raises(dj.QueryError, match="DataFrame"):
        session.insert_dataframe([{"subject": "a"}])


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


NASTY = """'"; DROP TABLE session; -- \\ %s"""


def test_csv(session: Any, tmp_path: Path) -> None:
    quoted = NASTY.replace('"', '""')
    path = write(
        tmp_path / "a.csv",
        "\ufeffsubject,number,day,start,score,good,side,info,note",
        'a, 1 ,2026-01-02,2026-01-02 03:04:05.678,1.5,False,right,"{""k"": [1]}",ü',
        "",
        f'b,2,,,,,,,"{quoted}"',
    )
    session.insert(path)
    expected = [
        (*A1, {"k": [1]}, "ü"),
        ("b", 2, None, None, 0.5, True, "left", None, NASTY),
    ]
    assert rows(session) == expected
    session.insert(str(path), skip_duplicates=True, chunk_size=1)
    assert rows(session) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["subject,number", "a,1", "b,two"], [r"a\.csv, line 3", "number", "int32", "'two'"]),
        (["subject,number,day", "a,1,2026-02-30"], [r"a\.csv, line 2", "day", "2026-02-30"]),
        (["subject,number,info", "a,1,{"], [r"a\.csv, line 2", "info", "JSON"]),
        (["subject,number,info", 'a,1,"{""k"": 1, ""k"": 2}"'], [r"line 2", "info", "text 'k'"]),
        (["subject,number,info", "a,1," + "[" * 9999], [r"line 2", "info", "too many levels"]),
        (["subject,number,good", "a,1,maybe"], [r"a\.csv, line 2", "good", "maybe"]),
        (["subject,number", "a,1", "b"], [r"a\.csv, line 3", "1 values for 2 names"]),
        (["subject;number", "a,1"], [r"session", "by commas"]),
        (["subject,number", "a,1", ",2", "c,"], [r"a\.csv, line 4", "number"]),
        (["subject,number,colour", "a,1,red"], ["colour", "ignore_extra_fields"]),
        (["subject,number,number", "a,1,1"], [r"a\.csv, line 1", "twice"]),
        (["subject,number", '"a,1'], [r"a\.csv", "cannot be read"]),
        ([""], [r"a\.csv, line 1"]),
    ],
)
def test_bad_csv_names_file_and_line(
    session: Any, tmp_path: Path, lines: list[str], words: list[str]
) -> None:
    with pytest.raises(dj.QueryError) as caught:
        session.insert(write(tmp_path / "a.csv", *lines))
    for word in words:
        assert caught.match(word)
    assert len(session) == 0


def test_missing_or_binary_csv(session: Any, tmp_path: Path) -> None:
    with pytest.raises(dj.QueryError, match="'nowhere' cannot be read: No such file"):
        session.insert("nowhere")
    (tmp_path / "a.csv").write_bytes(b"subject,number\n\xff,1\n")
    with pytest.raises(dj.QueryError, match=r"a\.csv.*cannot be read.*utf-8"):
        session.insert(tmp_path / "a.csv")


def test_chunks_are_written_one_by_one(session: Any) -> None:
    given = [{"subject": "a", "number": n} for n in range(25)]
    given[21]["number"] = "x"
    with pytest.raises(dj.InvalidValueError, match="Of the chunks before, 20 rows are in"):
        session.insert(iter(given), chunk_size=10)
    assert len(session) == 20
    for size in (0, 1.5, "2", True):
        with pytest.raises(dj.QueryError, match=f"chunk_size={size!r} is not a number of rows"):
            session.insert(given, chunk_size=size)


def test_chunks_in_a_transaction_are_all_or_none(session: Any, connection: dj.Connection) -> None:
    given = [{"subject": "a", "number": n} for n in (0, 1, 2, "x")]

    def attempt() -> None:
        with connection.transaction():
            session.insert(given, chunk_size=2)

    with pytest.raises(dj.InvalidValueError) as caught:
        attempt()
    assert "chunks before" not in str(caught.value)
    assert len(session) == 0


def test_rows_that_leave_out_different_values_keep_their_order(schema: Any) -> None:
    @schema
    class Node(dj.Manual):
        definition = """
        id : int32
        ---
        -> [nullable] self.proj(parent='id')
        name = 'none' : varchar(8)
        """

    # Each row refers to the one before, and every other one has no name.
    given = [
        {"id": n, "parent": n - 1 if n else None, **({"name": str(n)} if n % 2 else {})}
        for n in range(50)
    ]
    Node.insert(given)
    assert rows(Node) == [(n, n - 1 if n else None, str(n) if n % 2 else "none") for n in range(50)]


def test_later_row_replaces_earlier_one_of_the_same_call(session: Any) -> None:
    given = [{"subject": "a", "number": 1, "score": 1}, {"subject": "a", "number": 1}]
    session.insert(given, replace=True)
    assert session.fetch1("score") == 0.5
    session.insert(
        [{"subject": "b", "number": 1}, {"subject": "b", "number": 1, "score": 2}],
        skip_duplicates=True,
    )
    assert (session & {"subject": "b"}).fetch1("score") == 0.5
    with pytest.raises(dj.QueryError, match="either replaced or skipped"):
        session.insert(given, replace=True, skip_duplicates=True)


def test_more_rows_than_a_packet_holds(schema: Any) -> None:
    @schema
    class Big(dj.Manual):
        definition = """
        id : int32
        ---
        text : varchar(4000)
        raw : bytes
        """

    # Some 8 MB of text and bytes that have to be escaped, thus several statements.
    text, raw = "ü'\\\0\n" * 800, bytes(range(256)) * 8
    Big.insert({"id": n, "text": text, "raw": raw} for n in range(1200))
    assert len(Big) == 1200
    assert (Big & "id in (0, 1199)").to_dicts(order_by="id") == [
        {"id": n, "text": text, "raw": raw} for n in (0, 1199)
    ]
    Big.delete_quick()
    with pytest.raises(dj.DuplicateError):
        Big.insert([{"id": n % 1199, "text": text, "raw": b""} for n in range(1200)])
    assert len(Big) == 0


def test_progress_bar(session: Any, capfd: pytest.CaptureFixture[str]) -> None:
    given = [{"subject": "a", "number": n} for n in range(4)]
    session.insert(given[:2], display_progress=True)
    assert "session" in capfd.readouterr().err
    session.insert(given[2:])
    assert capfd.readouterr().err == ""


def test_insert1_returns_nothing_and_takes_options(session: Any) -> None:
    assert session.insert1({"subject": "a", "number": 1}) is None
    session.insert1(
        {"subject": "a", "number": 1, "x": 3}, ignore_extra_fields=True, skip_duplicates=True
    )
    session.insert1({"subject": "a", "number": 1, "note": "new"}, replace=True)
    assert session.fetch1("note") == "new"


def test_nothing_is_inserted_from_sources_without_rows(schema: Any, tmp_path: Path) -> None:
    @schema
    class Empty(dj.Manual):
        definition = "number : int32\n---\nlabel = null : varchar(9)"

    (tmp_path / "empty.csv").write_text("number,label\n")
    for rows in (tmp_path / "empty.csv", pd.DataFrame({"number": [], "label": []}), [], iter(())):
        Empty.insert(rows)
        Empty.insert(rows, skip_duplicates=True)
    Empty.insert(pd.DataFrame())
    assert len(Empty()) == 0
    # The names count all the same.
    wrong = pd.DataFrame({"number": [], "lable": []})
    records = np.zeros(0, dtype=[("number", "i4"), ("lable", "i4")])
    for rows in (wrong, pl.from_pandas(wrong), pa.Table.from_pandas(wrong), records):
        with pytest.raises(dj.QueryError, match="lable"):
            Empty.insert(rows)
    for rows in (wrong[[]].assign(label=[]), write(tmp_path / "keyless.csv", "label")):
        with pytest.raises(dj.MissingAttributeError, match="'number'"):
            Empty.insert(rows)


@pytest.mark.parametrize("more", ["", "x" * 140_000])
def test_a_quote_inside_a_value_opens_none(schema: Any, tmp_path: Path, more: str) -> None:
    @schema
    class Pipe(dj.Manual):
        definition = "pipe : int32\n---\nsize : varchar(20)\nnote : mediumtext"

    rows = [f'1,5" wide,{more}', f'2,6",{more}', '3,"7"" and', f'""8"",",{more}']
    Pipe.insert(write(tmp_path / "pipes.csv", "pipe,size,note", *rows))
    sizes = Pipe.to_arrays("size", order_by="pipe").tolist()
    assert sizes == ['5" wide', '6"', '7" and\n"8",']
    assert set(Pipe.to_arrays("note")) == {more}


def test_csv_does_not_depend_on_a_setting_of_the_process(session: Any, tmp_path: Path) -> None:
    before = csv.field_size_limit(5)
    try:
        session.insert(write(tmp_path / "a.csv", "subject,number,note", 'a,1,"longer, ""much"""'))
    finally:
        csv.field_size_limit(before)
    assert session.fetch1("note") == 'longer, "much"'


def test_an_arrow_table_that_has_a_name_twice_is_refused(session: Any) -> None:
    twice = pa.Table.from_arrays(
        [pa.array(["a"]), *[pa.array([1])] * 2], ["subject", *["number"] * 2]
    )
    for rows in (twice, twice.to_batches()[0]):
        with pytest.raises(dj.QueryError, match="the name 'number' twice"):
            session.insert(rows)


def test_records_of_numpy(schema: Any) -> None:
    """Times finer than a microsecond are no integers, and a field of arrays holds arrays."""

    @schema
    class Recording(dj.Manual):
        definition = """
        recording : int32
        ---
        start = null : datetime(6)
        day = null : date
        lasted = null : time(6)
        trace : <blob>
        """

    kinds = [
        ("recording", "i4"),
        ("start", "M8[ns]"),
        ("day", "M8[D]"),
        ("lasted", "m8[ns]"),
        ("trace", "f4", (3,)),
    ]
    start = np.datetime64("2024-01-05T10:00:00.123456789")
    lasted = np.timedelta64(1500, "ms")
    records = np.array(
        [(1, start, start, lasted, (1, 2, 3)), (2, "NaT", "NaT", "NaT", (4, 5, 6))], dtype=kinds
    )
    Recording.insert(records)
    first, second = Recording.to_dicts(order_by="recording")
    assert first["start"] == datetime(2024, 1, 5, 10, 0, 0, 123456)
    assert first["day"] == date(2024, 1, 5)
    assert first["lasted"] == timedelta(seconds=1.5)
    assert (second["start"], second["day"], second["lasted"]) == (None, None, None)
    assert second["trace"].dtype == np.float32
    assert second["trace"].tolist() == [4, 5, 6]
