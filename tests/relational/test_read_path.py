"""The read path is short: few functions of ours stand between a method and the driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dj_dagster as dj

PACKAGE = Path(dj.__file__).parent
MOST = 7

READS: dict[str, Callable[[Any, Any], object]] = {
    "to_dicts of a join": lambda a, b: (a * b & {"a": 1, "b": 1}).to_dicts(),
    "to_dicts": lambda a, b: (b & {"a": 1, "b": 1}).to_dicts(order_by="y", limit=1),
    "to_dicts of a class": lambda a, b: b.to_dicts(),
    "to_arrays": lambda a, b: (b & {"a": 1}).to_arrays("y"),
    "fetch1": lambda a, b: (b & {"a": 1}).fetch1("y"),
    "to_pandas": lambda a, b: (b & {"a": 1}).to_pandas(),
    "keys": lambda a, b: (b & {"a": 1}).keys(),
    "rows one by one": lambda a, b: list(b),
    "len": lambda a, b: len(b & {"a": 1}),
    "bool": lambda a, b: bool(b & {"a": 1}),
    "preview": lambda a, b: (b & {"a": 1}).preview(),
}


def of_ours(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            yield frame.f_code.co_qualname
        frame = frame.f_back


def stacks_at_driver(read: Callable[[], object]) -> list[list[str]]:
    """Return our functions that are on the stack each time the driver runs a statement."""
    found: list[list[str]] = []

    def note(frame: FrameType, event: str, function: Any) -> None:
        of_sqlite = event == "c_call" and type(function.__self__).__module__ == "sqlite3"
        name = function.__name__ if of_sqlite else frame.f_code.co_name
        of_pymysql = event == "call" and Path(frame.f_code.co_filename).parent.name == "pymysql"
        if name == "execute" and (of_sqlite or of_pymysql):
            found.append(list(of_ours(frame)))

    sys.setprofile(note)
    try:
        read()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_few_functions_stand_between_a_read_and_the_driver(
    schema: Any, read: Callable[[Any, Any], object]
) -> None:
    @schema
    class A(dj.Manual):
        definition = "a : int32\n---\nx : float64"

    @schema
    class B(dj.Manual):
        definition = "-> A\nb : int32\n---\ny : varchar(9)"

    A.insert([{"a": 1, "x": 0.5}, {"a": 2, "x": 1.5}])
    B.insert([{"a": 1, "b": 1, "y": "q"}, {"a": 2, "b": 1, "y": "r"}])
    for _ in ("the first time", "with its SQL known"):
        stacks = stacks_at_driver(lambda: read(A, B))
        assert stacks
        assert max(map(len, stacks)) <= MOST, max(stacks, key=len)
