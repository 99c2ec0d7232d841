"""Who is asked before something is deleted."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

import dj_dagster as dj


@pytest.fixture
def item(schema: dj.Schema) -> Any:
    @schema
    class Item(dj.Manual):
        definition = "item : int32"

    Item.insert1((1,))
    return Item


@pytest.mark.parametrize(("answer", "left"), [("yes", 0), ("no", 1), ("", 1)])
def test_a_notebook_asks_in_its_own_way(
    item: Any, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr(builtins, "input", ask)
    assert item.delete(prompt=True) == 1 - left
    assert len(item()) == left
    assert len(asked) == 1


def test_a_notebook_that_runs_by_itself(item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(question: str) -> str:
        raise RuntimeError(f"{question}: no frontend")

    monkeypatch.setattr(builtins, "input", refuse)
    with pytest.raises(dj.DataJointError, match="prompt=False"):
        item.delete(prompt=True)
    assert len(item()) == 1
