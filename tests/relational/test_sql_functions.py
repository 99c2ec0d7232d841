"""Functions of MySQL in restrictions and projections, on SQLite too."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

import dj_dagster as dj


@pytest.fixture
def visit(schema: dj.Schema) -> Any:
    @schema
    class Visit(dj.Manual):
        definition = """
        visit : int32
        ---
        born : date
        at : datetime(3)
        name : varchar(20)
        score = null : float64
        """

    born = datetime.date(2000, 2, 29)
    at = datetime.datetime(2024, 2, 28, 13, 5, 59, 500000)
    Visit.insert(
        [(1, born, at, "Ada, Countess", 2), (2, born, at, "bob", 4), (3, born, at, "", None)]
    )
    return Visit


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("year(born)", 2000),
        ("MONTH(at)", 2),
        ("day(at)", 28),
        ("dayofweek(at)", 4),
        ("weekday(at)", 2),
        ("dayofyear(at)", 59),
        ("quarter(at)", 1),
        ("hour(at)", 13),
        ("minute(at)", 5),
        ("second('13:05:59')", 59),
        ("datediff(at, born)", 8765),
        ("TIMESTAMPDIFF(YEAR, born, at)", 23),
        ("timestampdiff(month, born, at)", 287),
        ("timestampdiff(day, at, born)", -8765),
        ("timestampdiff(hour, born, at)", 210373),
        ("date_format(at, '%Y/%m/%d %H:%i')", "2024/02/28 13:05"),
        ("monthname(born)", "February"),
        ("concat(name, '-', visit)", "Ada, Countess-1"),
        ("concat(name, null)", None),
        ("concat_ws(' ', name, null, 'x')", "Ada, Countess x"),
        ("if(score > 1, 'high', 'low')", "high"),
        ("substring_index(name, ', ', -1)", "Countess"),
        ("char_length(name)", 13),
        ("locate('count', name)", 6),
        ("greatest(1, visit, 5)", 5),
        ("least(3, visit)", 1),
        ("reverse('abc')", "cba"),
    ],
)
def test_expressions(visit: Any, expression: str, value: Any) -> None:
    assert (visit & "visit = 1").proj(found=expression).fetch1("found") == value


def test_restrictions(visit: Any) -> None:
    assert len(visit & "year(born) = 2000 and name regexp '^a.*s$'") == 1
    assert len(visit & "at < now() and born < curdate()") == 3


def test_spread(visit: Any) -> None:
    found = dj.U().aggr(
        visit, a="std(score)", b="stddev_samp(score)", c="variance(score)", d="var_samp(score)"
    )
    assert found.fetch1() == pytest.approx({"a": 1, "b": 2**0.5, "c": 1, "d": 2})
    assert dj.U().aggr(visit & "visit = 3", a="std(score)").fetch1("a") is None


def test_an_order_of_several_in_one_text(visit: Any) -> None:
    assert visit.to_arrays("visit", order_by="born, visit DESC").tolist() == [3, 2, 1]
    assert [key["visit"] for key in visit.keys(order_by="score DESC,visit")][:2] == [2, 1]
