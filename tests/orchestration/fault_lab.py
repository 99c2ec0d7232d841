"""A lab whose code server, daemon, runs and database are killed while it works.

The parts of a deployment are processes of their own here, each started again when it has been
killed, as systemd or Kubernetes would.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dj_dagster.errors import DataJointError
from dj_dagster.relational.database.connection import Connection
from tests.services.database_server import DatabaseServer
from tests.services.process import PATIENCE, accepts, eventually, free_port, server, tail

PIPELINE = '''
import os, time
import dj_dagster as dj
from dj_dagster.orchestration import RetryPolicy, SensorSettings, build_definitions

schema = dj.Schema("faults")

def note(*words):
    line = " ".join(map(str, words)) + "\\n"
    with open(os.environ["FAULT_CALLS"], "ab", buffering=0) as file:
        file.write(line.encode())

@schema
class Item(dj.Manual):
    definition = """
    item : int32
    """

class _Step:
    def make(self, key):
        if not float(os.environ["FAULT_SECONDS"]):
            # A benchmark, whose peers do not note their calls either.
            self.insert1({**key, "pid": os.getpid()})
            return
        note("start", self.class_name, key["item"], os.getpid(), time.monotonic())
        time.sleep(float(os.environ["FAULT_SECONDS"]))
        self.insert1({**key, "pid": os.getpid()})
        note("end", self.class_name, key["item"], os.getpid(), time.monotonic())

@schema
class Measured(_Step, dj.Computed):
    definition = """
    -> Item
    ---
    pid : int32
    """

@schema
class Analysed(_Step, dj.Computed):
    definition = """
    -> Measured
    ---
    pid : int32
    """

settings = SensorSettings(
    interval=1,
    batch_size=int(os.environ["FAULT_BATCH"]),
    retries=RetryPolicy(delay=1, backoff=1.5),
)
'''

DEFINITIONS = """
from pipeline import *
from dj_dagster.orchestration import TableTranslator

class Translator(TableTranslator):
    def get_op_tags(self, table):
        jobs = os.environ.get("FAULT_ARRAY")
        return {"dj-slurm/array": jobs} if jobs else {}

defs = build_definitions(schema, translator=Translator(), sensor_settings=settings)
"""

POPULATE = """
import time
from pipeline import Analysed, Measured
while True:
    try:
        for table in (Measured, Analysed):
            table.populate(reserve_jobs=True, suppress_errors=True)
    except Exception as error:
        print(error, flush=True)
    time.sleep(0.2)
