"""Blobs: the same bytes from both libraries, and each reads the other's."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from tests.objects.equality import same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from datajoint import blob as theirs

arrays = npst.arrays(
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "c16", "c8"]),
    npst.array_shapes(min_dims=0, max_dims=3, max_side=4),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.decimals(allow_nan=False, allow_infinity=False).map(Decimal),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    arrays,
)
hashable = st.one_of(st.integers(), st.text(max_size=5))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner, max_size=4),
        st.frozensets(hashable, max_size=4).map(set),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_both_pack_to_the_same_bytes(value: Any) -> None:
    ours, packed_by_them = pack(value, compress=False), theirs.pack(value, compress=False)
    assert ours == packed_by_them


@pytest.mark.parametrize("value", [np.zeros(10_000), ["text"] * 1000])
def test_both_read_what_the_other_has_compressed(value: Any) -> None:
    assert len(pack(value)) < len(pack(value, compress=False))
    assert same(unpack(theirs.pack(value)), value)
    assert np.array_equal(theirs.unpack(pack(value)), value)
