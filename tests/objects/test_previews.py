from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from dj_dagster.objects.previews import HEIGHT, WIDTH, preview


def pixels(value: Any) -> np.ndarray[Any, Any]:
    uri = preview(value).data_uri
    assert uri is not None
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return matplotlib.image.imread(io.BytesIO(data), format="png")


def test_an_image_is_scaled_down():
    image = np.zeros((500, 1000), "u2")
    image[:250] = 60_000
    small = pixels(image)
    assert small.shape == (HEIGHT, WIDTH)
    assert (small[0, 0], small[-1, 0]) == (1.0, 0.0)


def test_a_trace_is_drawn():
    trace = np.zeros(10_000)
    trace[5000:] = 1
    drawn = pixels(trace) < 0.5
    assert drawn[-1, 0]
    assert drawn[0, -1]
    assert not drawn[0, 0]


@pytest.mark.parametrize("value", [np.full(5, np.nan), np.zeros((2, 2)), np.array([1, np.inf])])
def test_unusual_numbers_are_drawn_too(value: np.ndarray[Any, Any]):
    assert pixels(value).size > 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 4), "f4"), "float32 array 3 × 4, 48 B"),
        (np.array(3), "int64 array scalar, 8 B"),
        ({"a": 1, "b": 2}, "dict of 2: a, b"),
        ([1, 2, 3], "list of 3"),
        (b"x" * 2500, "bytes, 2.5 kB"),
        ("x" * 100, "'" + "x" * 78 + "…"),
        (None, "None"),
    ],
)
def test_values_are_described(value: Any, text: str):
    assert preview(value).text == text


def test_what_has_no_picture_has_none():
    for value in (np.array(["a", "b"]), np.zeros((2, 2, 2)), [1, 2]):
        assert preview(value).data_uri is None
        assert preview(value).markdown == preview(value).text
