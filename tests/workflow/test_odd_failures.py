"""Keys that fail in odd ways, or are not due: none of them stops the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.workflow.jobs import STATUSES
from dj_dagster.workflow.populate import pending_keys, populate_keys
from tests.lab import connect


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Nothing(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return None  # pyright: ignore[reportReturnType]


class Leaving(Exception):
    """Its text ends the process."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Closed(Exception):
    """It can be neither read nor sent to another process, and takes no notes."""

    def __str__(self) -> str:
        raise KeyError("text")

    def __reduce__(self) -> Any:
        raise SystemExit("not sent")

    def add_note(self, note: str) -> None:
        raise TypeError(note)


class Unhelpful(str):
    """A text that cannot be used."""

    def __len__(self) -> int:
        raise ValueError("no length")

    def __str__(self) -> str:
        raise ValueError("no text")

    __format__ = __repr__ = __str__  # pyright: ignore[reportAssignmentType]


class Worded(Exception):
    """Its text cannot be used."""

    def __str__(self) -> str:
        return Unhelpful("a text")


class Aside(BaseException):
    """It is no `Exception`, as the timeouts and cancellations of some libraries."""


_ODD_PLACE: Any = ("f", "line", "column", 3)

ODD = {
    "mute": Mute,
    "nothing": Nothing,
    "leaving": Leaving,
    "closed": Closed,
    "half a letter": lambda: ValueError("\ud800"),
    "long": lambda: ValueError("x" * 100_000),
    "worded": Worded,
    "aside": lambda: Aside("too late"),
    "cancelled": asyncio.CancelledError,
    "generator": lambda: GeneratorExit("done"),
    "group": lambda: ExceptionGroup("several", [ValueError("one"), Mute(), Worded()]),
    "other group": lambda: BaseExceptionGroup("several", [Aside("too late"), ValueError("one")]),
    "no place": lambda: SyntaxError("bad", _ODD_PLACE),
}


@pytest.fixture
def item(schema: Any) -> Any:
    @schema
    class Item(dj.Manual):
        definition = """
        item : int32
        """

    Item.insert([(n,) for n in (1, 2, 3)])
    return Item


def made(schema: Any, act: Any) -> Any:
    """Declare a table whose make does something before it inserts item 2."""

    class Made(dj.Computed):
        definition = """
        -> Item
        """

        def make(self, key: dict[str, Any]) -> None:
            if key["item"] == 2:
                act()
            self.insert1(key)

    return schema(Made)


def items(table: Any) -> list[int]:
    return table.to_arrays("item", order_by="KEY").tolist()


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("options", [{}, {"reserve_jobs": True}, {"processes": 2}])
def test_an_error_without_a_text_fails_its_key_alone(
    schema: Any, item: Any, kind: str, options: dict[str, Any]
) -> None:
    def fail() -> None:
        raise ODD[kind]()

    table = made(schema, fail)
    done = table.populate(suppress_errors=True, **options)
    assert items(table) == [1, 3]
    assert done["success_count"] == 2
    ((key, text),) = done["error_list"]
    assert key == {"item": 2}
    assert text.startswith(type(ODD[kind]()).__name__)
    if options.get("reserve_jobs"):
        (job,) = table.jobs.errors.to_dicts()
        assert job["error_message"].startswith(type(ODD[kind]()).__name__)
        assert "Traceback" in job["error_stack"]
    expected = type(ODD[kind]())
    # One that cannot be sent from another process comes as an error of its name.
    with pytest.raises((expected, dj.PopulateError)) as raised:
        table.populate(**{**options, "reserve_jobs": False})
    assert type(raised.value).__name__ == expected.__name__


@pytest.mark.parametrize(
    "interrupt",
    [KeyboardInterrupt(), BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt()])],
)
def test_an_interrupt_ends_populate_and_gives_the_key_back(
    schema: Any, item: Any, interrupt: BaseException
) -> None:
    def fail() -> None:
        raise interrupt

    table = made(schema, fail)
    with pytest.raises(type(interrupt)):
        table.populate(suppress_errors=True, reserve_jobs=True)
    assert items(table) == [1]
    assert table.jobs.progress() | {"pending": 0} == {**dict.fromkeys(STATUSES, 0), "total": 2}


@pytest.mark.parametrize("options", [{}, {"reserve_jobs": True}, {"processes": 2}])
def test_the_error_of_populate_names_table_and_key(
    schema: Any, item: Any, options: dict[str, Any]
) -> None:
    def fail() -> None:
        raise ValueError("no signal")

    table = made(schema, fail)
    with pytest.raises(ValueError, match="no signal") as raised:
        table.populate(**options)
    assert str(raised.value) == "no signal"
    assert "While Made was made for {'item': 2}." in raised.value.__notes__


@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("raises", [False, True])
def test_a_key_whose_parent_is_deleted_meanwhile_is_left_out(
    schema: Any, item: Any, database_url: str, tmp_path: Path, reserve: bool, raises: bool
) -> None:
    def act() -> None:
        other = connect(database_url, tmp_path)
        other.query(f"DELETE FROM {item.full_table_name} WHERE item = 2")
        other.close()
        if raises:
            raise LookupError("nothing there any more")

    table = made(schema, act)
    assert table.populate(reserve_jobs=reserve) == {"success_count": 2, "error_list": []}
    assert items(table) == [1, 3]
    assert table.jobs.progress()["total"] == 0


@pytest.mark.parametrize("options", [{}, {"processes": 2}])
def test_a_job_that_is_not_due_is_left_alone(
    schema: Any, item: Any, options: dict[str, Any]
) -> None:
    table = made(schema, lambda: None)
    (item & {"item": 3}).delete_quick()
    assert table.jobs.refresh(delay=3600)["added"] == 2
    item.insert1((3,))
    keys = item.keys()
    assert table.populate(keys=keys[:2], reserve_jobs=True, **options)["success_count"] == 0
    assert [key["item"] for key in pending_keys(table())] == [3]
    statuses = {o.key["item"]: o.status for o in populate_keys(table(), keys)}
    assert statuses == {1: "reserved", 2: "reserved", 3: "made"}
    assert table.populate(reserve_jobs=True, **options)["success_count"] == 0
    assert len(table.jobs.pending) == 2
    # Without the queue there is nothing to wait for.
    assert table.populate()["success_count"] == 2
