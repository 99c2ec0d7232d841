"""Writers that are killed, each a step further than the one before; run as a program.

``python -m tests.relational.killed_writers FOLDER KIND`` forks a writer, lets it insert a row, and
kills it before its first call that changes files or the database, the next one before its second
call, and so on, until one comes to its end. After each the rows must be whole. KIND ``collect``
kills collectors instead, ``empty`` those that empty the trash as well, and ``restore`` what puts it
back. A line of JSON says how it went.

The forks find all modules imported and all statements compiled, because their parent has gone
through the same once in a folder of its own: that is what most of their time would go into.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import dj_dagster as dj
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.codecs.bytes import content_hash
from dj_dagster.objects.collection import Trash
from dj_dagster.objects.stores.store import Store
from tests.relational.faults_lab import (
    check_collected,
    check_content,
    check_rows,
    check_trash,
    declare,
    value,
)

STEPS = {
    "open", "write", "flush", "fsync", "replace", "rename", "link", "utime", "mkdir", "unlink",
    "close", "execute", "executemany", "commit", "sendfile", "copy_file_range", "rmdir", "remove",
}  # fmt: skip
"""The names of the C functions that leave something behind."""


def open_schema(folder: Path) -> dj.Schema:
    stores = dj.Stores({"raw": {"protocol": "file", "location": str(folder / "store")}})
    connection = dj.Connection(f"sqlite:///{folder}/lab.sqlite", stores=stores, safemode=False)
    return dj.Schema("lab", connection=connection)


def leaves_something(function: Any) -> bool:
    """Whether a C function changes files or the database: `str.replace` does not."""
    if getattr(function, "__name__", "") not in STEPS:
        return False
    return not isinstance(getattr(function, "__self__", None), str)


def die_at(step: int) -> None:
    """Kill this process before its n-th step, in whichever thread that is."""
    steps = count(1)

    def watch(frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and leaves_something(function) and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


def live_on() -> None:
    """Kill this process no more."""
    sys.setprofile(None)
    threading.setprofile(None)


def insert(trace: Any, folder: Path, n: int) -> None:
    row = {"trace_id": n, "trace": value(n), "array": value(n)["data"], "folder": folder / "movie"}
    trace.insert1(row)


def insert_staged(trace: Any, folder: Path, n: int) -> None:
    with trace.staged_insert1 as staged:
        staged.rec |= {"trace_id": n, "trace": value(n)}
        files = staged.store("folder", ".zarr")
        files["a"] = b"a" * 1000
        files["deep/b"] = b"b"


def collect(trace: Any, folder: Path, n: int) -> None:
    schema = dj.Schema("lab", connection=trace.connection)
    dj.GarbageCollector(schema, store="raw").collect(dry_run=False, grace=0)


def empty(trace: Any, folder: Path, n: int) -> None:
    schema = dj.Schema("lab", connection=trace.connection)
    dj.GarbageCollector(schema, store="raw").collect(dry_run=False, grace=0, keep=0)


def restore(trace: Any, folder: Path, n: int) -> None:
    dj.GarbageCollector(dj.Schema("lab", connection=trace.connection), store="raw").restore()


WRITE = {
    "insert": insert, "staged": insert_staged, "collect": collect, "empty": empty,
    "restore": restore,
}  # fmt: skip


def make_garbage(trace: Any, folder: Path, n: int) -> None:
    """Give a collector as much to do as the one before, and a row to leave alone."""
    trace.connection.stores.get("raw").delete("_hash/lab/.collecting")
    empty(trace, folder, n)
    insert(trace, folder, n)
    (trace & {"trace_id": n - 1}).delete()


def check_nothing_lost(store: Store, n: int) -> None:
    """Check that the content of the last two rows is at its place or in the trash."""
    check_trash(store, "lab")
    files = [*store.list("_hash"), *(file.path for file in Trash(store, "lab").files())]
    found = {path.rpartition("/")[2] for path in files}
    assert {content_hash(pack(value(k))) for k in range(max(n - 2, 0), n)} <= found


def forked(work: Callable[[], None]) -> int:
    """Run work in a fork; return what `os.waitpid` says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def try_once(folder: Path, kind: str, n: int, step: int = 0) -> None:
    """Check what the one before has left, then write row `n`, or collect, and die at a step."""
    trace = declare(open_schema(folder))
    check_rows(trace)
    check_content(trace.connection.stores.get("raw"))
    if kind in ("collect", "restore"):
        check_nothing_lost(trace.connection.stores.get("raw"), n)
    if kind in ("collect", "empty", "restore"):
        make_garbage(trace, folder, n)
    if kind == "restore":
        collect(trace, folder, n)
    # What follows happens inside: the table is known, the connection open.
    die_at(step)
    WRITE[kind](trace, folder, n)
    live_on()
    trace.connection.close()


def prepare(folder: Path) -> None:
    """Make the folder that writers insert."""
    (folder / "movie" / "deep").mkdir(parents=True)
    (folder / "movie" / "a").write_bytes(b"aaa")
    (folder / "movie" / "deep" / "b").write_bytes(b"b" * 5000)


def main(folder: Path, kind: str) -> None:
    """Kill writers until one comes through."""
    for place in (folder / "warming", folder):
        prepare(place)
    for n in range(2):
        try_once(folder / "warming", kind, n)
    gc.freeze()
    killed = 0
    while (status := forked(partial(try_once, folder, kind, killed, killed + 1))) != 0:
        assert os.WIFSIGNALED(status), f"after a kill at step {killed}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
    schema = open_schema(folder)
    trace = declare(schema)
    committed = check_rows(trace)
    schema.connection.stores.get("raw").delete("_hash/lab/.collecting")
    report = check_collected(schema, trace)
    check_rows(trace)
    print(json.dumps({"killed": killed, "committed": committed, "collected": report.deleted}))


def out_of_space(folder: Path) -> None:
    """Insert what does not fit: no file may grow beyond four megabytes, as on a disk that fills."""
    trace = declare(open_schema(folder))
    trace.insert1({"trace_id": 1, "trace": value(1)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
    large = value(2, 6_000_000)
    for row in ({"trace": large}, {"trace": value(3), "array": large["data"]}):
        try:
            trace.insert1({"trace_id": 2, **row})
        except dj.ObjectError as error:
            found = str(error)
        else:
            found = "it was inserted"
        assert "too large" in found, found
    assert check_rows(trace) == 1
    check_content(trace.connection.stores.get("raw"))
    check_collected(dj.Schema("lab", connection=trace.connection), trace)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2] == "space":
        out_of_space(place)
    else:
        main(place, sys.argv[2])
