"""The object floor against DataJoint, in one run: medians and ratios.

Run it from the repository: ``uv run python -m benchmarks.objects``. It starts a private MariaDB
server and an S3 server behind a proxy that adds 5 ms to each request. ``--only pack`` takes the
lines whose name holds "pack", ``--rounds`` says how often each is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from datajoint import blob as their_blob

from benchmarks.peers import Peer, alternate, peers
from dj_dagster.objects import flight
from dj_dagster.objects.blob import pack, unpack
from dj_dagster.objects.stores import Stores
from tests.services.faults import faulty_proxy
from tests.services.mariadb import drop_databases, mariadb
from tests.services.s3 import bucket_files, s3

PREFIX = "bench_obj_"
MEBIBYTE = 2**20
LATENCY = 0.005

Measure = Callable[[], float]


def timed(work: Callable[[], object]) -> float:
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

    def __init__(self, rounds: int, only: str) -> None:
        self.rounds, self.only = rounds, only
        self.lines: list[tuple[str, dict[str, float]]] = []

    def line(self, name: str, measures: dict[str, Measure], rounds: int | None = None) -> None:
        """Take one line's measures, unless it is not wanted."""
        if self.only in name:
            medians = alternate(measures, rounds or self.rounds)
            self.lines.append((name, medians))
            figures = ", ".join(f"{key} {value:.4f} s" for key, value in medians.items())
            print(f"{name}: {figures}", flush=True)

    def table(self) -> str:
        """Return the lines as Markdown, each with the ratio of its last measure to its first."""
        head = "| measure | dj_dagster | other | ratio |\n|---|---|---|---|"
        rows = [
            f"| {name} | {ours[1]:.4f} s | {theirs[0]} {theirs[1]:.4f} s | "
            f"{theirs[1] / ours[1]:.1f}× |"
            for name, values in self.lines
            for ours, theirs in [(next(iter(values.items())), list(values.items())[-1])]
        ]
        return "\n".join([head, *rows])


def packing(bench: Bench) -> None:
    """Pack and unpack."""
    for name, value in payloads().items():
        theirs, ours = their_blob.pack(value), pack(value)
        bench.line(
            f"pack {name}",
            {
                "dj_dagster": lambda value=value: timed(lambda: pack(value)),
                "datajoint": lambda value=value: timed(lambda: their_blob.pack(value)),
            },
        )
        # Each reads what the other wrote.
        bench.line(
            f"unpack {name}",
            {
                "dj_dagster": lambda data=theirs: timed(lambda: unpack(data)),
                "datajoint": lambda data=ours: timed(lambda: their_blob.unpack(data)),
            },
        )


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

    def insert(self, rows: list[dict[str, Any]]) -> None:
        """Insert rows in statements that the server's packet size allows."""
        for start in range(0, len(rows), 5):
            self.table.insert(rows[start : start + 5])

    def insert_at_once(self, rows: list[dict[str, Any]]) -> None:
        """Insert all rows in one call."""
        self.table.insert(rows)

    def fetch(self) -> None:
        """Fetch everything."""
        for trace in self.table.to_arrays("trace"):
            assert np.asarray(trace).nbytes == MEBIBYTE

    def fetch_one_by_one(self, count: int) -> None:
        """Fetch rows by their keys."""
        for n in range(count):
            assert np.asarray((self.table & {"trace_id": n}).fetch1("trace")).nbytes == MEBIBYTE


def random_rows(count: int) -> list[dict[str, Any]]:
    """Return rows of 1 MiB of random bytes each."""
    dice = np.random.default_rng(2)
    return [
        {"trace_id": n, "trace": dice.integers(0, 255, MEBIBYTE, dtype="u1")} for n in range(count)
    ]


def in_tables(bench: Bench, pair: tuple[Peer, Peer], count: int) -> None:
    """Insert and fetch rows of 1 MiB each, inline and in stores.

    In stores both have ``<npy@store>``: DataJoint cannot insert ``<blob@store>`` on MariaDB.
    """
    rows = random_rows(count)
    for where, spec in (("inline", "<blob>"), ("local", "<npy@local>"), ("S3", "<npy@s3>")):
        tables = {peer.name: Traces(peer, spec) for peer in pair}
        whole = {
            name: table.insert if where == "inline" else table.insert_at_once
            for name, table in tables.items()
        }
        bench.line(
            f"{where}: insert {count} × 1 MiB",
            {name: lambda put=put: timed(lambda: put(rows)) for name, put in whole.items()},
            1,
        )
        bench.line(
            f"{where}: fetch {count} × 1 MiB",
            {name: lambda t=t: timed(t.fetch) for name, t in tables.items()},
            1,
        )
        few = count // 10
        bench.line(
            f"{where}: fetch {few} one by one",
            {
                name: lambda t=t, few=few: timed(lambda: t.fetch_one_by_one(few))
                for name, t in tables.items()
            },
            1,
        )


