"""What the first bytes of a blob tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dj_dagster.objects.blob.format import MatCell
from dj_dagster.objects.blob.reader import blob_summary
from dj_dagster.objects.blob.writer import pack


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((300, 400)), "float64 array 300 × 400, 960 kB"),
        (np.random.default_rng(0).random((50, 60)), "float64 array 50 × 60, 24 kB"),
        (np.ones(900, "c8"), "complex64 array 900, 7.2 kB"),
        (np.array(["a", "b"]), "object array 2"),
        (np.array([1, "a", None], dtype=object), "object array 3"),
        (np.zeros(3, [("x", "f4"), ("y", "i2")]), "records: x, y"),
        (np.array([[1, 2]], dtype=object).view(MatCell), "cell array 1 × 2"),
        ([1] * 1000, "list of 1000"),
        ((1, 2), "tuple of 2"),
        ({1, 2, 3}, "set of 3"),
        ({"a": 1}, "dict of 1"),
        ("x" * 5000, "text, 5 kB"),
        (b"x" * 5000, "bytes, 5 kB"),
        (None, "None"),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_the_beginning_tells_what_there_is(value: Any, text: str, compress: bool) -> None:
    blob = pack(value, compress=compress)
    assert blob_summary(blob[:200], len(blob)) == text


def test_bytes_of_another_program_are_bytes() -> None:
    assert blob_summary(b"\x89PNG", 12_000) == "bytes, 12 kB"


@given(st.binary(max_size=200), st.sampled_from([b"", b"mYm\0", b"dj0\0", b"ZL123\0"]))
def test_no_bytes_are_too_odd(tail: bytes, header: bytes) -> None:
    summary = blob_summary(header + tail, len(header + tail))
    assert summary is None or isinstance(summary, str)


@given(st.integers(0, 60))
def test_a_beginning_may_be_too_short(length: int) -> None:
    blob = pack(np.zeros((10, 10), [("a_long_name", "f8"), ("another", "i4")]))
    assert blob_summary(blob[:length], len(blob)) in (
        None,
        f"bytes, {len(blob)} B",
        f"bytes, {len(blob) / 1000:.3g} kB",
        "records: a_long_name, another",
    )
