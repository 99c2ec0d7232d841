"""Queries along many foreign keys, in pipelines of many steps."""

from __future__ import annotations

from typing import Any

import pytest

import dj_dagster as dj

STEPS = 20


def declare(schema: Any, *, by_key: bool) -> list[Any]:
    """Declare tables that refer to each other in a chain, by their keys or beside them."""

    def step(number: int) -> type[dj.Manual]:
        own = f"step{number} : int32"
        parent = f"-> Step{number - 1}"
        lines = [own] if number == 0 else [parent, "---"] if by_key else [own, "---", parent]
        return type(f"Step{number}", (dj.Manual,), {"definition": "\n".join(lines)})

    tables: dict[str, Any] = {}
    for number in range(STEPS):
        table = schema(step(number), context=tables)
        tables[table.__name__] = table
        table.insert(dict.fromkeys(table.heading.names, item) for item in (1, 2))
    return list(tables.values())


@pytest.fixture(params=[True, False], ids=["by key", "beside the key"])
def chain(request: pytest.FixtureRequest, schema: Any) -> list[Any]:
    return declare(schema, by_key=request.param)


def test_rows_are_followed_from_end_to_end(chain: list[Any], schema: Any) -> None:
    first, last = chain[0] & {"step0": 1}, chain[-1] & {chain[-1].primary_key[0]: 1}
    once = {table.full_table_name: 1 for table in chain}
    assert dj.Diagram.trace(last).counts() == once
    assert dj.Diagram.cascade(first).counts() == once
    assert dj.Diagram(schema).restrict(first).counts() == once
    assert first.delete(dry_run=True) == once
    first.delete(prompt=False)
    assert [len(table()) for table in chain] == [1] * STEPS
    assert set(chain[-1].to_arrays(*chain[-1].primary_key)) == {2}
