"""Each value comes back equal, or is refused by name; see `tests.relational.stored_values`."""

from __future__ import annotations

import random
from pathlib import Path

from tests.relational.stored_values import COLUMNS, launchpad, walking
from tests.relational.type_values import documented_types, makers


def test_the_documentation_tells_of_each_type() -> None:
    assert documented_types() == set(makers(rounds=False))


def test_values_come_back_equal_or_are_refused(
    database_url: str, schema_prefix: str, tmp_path: Path, seed_of_commit: int
) -> None:
    with walking(database_url, f"{schema_prefix}lab", tmp_path) as walk:
        found = list(walk.differences(random.Random(seed_of_commit), 6))
        (row,) = launchpad(walk, [("bytes", "h\u00e9llo")])
        assert row[COLUMNS["bytes"]] == "h\u00e9llo".encode()
    assert not found, f"seed {seed_of_commit}"
