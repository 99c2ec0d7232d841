"""Ten writers and a collector at once, on one schema and one store."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.objects.codecs import bytes as hashed
from dj_dagster.objects.stores.store import Store
from tests.relational.faults_lab import check_collected, check_content, declare, value

WRITERS = 10
SECONDS = float(os.environ.get("DJ_TEST_SECONDS", "6"))
"""How long; the table of docs/explain/reliability.md says 60."""

SEED = int(os.environ.get("DJ_TEST_SEED", "0"))

GRACE = 8.0
"""Longer than an insert takes beside busy processes."""

LIMIT = 300.0
"""Seconds after which it is given up to wait for objects to be removed and restored."""


@pytest.fixture
def schema(database_url: str, schema_prefix: str, tmp_path: Path) -> Iterator[dj.Schema]:
    stores = dj.Stores({"raw": {"protocol": "file", "location": str(tmp_path / "store")}})
    connection = dj.Connection(database_url, stores=stores, safemode=False)
    yield dj.Schema(f"{schema_prefix}lab", connection=connection)
    connection.close()


class Writer(threading.Thread):
    """Inserts rows, most of whose content others insert and delete too, and deletes them again."""

    def __init__(self, table: Any, number: int, ended: threading.Event) -> None:
        super().__init__()
        self.table, self.number, self.ended = table, number, ended
        self.inserted = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def work(self) -> None:
        dice = random.Random(WRITERS * SEED + self.number)
        while not self.ended.is_set():
            # All writers write the same twenty values, so that content is given up and used again.
            key = {"trace_id": self.number * 20 + dice.randrange(20)}
            row = {**key, "trace": value(key["trace_id"] % 20), "array": value(1)["data"]}
            self.table.insert1(row, skip_duplicates=True)
            self.inserted += 1
            assert (self.table & key).fetch1("trace")["n"] == key["trace_id"] % 20
            time.sleep(dice.random() * 0.2)
            if dice.random() < 0.8:
                (self.table & key).delete()
            time.sleep(dice.random() * 0.2)


def test_no_row_loses_its_object(schema: dj.Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    # In proportion to the grace period what a quarter of an hour is to a day, with room to spare.
    monkeypatch.setattr(hashed, "RENEW_AFTER", GRACE / 8)
    trace = declare(schema)
    store: Store = schema.connection.stores.get("raw")
    start, ended = time.monotonic(), threading.Event()
    writers = [Writer(trace, number, ended) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        counts = work_beside(schema, start)
    finally:
        ended.set()
    for writer in writers:
        writer.join()
    assert [writer.error for writer in writers] == [None] * WRITERS
    inserted = sum(writer.inserted for writer in writers)
    assert min(counts.values()) > 0, counts
    check_content(store)
    rows = [row for row in trace.to_dicts() if row["trace"]["n"] == row["trace_id"] % 20]
    assert len(rows) == len(trace)
    report = check_collected(schema, trace)
    print(f"{inserted} inserts, {counts}, {report}")


def work_beside(schema: dj.Schema, start: float) -> dict[str, int]:
    """Collect, restore and empty the trash for some seconds, and until each has happened."""
    collector = dj.GarbageCollector(schema, store="raw")
    counts = dict.fromkeys(("collections", "deleted", "restored", "freed"), 0)
    while (passed := time.monotonic() - start) < LIMIT:
        # What is restored competes with what writers store anew meanwhile.
        if counts["deleted"] and counts["collections"] % 4 == 0:
            counts["restored"] += collector.restore().restored
        report = collector.collect(dry_run=False, grace=GRACE, keep=GRACE / 2)
        assert (report.missing, report.restored) == ((), 0)
        counts["collections"] += 1
        counts["deleted"] += report.deleted
        counts["freed"] += report.freed_bytes
        if passed > SECONDS and min(counts.values()) > 0:
            break
    return counts
