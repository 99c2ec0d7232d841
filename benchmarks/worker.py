"""One worker of `populate(reserve_jobs=True)`, of either library, that waits for the word.

`benchmarks.machines` runs many as ``python -m benchmarks.worker NAME URL SCHEMA``. It says "ready",
and reads a line; when the keys are made it prints what they took, as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from typing import Any

import sqlalchemy as sa

Key = dict[str, Any]

WARM = 20
"""Keys that there are for each worker to begin with; it makes half of them."""


def declare(name: str, url: sa.URL, database: str) -> tuple[Any, Any, list[int]]:
    """Declare a table of items and one that is computed from it, in a library by its name.

    Returns both tables, and the items that `make` is called with.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DataJoint misses a datajoint.json
        dj: Any = importlib.import_module(name)
    if name == "datajoint":
        dj.logger.setLevel("ERROR")
        address = url.host, url.username, url.password or "", url.port
        connection = dj.Connection(*address)
    else:
        connection = dj.Connection(url, safemode=False)
    schema, calls = dj.Schema(database, connection=connection), []

    class Item(dj.Manual):
        definition = "item : int32"

    class Measured(dj.Computed):
        definition = """
        -> Item
        ---
        number : int32
        """

        def make(self, key: Key) -> None:
            calls.append(key["item"])
            self.insert1({**key, "number": 1})

    return schema(Item), schema(Measured), calls


def main() -> None:
    """Wait, and populate."""
    name, url, database = sys.argv[1:]
    _, measured, calls = declare(name, sa.make_url(url), database)
    # As in a worker that asks again and again, what is loaded once was loaded before.
    measured.populate(reserve_jobs=True, max_calls=WARM // 2)
    calls.clear()
    print("ready", flush=True)
    sys.stdin.readline()
    began, busy = time.perf_counter(), time.process_time()
    measured.populate(reserve_jobs=True)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    print(json.dumps({"seconds": seconds, "cpu": cpu, "calls": calls}), flush=True)


if __name__ == "__main__":
    main()
