from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from tests.objects.equality import same

PLAIN = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16")
UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
NUMBERS = [np.dtype(name) for name in (*PLAIN, *(f"M8[{unit}]" for unit in UNITS))]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary(max_size=40)
    | st.decimals()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.uuids()
)
KEYS = st.none() | st.integers() | st.text() | st.tuples(st.integers(), st.text()) | st.uuids()

ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: st_np.arrays(dtype, st_np.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


def _object_array(items: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def _containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(values, max_size=4)
    # An object array turns a zero-dimensional array into a scalar by itself.
    return (
        several
        | several.map(tuple)
        | several.map(_object_array)
        | st.dictionaries(KEYS, values, max_size=4)
        | st.sets(KEYS, max_size=4)
    )


VALUES = st.recursive(SCALARS | ARRAYS.map(lambda array: array[()]), _containers, max_leaves=12)

# numpy drops NULs at the end, and Python does not encode half a surrogate pair.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=7)
FIELDS = st.lists(
    st.tuples(st.text("ab_é", min_size=1), st.sampled_from(NUMBERS)),
    min_size=1,
    max_size=4,
    unique_by=lambda field: field[0],
)

THOROUGH = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@THOROUGH
@given(VALUES)
def test_values_come_back_as_they_went_in(value: Any):
    assert same(unpack(pack(value)), value)


@THOROUGH
@given(ARRAYS)
def test_arrays_come_back_bit_by_bit_whatever_their_memory_layout(array: np.ndarray[Any, Any]):
    for layout in (array, np.asfortranarray(array), array[..., ::-1] if array.ndim else array):
        read = unpack(pack(layout))
        assert same(np.asarray(read), np.asarray(layout))


@THOROUGH
@given(st_np.arrays("U7", st_np.array_shapes(min_dims=0), elements=WORDS))
def test_unicode_arrays_come_back_as_arrays_of_str(array: np.ndarray[Any, Any]):
    assert same(unpack(pack(array)), np.asarray(array.astype(object)))


@THOROUGH
@given(FIELDS.flatmap(lambda f: st_np.arrays(np.dtype(f), st_np.array_shapes(min_dims=0))))
def test_records_come_back_field_by_field(array: np.ndarray[Any, Any]):
    read = unpack(pack(array))
    assert isinstance(read, np.recarray)
    assert read.dtype.names == array.dtype.names
    for name in array.dtype.names:
        assert same(np.asarray(read[name]), np.asarray(array[name]))
