"""An S3 server behind a network that fails: every row has its object, whole, and no error hides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.relational.faults_lab import check_collected, check_content, check_rows, declare, value
from tests.services.faults import FAULTS, FaultyProxy, faulty_proxy

ROWS = 20
FAULTY_SHARE = 0.25


@pytest.fixture
def proxy(s3_store_settings: dict[str, Any]) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_store_settings["endpoint"]) as running:
        yield running


@pytest.fixture
def schema(
    s3_store_settings: dict[str, Any], proxy: FaultyProxy, tmp_path: Path
) -> Iterator[dj.Schema]:
    settings = {**s3_store_settings, "endpoint": f"127.0.0.1:{proxy.port}"}
    stores = dj.Stores({"default": "raw", "raw": settings})
    connection = dj.Connection(f"sqlite:///{tmp_path}/lab.sqlite", stores=stores, safemode=False)
    yield dj.Schema("lab", connection=connection)
    connection.close()


def test_faults_of_the_network(schema: dj.Schema, proxy: FaultyProxy) -> None:
    trace = declare(schema)
    rows = [{"trace_id": n, "trace": value(n), "array": value(n)["data"]} for n in range(ROWS)]
    proxy.randomly(FAULTY_SHARE, seed=4)
    failures = 0
    for start in range(0, ROWS, 10):
        while True:
            before = len(trace)
            try:
                trace.insert(rows[start : start + 10])
            except dj.TransientError:
                failures += 1
                assert len(trace) == before
                continue
            break
    while True:
        try:
            assert check_rows(trace) == ROWS
        except dj.TransientError:
            failures += 1
            continue
        break
    made = sum(proxy.happened.values())
    assert set(proxy.happened) == set(FAULTS)
    proxy.soundly()
    check_content(schema.connection.stores.get("raw"))
    assert check_rows(trace) == ROWS
    report = check_collected(schema, trace)
    print(f"{made} faults {dict(proxy.happened)}, {failures} calls failed, {report}")


@pytest.mark.parametrize("fault", ["500", "truncate", "refuse"])
def test_a_server_that_only_fails_leaves_no_row(
    schema: dj.Schema, proxy: FaultyProxy, fault: str
) -> None:
    trace = declare(schema)
    proxy.choose = lambda request: fault if request.startswith(b"PUT ") else None
    with pytest.raises(dj.TransientError, match="Store 'raw'"):
        trace.insert1({"trace_id": 1, "trace": value(1)})
    assert proxy.happened[fault] >= 2
    assert len(trace) == 0
    proxy.soundly()
    trace.insert1({"trace_id": 1, "trace": value(1)})
    assert check_rows(trace) == 1


def test_the_collector_may_fail_at_any_request(schema: dj.Schema, proxy: FaultyProxy) -> None:
    trace = declare(schema)
    trace.insert({"trace_id": n, "trace": value(n), "array": value(n)["data"]} for n in range(12))
    (trace & "trace_id >= 6").delete()
    proxy.randomly(0.3, seed=1)
    for _ in range(3):
        try:
            dj.GarbageCollector(schema).collect(dry_run=False, grace=0)
        except (dj.TransientError, dj.ObjectError):
            continue
    proxy.soundly()
    assert check_rows(trace) == 6
    store = schema.connection.stores.get("raw")
    # What a collector that failed has left of its sign.
    store.delete(f"_hash/{schema.name}/.collecting")
    check_collected(schema, trace)
    assert check_rows(trace) == 6
