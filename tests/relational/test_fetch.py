"""Fetching: the forms that rows come out in, their order, and previews."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dj_dagster as dj


@pytest.fixture
def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        # things <of> all kinds
        id : int64
        side : varchar(8)
        ---
        n = null : int64        # a "count" <b>
        x = null : float64
        t = null : datetime
        d = null : decimal(5, 1)
        flag = False : bool
        b = null : <blob>
        """

    big = 2**53 + 1
    Item.insert(
        [
            (2, "left", big, 0.5, datetime(2026, 1, 2), "1.5", True, np.arange(3)),
            (1, "<i>&", None, None, None, None, False, np.arange(3) + 1),
            (1, "right", -big, 1, datetime(1000, 1, 1), "2", True, None),
        ]
    )
    return Item


def test_dicts(item: Any) -> None:
    first = item.to_dicts(order_by="KEY", limit=1)[0]
    assert np.array_equal(first.pop("b"), [1, 2, 3])
    assert first == {
        "id": 1, "side": "<i>&", "n": None, "x": None, "t": None, "d": None, "flag": False,
    }  # fmt: skip
    assert [row["id"] for row in item] == [row["id"] for row in item.to_dicts()]
    assert {"id": 2} in item
    assert {"id": 5} not in item


def test_order_limit_and_offset(item: Any) -> None:
    def sides(**options: Any) -> list[str]:
        return [row["side"] for row in item.to_dicts(**options)]

    assert sides(order_by="KEY") == ["<i>&", "right", "left"]
    assert sides(order_by="KEY DESC") == ["left", "right", "<i>&"]
    assert sides(order_by=["id desc", "side DESC"]) == ["left", "right", "<i>&"]
    assert sides(order_by="side asc", limit=2) == ["<i>&", "left"]
    assert sides(order_by="side", offset=1) == ["left", "right"]
    assert sides(order_by="side", limit=1, offset=2) == ["right"]
    assert sides(order_by="side", limit=0) == []
    with pytest.raises(dj.QueryError, match="sideways"):
        sides(order_by="side sideways")
    assert item.keys(order_by="KEY", limit=1) == [{"id": 1, "side": "<i>&"}]
    assert [row["side"] for row in item.head(2)] == ["<i>&", "right"]
    assert [row["side"] for row in item.tail(2)] == ["right", "left"]


def test_arrays(item: Any) -> None:
    numbers, x, t, d, flag, b = item.to_arrays("n", "x", "t", "d", "flag", "b", order_by="KEY")
    assert numbers.tolist() == [None, -(2**53) - 1, 2**53 + 1]
    assert [a.dtype.kind for a in (numbers, x, t, d, flag, b)] == ["O", "f", "O", "O", "b", "O"]
    assert d.tolist() == [None, Decimal("2.0"), Decimal("1.5")]
    assert (item & "n is not null").to_arrays("n").dtype == np.int64
    assert (item & "x is not null").to_arrays("x").dtype == np.float64
    # Blobs of one shape do not become a matrix.
    blobs = (item & "side <> 'right'").to_arrays("b", order_by="KEY")
    assert (blobs.shape, blobs.dtype) == ((2,), object)
    assert [array.tolist() for array in blobs] == [[1, 2, 3], [0, 1, 2]]
    records = item.to_arrays(order_by="KEY")
    assert records.side.tolist() == ["<i>&", "right", "left"]
    assert records.dtype.names == tuple(item.heading.names)
    assert len((item & "id = 9").to_arrays("n")) == 0
    assert len((item & "id = 9").to_arrays()) == 0


def test_pandas(item: Any) -> None:
    frame = item.to_pandas(order_by="KEY")
    assert list(frame.index.names) == ["id", "side"]
    assert frame["n"].tolist() == [None, -(2**53) - 1, 2**53 + 1]
    assert frame["x"].isna().tolist() == [True, False, False]
    assert frame["flag"].tolist() == [False, True, True]
    assert frame.loc[(2, "left"), "t"] == pd.Timestamp(2026, 1, 2)
    assert frame.loc[(2, "left"), "b"].tolist() == [0, 1, 2]
    empty = (item & "id = 9").to_pandas()
    assert (len(empty), list(empty.columns)) == (0, ["n", "x", "t", "d", "flag", "b"])
    item.insert(frame.drop(columns="b").reset_index().assign(id=lambda rows: rows["id"] + 10))
    assert (item & "id = 12").fetch1("n") == 2**53 + 1


def test_fetch1(item: Any) -> None:
    left = item & {"side": "left"}
    assert left.fetch1("n") == 2**53 + 1
    assert left.fetch1("id", "x") == (2, 0.5)
    assert left.fetch1()["d"] == Decimal("1.5")
    with pytest.raises(dj.QueryError, match=r"no row"):
        (item & {"id": 9}).fetch1()
    with pytest.raises(dj.QueryError, match=r"lab\.item has 3 rows"):
        item.fetch1()
    with pytest.raises(dj.UnknownAttributeError, match=r"'nosuch'.*id, side"):
        left.fetch1("nosuch")


def test_blob_after_a_rename_and_a_join(item: Any) -> None:
    renamed = (item & "id = 2").proj(image="b")
    assert renamed.fetch1("image").tolist() == [0, 1, 2]
    joined = renamed * item.proj(z="x + 1")
    assert joined.fetch1("image", "z")[1] == 1.5
    assert len(joined & "z > 1") == 1
