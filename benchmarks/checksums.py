"""What the checksum costs of an array of 64 MB in ``<npy@>``, by the whole path from row to array.

Run it from the repository: ``uv run python -m benchmarks.checksums``. The database is a SQLite
file, the store a folder beside it. Two rows hold the same array; the reference of one has no
checksum, as DataJoint writes it. They are taken in turns, and the least times are compared: from
the disk, the system told to forget the files, and from the system's cache. Linux only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import dj_dagster as dj
from benchmarks.memory import MEBIBYTE
from dj_dagster.objects import checksums

WITH, WITHOUT = 1, 2
"""The rows with and without a checksum."""


def traces(folder: Path) -> Any:
    """Return a table with the same array twice, once without its checksum."""
    place = {"protocol": "file", "location": str(folder / "store")}
    lab = dj.Instance(
        database__url=f"sqlite:///{folder / 'lab.sqlite'}",
        stores={"default": "raw", "raw": place},
        safemode=False,
    )

    class Trace(dj.Manual):
        definition = """
        trace_id : int32
        ---
        trace : <npy@raw>
        """

    table: Any = lab.Schema("bench")(Trace)
    trace = np.random.default_rng(1).random(16 * MEBIBYTE, dtype="f4")
    table.insert([{"trace_id": number, "trace": trace} for number in (WITH, WITHOUT)])
    lab.connection.query(
        f"UPDATE {table.full_table_name} SET trace = json_remove(trace, '$.crc32') "
        f"WHERE trace_id = {WITHOUT}"
    )
    return table


def least(
    works: dict[int, Callable[[], object]], rounds: int, before: Callable[[], object]
) -> dict[int, float]:
    """Return the least seconds of each work, which take turns, without what is done before each."""
    found = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for number, work in works.items():
            before()
            started = time.perf_counter()
            work()
            found[number] = min(found[number], time.perf_counter() - started)
    return found


def fetched(table: Any, number: int) -> Callable[[], object]:
    """Return what fetches a row and loads its array."""
    return lambda: (table & {"trace_id": number}).fetch1("trace").load()


def forget(folder: Path) -> None:
    """Have the system forget what files hold, so that they are read from the disk."""
    for file in folder.rglob("*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def inserted(table: Any, number: int) -> Callable[[], object]:
    """Return what inserts the array, with its checksum or without, in a new row each time."""
    trace = (table & {"trace_id": WITH}).fetch1("trace").load()
    real = checksums.isal_zlib
    numbers = count(10 + number, step=2)

    def work() -> None:
        checksums.isal_zlib = real if number == WITH else Without
        try:
            table.insert1({"trace_id": next(numbers), "trace": trace})
        finally:
            checksums.isal_zlib = real

    return work


class Without:
    """Stands for the module that computes checksums, and takes no time."""

    @staticmethod
    def crc32(data: Any, crc: int = 0) -> int:
        """Return nothing new."""
        return crc


def main() -> None:
    """Print both times and their ratio, of fetching and of inserting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="djbench") as folder:
        table = traces(Path(folder))
        store = Path(folder) / "store"
        for verb, work, rounds, before in (
            ("fetch1 and load from the disk", fetched, given.rounds, lambda: forget(store)),
            ("fetch1 and load from the cache", fetched, given.rounds, lambda: None),
            ("insert1", inserted, given.rounds // 2, lambda: None),
        ):
            found = least({n: work(table, n) for n in (WITH, WITHOUT)}, rounds, before)
            share = found[WITH] / found[WITHOUT] - 1
            print(
                f"{verb} 64 MB: {found[WITH] * 1000:.1f} ms with the checksum, "
                f"{found[WITHOUT] * 1000:.1f} ms without, {share:+.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