"""

DAGSTER_YAML = """
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config: {max_concurrent_runs: 2, dequeue_interval_seconds: 1}
run_monitoring: {enabled: true, poll_interval_seconds: 2, start_timeout_seconds: 60}
"""


@dataclass
class FaultLab:
    """The parts, by name, and what was done to them.

    Attributes
    ----------
    chosen
        Chooses which of several workers is killed.
    """

    folder: Path
    database: DatabaseServer
    env: Mapping[str, str]
    port: int
    chosen: random.Random = field(default_factory=random.Random)
    kills: Counter[str] = field(default_factory=Counter)
    _killed: set[str] = field(default_factory=set[str])
    _moments: list[float] = field(default_factory=list[float])
    _parts: dict[str, Any] = field(default_factory=dict)

    @property
    def connection(self) -> Connection:
        return Connection(self.database.url, safemode=False)

    def start(self, name: str, command: list[str]) -> None:
        """Run a part; one of this name that was killed is run again."""
        context = server(
            command,
            log=self.folder / f"{name}.log",
            ready=(lambda: accepts(self.port)) if name == "code" else (lambda: True),
            cwd=self.folder,
            env={**os.environ, **self.env},
        )
        self._parts[name] = (context, context.__enter__(), command)

    def start_daemon(self, name: str) -> None:
        """Run a daemon; with a second one both look after the same instance."""
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
        self.start(name, command)

    def stop(self) -> None:
        for context, _, _ in self._parts.values():
            context.__exit__(None, None, None)

    def kill(self, what: str) -> bool:
        """Kill a part and start it again, or a run at work; False if there is none.

        "cancel" ends a run as the button in the UI does, and "sessions" those of the database.
        """
        if what == "cancel":
            if not self._cancel():
                return False
        elif what == "sessions":
            self._moments.append(time.monotonic())
            if not self._end_sessions():
                return False
        elif what == "database":
            self.database.kill()
            self._moments.append(time.monotonic())
            self.database.start()
        elif what == "run":
            workers = self._workers()
            if not workers:
                return False
            victim = self.chosen.choice(workers)
            os.kill(victim, signal.SIGKILL)
            self._killed.add(str(victim))
            _, loop, command = self._parts.get("populate", (None, None, []))
            if loop is not None and victim == loop.pid:
                self.start("populate", command)
        else:
            context, process, command = self._parts[what]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            if what != "code":  # the runs of a code server outlive it, as containers would
                context.__exit__(None, None, None)
            self.start(what, command)
        self.kills[what] += 1
        return True

    def _cancel(self) -> bool:
        with self.instance() as instance:
            at_work = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            for run_id in instance.get_run_ids(at_work):
                self._moments.append(time.monotonic())
                if instance.run_coordinator.cancel_run(run_id):
                    ended = eventually(lambda r=run_id: _ended(instance, r))
                    return ended is dg.DagsterRunStatus.CANCELED
        return False

    def _end_sessions(self) -> int:
        """End all sessions of the database but this one, as its administrator would."""
        connection = self.connection
        try:
            sessions = "SELECT id FROM information_schema.processlist WHERE user = 'root'"
            others = connection.query(f"{sessions} AND id <> connection_id()").fetchall()
            for (number,) in others:
                with contextlib.suppress(DataJointError):  # it has ended by itself
                    connection.query(f"KILL {number}")
            return len(others)
        finally:
            connection.close()

    def _workers(self) -> list[int]:
        """Return the processes that call make, by the newest calls."""
        pids = {int(words[3]) for words in self.calls()[-200:] if words[0] == "start"}
        return [pid for pid in sorted(pids) if self.runs(pid)]

    def runs(self, pid: int) -> bool:
        """Tell whether a process of this lab runs; another may have its number by now."""
        mark = f"FAULT_CALLS={self.env['FAULT_CALLS']}".encode()
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def calls(self) -> list[list[str]]:
        path = Path(self.env["FAULT_CALLS"])
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for line in lines if len(words := line.split()) == 5]

    def counts(self) -> dict[str, int]:
        """Return the number of rows in each table."""
        connection = self.connection
        try:
            return {
                name: connection.query(f"SELECT count(*) FROM faults.`{name}`").fetchone()[0]
                for name in ("item", "__measured", "__analysed")
            }
        finally:
            connection.close()

    def jobs(self) -> int:
        """Return the number of jobs, of whatever status, that there still are."""
        connection = self.connection
        try:
            return sum(
                connection.query(f"SELECT count(*) FROM faults.`~~{name}`").fetchone()[0]
                for name in ("measured", "analysed")
            )
        finally:
            connection.close()

    def insert(self, items: int | range) -> None:
        """Insert keys, or as many as a number says; those that are there stay."""
        connection = self.connection
        try:
            numbers = items if isinstance(items, range) else range(items)
            values = ", ".join(f"({number})" for number in numbers)
            connection.query(f"INSERT IGNORE INTO faults.item (item) VALUES {values}")
        finally:
            connection.close()

    @contextlib.contextmanager
    def instance(self) -> Generator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.folder / "home")) as instance:
            yield instance

    def marked(self) -> dict[str, int]:
        """Return how many partitions Dagster shows as materialised, by table."""
        with self.instance() as instance:
            return {
                name: len(instance.get_materialized_partitions(dg.AssetKey(["faults", name])))
                for name in ("item", "measured", "analysed")
            }

    def await_all(self, count: int, timeout: float = PATIENCE) -> float:
        """Wait until all rows and marks are there, and no jobs any more; return the seconds."""
        began = time.monotonic()
        wanted = {"item": count, "__measured": count, "__analysed": count}
        shown = {"item": count, "measured": count, "analysed": count}
        try:
            eventually(lambda: self.counts() == wanted, timeout=timeout, every=0.5)
            eventually(lambda: self.marked() == shown, timeout=timeout, every=0.5)
            eventually(lambda: self.jobs() == 0, timeout=timeout, every=0.5)
        except TimeoutError as late:
            logs = "".join(f"\n--- {n}\n{tail(self.folder / f'{n}.log')}" for n in self._parts)
            raise AssertionError(
                f"{late}: {self.counts()}, {self.marked()}, {self.jobs()} jobs, "
                f"{dict(self.kills)}{logs}"
            ) from None
        return time.monotonic() - began

    def check_calls(self) -> int:
        """Assert that no key was in two makes at once, or made again but for a kill.

        Returns how many calls kills have cost.
        """
        lost = 0
        ended: dict[tuple[str, str], tuple[str, float]] = {}
        open_calls: dict[tuple[str, str], str] = {}
        for kind, table, item, pid, at in self.calls():
            key = table, item
            if kind == "start":
                # A process that was killed has left a start without an end.
                if key in open_calls:
                    assert not self.runs(int(open_calls[key])), f"{key} is made twice at once"
                    lost += 1
                assert key not in ended or self._undone(*ended[key]), f"{key} was made twice"
                lost += key in ended
                open_calls[key] = pid
            else:
                open_calls.pop(key, None)
                ended[key] = pid, float(at)
        return lost

    def _undone(self, pid: str, at: float) -> bool:
        """Whether a call that ended then can have been killed before its rows were in."""
        return (
            pid in self._killed
            or bool(self.kills["cancel"])
            or any(at - 1 < when < at + 15 for when in self._moments)
        )


@contextlib.contextmanager
def fault_lab(
    folder: Path,
    database: DatabaseServer,
    *,
    batch: int,
    seconds: float = 0.002,
    storage: str | None = None,
    settings: str = DAGSTER_YAML,
    env: Mapping[str, str] | None = None,
) -> Generator[FaultLab]:
    """Start code server and daemon.

    Parameters
    ----------
    database
        A server that runs, and keeps what is committed when it is killed.
    batch
        Keys of a run.
    seconds
        What a make takes.
    storage
        URL of the PostgreSQL database that Dagster keeps its events in; SQLite files if None.
    settings
        The rest of `dagster.yaml`.
    env
        More variables of all parts.
    """
    (folder / "home").mkdir(exist_ok=True)
    (folder / "home" / "dagster.yaml").write_text(settings + _storage(storage))
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "populate.py").write_text(POPULATE)
    port = free_port()
    (folder / "workspace.yaml").write_text(
        f"load_from: [grpc_server: {{host: 127.0.0.1, port: {port}, location_name: faults}}]\n"
    )
    own = {
        "DAGSTER_HOME": str(folder / "home"),
        "DJ_DATABASE_URL": database.url,
        "FAULT_CALLS": str(folder / "calls"),
        "FAULT_BATCH": str(batch),
        "FAULT_SECONDS": str(seconds),
    }
    lab = FaultLab(folder, database, {**own, **(env or {})}, port)
    words = [sys.executable, "-m", "dagster", "api", "grpc", "--port", str(port)]
    words += ["--host", "127.0.0.1", "-m", "definitions", "-d", str(folder)]
    try:
        lab.start("code", words)
        lab.start_daemon("daemon")
        yield lab
    finally:
        lab.stop()


def _storage(url: str | None) -> str:
    return f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n" if url else ""


def _ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus | None:
    run = instance.get_run_by_id(run_id)
    return run.status if run is not None and run.is_finished else None