def at_once(bench: Bench, peer: Peer, count: int) -> None:
    """Compare 16 objects in flight with one by one, in the store with latency.

    Objects of 1 MiB keep server, proxy and client busy, which share this machine's cores; small
    ones show what the latency alone costs.
    """
    whole = random_rows(count)
    small = [{**row, "trace": row["trace"][:4096]} for row in whole]
    for size, rows in (("1 MiB", whole), ("4 KiB", small)):
        tables = {n: Traces(peer, "<blob@s3>") for n in (16, 1)}
        bench.line(
            f"S3: insert {count} × {size}, 16 in flight beside 1",
            {
                f"{n} in flight": lambda n=n, t=t, rows=rows: with_flight(
                    n, lambda: t.insert_at_once(rows)
                )
                for n, t in tables.items()
            },
            1,
        )
        bench.line(
            f"S3: fetch {count} × {size}, 16 in flight beside 1",
            {
                f"{n} in flight": lambda n=n, t=t: with_flight(
                    n, lambda: t.table.to_arrays("trace")
                )
                for n, t in tables.items()
            },
            1,
        )


def with_flight(width: int, work: Callable[[], object]) -> float:
    """Return the seconds that work takes with so many objects in flight."""
    before = flight.in_flight.__defaults__
    flight.in_flight.__defaults__ = (width,)
    try:
        return timed(work)
    finally:
        flight.in_flight.__defaults__ = before


MEMORY = """
import sys
from pathlib import Path
import numpy as np

def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(status.partition(name + ":")[2].split()[0])

value = np.random.default_rng(1).random(32 * 2**20, dtype="f4")
if sys.argv[1] == "compressible":
    value = np.round(np.sin(np.arange(32 * 2**20, dtype="f4") / 500) * 200).astype("f4")
from {module} import pack, unpack
pack(value[:1000])
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = kilobytes("VmRSS")
data = pack(value)
print((kilobytes("VmHWM") - before) * 1024 / value.nbytes + 1)
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
back = unpack(data)
print((kilobytes("VmHWM") - before + len(data) / 1024) * 1024 / value.nbytes)
"""


def memory() -> Iterator[str]:
    """Yield the peak memory of packing 128 MB and unpacking it, as a multiple of the payload.

    What is packed, or unpacked, counts too. Linux only.
    """
    for kind in ("random", "compressible"):
        for module in ("dj_dagster.objects.blob", "datajoint.blob"):
            script = MEMORY.format(module=module)
            command = [sys.executable, "-W", "ignore", "-c", script, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            packing, unpacking = map(float, done.stdout.split())
            yield f"peak memory, {kind}, {module}: {packing:.2f} to pack, {unpacking:.2f} to unpack"


@contextlib.contextmanager
def stores(endpoint: str, port: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Give the settings of a local store and of one on S3 with latency."""
    bucket = f"bench-{uuid.uuid4().hex[:6]}"
    settings = {
        "protocol": "s3", "bucket": bucket, "location": "dj", "access_key": "dj-test-key",
        "secret_key": "dj-test-secret", "secure": False,
    }  # fmt: skip
    bucket_files({**settings, "endpoint": endpoint}).mkdir(bucket)
    local = {"protocol": "file", "location": str(folder)}
    yield {"default": "local", "local": local, "s3": {**settings, "endpoint": f"127.0.0.1:{port}"}}


def main() -> None:
    """Take all measures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    bench = Bench(given.rounds, given.only)
    packing(bench)
    if not given.only or given.only in "memory":
        print(*memory(), sep="\n", flush=True)
    with contextlib.ExitStack() as stack:
        url = sa.make_url(stack.enter_context(mariadb()))
        stack.callback(drop_databases, str(url), PREFIX)
        server = stack.enter_context(s3())
        proxy = stack.enter_context(faulty_proxy(server.endpoint))
        proxy.delay = LATENCY
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="djbench")))
        settings = stack.enter_context(stores(server.endpoint, proxy.port, folder))
        pair = peers(url)
        pair[0].connection.stores = Stores(settings)
        pair[1].dj.config["stores"] = settings
        in_tables(bench, pair, given.count)
        at_once(bench, pair[0], given.count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{bench.table()}\n\npeak memory of this run: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
