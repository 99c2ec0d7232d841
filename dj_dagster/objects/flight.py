"""Work on many objects at once: stores answer slowly, but many requests at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 16
"""Objects that are on their way at once."""


def in_flight(work: Callable[[T], R], items: Iterable[T], at_once: int = IN_FLIGHT) -> Iterator[R]:
    """Do the same with all items, several at once, and yield the results in the items' order.

    Items are taken as results are asked for, so that no more than twice `at_once` results wait in
    memory. An error is raised where its item's result would be; the items after those that are on
    their way are then left alone.

    Examples
    --------
    >>> list(in_flight(lambda number: number * 2, [1, 2, 3]))
    [2, 4, 6]
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="dj-objects") as pool:
        waiting: deque[Future[R]] = deque(pool.submit(work, item) for item in first)
        waiting.extend(pool.submit(work, item) for item in islice(rest, 2 * at_once - 2))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()
