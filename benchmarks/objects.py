"""The object floor against DataJoint, in one run: medians and ratios.

Run it from the repository: ``uv run python -m benchmarks.objects``. It starts a private MariaDB
server and an S3 server, which is reached through processes that add 5, 20 and 50 ms to each
request. ``--only`` names groups of lines, ``--rounds`` says how often those of packing are taken,
``--count`` how many objects the others have. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa
from datajoint import blob as their_blob

import dj_dagster
from benchmarks.latency import later
from benchmarks.memory import MEBIBYTE, beside, packing
from benchmarks.peers import Peer, alternate, peers
from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from dj_dagster.objects.stores import store
from dj_dagster.objects.stores.stores import Stores
from tests.services.database_server import drop_databases
from tests.services.mariadb import mariadb
from tests.services.s3 import bucket_files, s3

PREFIX = "bench_obj_"
LATENCIES = (5, 20, 50)
"""Milliseconds."""

# What rclone computes over again costs it more than all the rest does.
CHEAP = ("--ignore-checksum", "--no-checksum")

GROUPS = ("packing", "inline", "local", "S3", "flight")

Work = Callable[[], object]


def timed(work: Work) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def payloads() -> dict[str, Any]:
    """Return what is packed: 64 MB arrays, many small dicts, many strings."""
    dice = np.random.default_rng(1)
    count = 16 * MEBIBYTE
    smooth = np.round(np.sin(np.arange(count) / 500) * 200).astype("f4")
    return {
        "64 MB compressible": smooth,
        "64 MB random": dice.random(count, dtype="f4"),
        "2,000 small dicts": [{"n": n, "x": n / 7, "name": f"unit {n}"} for n in range(2000)],
        "20,000 strings": np.array([f"label {n}" for n in range(20_000)]),
    }


class Bench:
    """All measures, by the line of the table that they fill."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.lines: list[tuple[str, dict[str, float], list[int]]] = []

    def often(self, name: str, works: dict[str, Work]) -> None:
        """Take a line's measures several times."""
        measures = {key: partial(timed, work) for key, work in works.items()}
        self._add(name, alternate(measures, self.rounds), [])

    def once(self, name: str, works: dict[str, Work]) -> None:
        """Take a line's measures once, with the memory that the work needs beside what there is."""
        seconds: dict[str, float] = {}
        peaks: list[int] = []
        for key, work in works.items():

            def measure(key: str = key, work: Work = work) -> None:
                seconds[key] = timed(work)

            peaks.append(beside(measure) // MEBIBYTE)
        self._add(name, seconds, peaks)

    def _add(self, name: str, seconds: dict[str, float], peaks: list[int]) -> None:
        self.lines.append((name, seconds, peaks))
        figures = ", ".join(f"{key} {value:.4f} s" for key, value in seconds.items())
        print(f"{name}: {figures}{_memory(peaks)}", flush=True)

    def table(self) -> str:
        """Return the lines as Markdown, each with the ratio of its last measure to its first."""
        head = "| measure | dj_dagster | other | ratio | peak |\n|---|---|---|---|---|"
        rows = [
            f"| {name} | {first:.4f} s | {other} {last:.4f} s | {last / first:.1f}× |"
            f" {_memory(peaks).removeprefix(', ')} |"
            for name, seconds, peaks in self.lines
            for (_, first), (other, last) in [tuple(seconds.items())]
        ]
        return "\n".join([head, *rows])


def _memory(peaks: list[int]) -> str:
    return f", {' and '.join(map(str, peaks))} MiB" if peaks else ""


def in_memory(bench: Bench) -> None:
    """Pack and unpack."""
    for name, value in payloads().items():
        theirs, ours = their_blob.pack(value), pack(value)
        bench.often(
            f"pack {name}",
            {"dj_dagster": partial(pack, value), "datajoint": partial(their_blob.pack, value)},
        )
        # Each reads what the other wrote.
        bench.often(
            f"unpack {name}",
            {"dj_dagster": partial(unpack, theirs), "datajoint": partial(their_blob.unpack, ours)},
        )
    print(*packing(), sep="\n", flush=True)


class Traces:
    """A table of arrays, declared by one of the libraries, with one kind of attribute."""

    def __init__(self, peer: Peer, spec: str) -> None:
        self.peer = peer
        dj = peer.dj
        schema = dj.Schema(
            f"{PREFIX}{peer.name}_{uuid.uuid4().hex[:6]}", connection=peer.connection
        )

        class Trace(dj.Manual):
            definition = f"""
            trace_id : int32
            ---
            trace : {spec}
            """

        self.table = schema(Trace)
        self.is_inline = "@" not in spec

    def insert(self, rows: list[dict[str, Any]]) -> None:
        """Insert rows, inline in statements that the server's packet size allows."""
        step = 5 if self.is_inline else len(rows)
        for start in range(0, len(rows), step):
            self.table.insert(rows[start : start + step])

    def fetch(self) -> None:
        """Fetch everything; what is loaded when it is used is loaded, by the best way there is."""
        traces = self.table.to_arrays("trace")
        lazy = not self.is_inline and self.peer.name == "dj_dagster"
        for trace in dj_dagster.load_arrays(traces) if lazy else traces:
            assert np.asarray(trace).nbytes == MEBIBYTE

    def fetch_one_by_one(self, count: int) -> None:
        """Fetch rows by their keys."""
        for n in range(count):
            assert np.asarray((self.table & {"trace_id": n}).fetch1("trace")).nbytes == MEBIBYTE

    def fetch_blobs(self) -> None:
        """Fetch everything that is not loaded later."""
        assert len(self.table.to_arrays("trace")) > 0


def random_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of 1 MiB of random bytes each."""
    dice = np.random.default_rng(2)
    return [
        {"trace_id": n, "trace": dice.integers(0, 255, MEBIBYTE, dtype="u1")} for n in range(count)
    ]


def in_tables(
    bench: Bench, pair: tuple[Peer, Peer], where: str, spec: str, rows: list[dict[str, Any]]
) -> None:
    """Insert and fetch rows of 1 MiB each, inline or in a store.

    In stores both have ``<npy@store>``: DataJoint cannot insert ``<blob@store>`` on MariaDB.
    """
    tables = {peer.name: Traces(peer, spec) for peer in pair}
    count = len(rows)
    bench.once(
        f"{where}: insert {count} × 1 MiB",
        {name: partial(table.insert, rows) for name, table in tables.items()},
    )
    bench.once(
        f"{where}: fetch {count} × 1 MiB", {name: table.fetch for name, table in tables.items()}
    )
    bench.once(
        f"{where}: fetch {count} one by one",
        {name: partial(table.fetch_one_by_one, count) for name, table in tables.items()},
    )


def in_flight(bench: Bench, peer: Peer, rows: list[dict[str, Any]]) -> None:
    """Compare 16 objects in flight with one by one, in stores that answer later and later.

    Server, proxy and client share this machine's cores. Objects of 1 MiB keep them busy, which no
    number of requests in flight can help; small ones, and long latencies, show the waiting alone.
    """
    few = rows[: max(1, len(rows) // 5)]
    for size, milliseconds, chosen in (
        (4, 5, rows), (64, 5, rows), (1024, 5, rows), (1024, 20, few), (1024, 50, few),
    ):  # fmt: skip
        given = [{**row, "trace": row["trace"][: size * 1024]} for row in chosen]
        what = f"{len(given)} × {size} KiB, S3 with {milliseconds} ms, 16 in flight beside 1"
        tables = {width: Traces(peer, f"<blob@s3_{milliseconds}>") for width in (16, 1)}
        for verb, works in (
            ("insert", {width: partial(table.insert, given) for width, table in tables.items()}),
            ("fetch", {width: table.fetch_blobs for width, table in tables.items()}),
        ):
            bench.once(
                f"{verb} {what}",
                {f"{width} in flight": partial(at_width, width, w) for width, w in works.items()},
            )


def at_width(width: int, work: Work) -> None:
    """Do work with so many objects in flight."""
    before = store.in_flight.__defaults__
    store.in_flight.__defaults__ = (width,)
    try:
        work()
    finally:
        store.in_flight.__defaults__ = before


@contextlib.contextmanager
def stores() -> Generator[dict[str, Any]]:
    """Give the settings of a local store and of one on S3 with each latency."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3(*CHEAP))
        bucket = f"bench-{uuid.uuid4().hex[:6]}"
        settings = {**server.store_settings(bucket)}
        bucket_files(settings).mkdir(bucket)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="djbench"))
        given: dict[str, Any] = {"default": "local"}
        given["local"] = {"protocol": "file", "location": folder}
        for milliseconds in LATENCIES:
            endpoint = stack.enter_context(later(server.endpoint, milliseconds / 1000))
            given[f"s3_{milliseconds}"] = {**settings, "endpoint": endpoint}
        yield given


def main() -> None:
    """Take all measures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    bench = Bench(given.rounds)
    if "packing" in given.only:
        in_memory(bench)
    with contextlib.ExitStack() as stack:
        url = sa.make_url(stack.enter_context(mariadb()))
        stack.callback(drop_databases, str(url), PREFIX)
        settings = stack.enter_context(stores())
        pair = peers(url)
        pair[0].connection.stores = Stores(settings)
        pair[1].dj.config["stores"] = settings
        rows = random_rows(given.count)
        for where, spec in (("inline", "<blob>"), ("local", "<npy@local>"), ("S3", "<npy@s3_5>")):
            if where in given.only:
                in_tables(bench, pair, where, spec, rows)
        if "flight" in given.only:
            in_flight(bench, pair[0], rows)
    print(f"\n{bench.table()}")


if __name__ == "__main__":
    main()
