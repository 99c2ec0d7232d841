"""Random expressions of the algebra against the same operations on plain Python rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dj_dagster as dj
from tests.relational import algebra_reference as reference
from tests.relational.algebra_lab import fill, open_lab, tables
from tests.relational.algebra_reference import Pair, base

ALONE = {
    "restrict": reference.restricted,
    "project": reference.projected,
    "group": reference.grouped,
    "top": reference.topped,
}
TOGETHER = {
    "match": reference.matched,
    "join": reference.joined,
    "extend": reference.extended,
    "aggregate": reference.aggregated,
    "unite": reference.united,
}

FITS = {
    "extend": reference.may_extend,
    "aggregate": reference.may_aggregate,
    "unite": reference.may_unite,
}
"""Where there are such partners, one of them is taken: few pairs would fit by chance."""


def any_pair(pair: Pair, other: Pair) -> bool:
    """Take any partner."""
    del pair, other
    return True


def chain(lab: Any, data: st.DataObject) -> None:
    """Build queries out of queries, each compared with its rows."""
    rows = data.draw(tables)
    fill(lab, rows)
    pairs = [base(lab, rows, name) for name in "ABC"]
    for _ in range(data.draw(st.integers(1, 6))):
        pair = data.draw(st.sampled_from(pairs))
        step = data.draw(st.sampled_from([*ALONE, *TOGETHER]))
        new: Pair | None
        if step in ALONE:
            new = ALONE[step](data.draw, pair)
        else:
            others = [other for other in pairs if FITS.get(step, any_pair)(pair, other)]
            new = TOGETHER[step](data.draw, pair, data.draw(st.sampled_from(others or pairs)))
        if new is not None:
            new.agrees()
            pairs.append(new)


@pytest.fixture(scope="module")
def on_sqlite(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dj.Schema]:
    yield from open_lab("sqlite", "random_lab", request, tmp_path_factory.mktemp("algebra"))


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def on_a_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dj.Schema]:
    yield from open_lab(request.param, "random_lab", request, tmp_path_factory.mktemp("algebra"))


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=300, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_random_chains_on_sqlite(on_sqlite: Any, data: st.DataObject) -> None:
    chain(on_sqlite, data)


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_random_chains_on_a_server(on_a_server: Any, data: st.DataObject) -> None:
    chain(on_a_server, data)
