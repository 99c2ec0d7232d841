"""DataJointWorker of datajoint-utilities: a worker makes three tables, and fails as it should."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from benchmarks.pipelines.client import connect, import_all, report, step

dj = connect()
dj.config["database.prefix"] = ""

schema = dj.schema("worker_lab")


@schema
class Session(dj.Lookup):  # noqa: D101
    definition = """
    subject : varchar(16)
    session : int
    ---
    rate : float
    """
    contents: ClassVar[Any] = [("é", n, n / 10) for n in range(1, 8)]


@schema
class Trace(dj.Imported):  # noqa: D101
    definition = """
    -> Session
    ---
    trace : longblob
    """

    def make(self, key: dict[str, Any]) -> None:
        """Fail for one key always, for one until its error is cleared."""
        rate = (Session & key).fetch1("rate")
        if key["session"] == 3:
            raise ValueError("there is no session 3")
        if key["session"] == 5 and not flaky:
            flaky.append(key)
            raise RuntimeError("try again")
        self.insert1({**key, "trace": np.arange(5) * rate})


@schema
class Spikes(dj.Computed):  # noqa: D101
    definition = """
    -> Trace
    threshold : float
    """

    class Unit(dj.Part):  # noqa: D106
        definition = """
        -> master
        unit : int
        ---
        count : int
        """

    @property
    def key_source(self) -> Any:
        """All traces with two thresholds."""
        return Trace.proj() * Threshold.proj() & "threshold > 0"

    def make(self, key: dict[str, Any]) -> None:
        """Count what lies above the threshold."""
        trace = (Trace & key).fetch1("trace")
        self.insert1(key)
        self.Unit.insert({**key, "unit": n, "count": int((trace > n).sum())} for n in range(2))


@schema
class Threshold(dj.Lookup):  # noqa: D101
    definition = """
    threshold : float
    """
    contents: ClassVar[Any] = [(0,), (0.5,), (1,)]


flaky: list[Any] = []
called: list[int] = []


def own_function(number: int) -> None:
    """Do something else that the worker was asked for, and fail."""
    called.append(number)
    error: Any = LookupError("nothing to be found")
    error.key = {"number": number}
    raise error


class Notes:
    """A notifier that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notify(self, title: str, message: str, **options: Any) -> None:
        """Keep a title."""
        self.told.append(title)


def main() -> None:
    """Do it all, step by step."""
    import_all(
        f"datajoint_utilities.{name}"
        for name in (
            "cmdline.tmplcfg", "dj_data_copy.db_migration", "dj_data_copy.pipeline_cloning",
            "dj_notification.loghandler", "dj_search", "dj_search.lists", "dj_search.meta",
            "dj_worker", "dj_worker.utils", "dj_worker.worker", "dj_worker.worker_schema",
        )
    )  # fmt: skip
    step("a worker runs until nothing is left", _run)
    step("its tables", _look_at_tables)
    step("progress of the workers", _look_at_progress)
    step("stale jobs become errors", _stale)
    step("an overview of the operation", _overview)
    step("a search in definitions", _search)
    step("a worker with notifiers", _notify)


def _run() -> None:
    from datajoint_utilities.dj_worker import DataJointWorker

    worker = DataJointWorker(
        "worker", "worker_own", run_duration=-1, sleep_duration=0.01, max_idled_cycle=1,
        autoclear_error_patterns=["%try again%"], db_prefix="worker_",
    )  # fmt: skip
    worker(Trace, display_progress=False)
    worker(own_function, number=4)
    worker(Spikes, display_progress=False, max_calls=5)
    worker.run()
    assert set(called) == {4}
    assert len(Trace()) == 6
    assert len(Spikes()) == 12
    assert len(Spikes.Unit()) == 24


def _look_at_tables() -> None:
    from datajoint_utilities.dj_worker.worker_schema import ErrorLog, RegisteredWorker, WorkerLog

    processes = RegisteredWorker.Process.fetch("process", "process_kwargs", order_by="KEY")
    report(found=[list(map(str, column)) for column in processes])
    report(found=RegisteredWorker.Process.fetch("key_source_sql", order_by="KEY")[1])
    assert {*WorkerLog.fetch("process")} == {"lab.Trace", "own_function", "lab.Spikes"}
    report(found=sorted(map(list, zip(*ErrorLog.fetch("process", "error_message"), strict=True))))
    assert len(WorkerLog.get_recent_jobs()) == 3
    jobs = schema.jobs.fetch("table_name", "status", "error_message", as_dict=True)
    report(found=jobs)


def _look_at_progress() -> None:
    from datajoint_utilities.dj_worker.worker_schema import RegisteredWorker, get_workers_progress

    report(found=_plain(get_workers_progress(RegisteredWorker, dj.conn())))


def _plain(frame: Any) -> dict[str, Any]:
    """Return a frame's values, whatever the types of its columns."""
    return {
        name: {
            key: value if isinstance(value, str) else float(value) for key, value in column.items()
        }
        for name, column in frame.to_dict().items()
    }


def _stale() -> None:
    from datajoint_utilities.dj_worker.worker import handle_stale_reserved_jobs

    module = dj.create_virtual_module("worker_lab", "worker_lab")
    jobs = module.schema.jobs
    assert jobs.reserve("__spikes", {"subject": "é", "session": 1, "threshold": 9.0})
    dj.conn().query("UPDATE worker_lab.`~jobs` SET timestamp = NOW() - INTERVAL 3 DAY, "
                    "connection_id = 0 WHERE status = 'reserved'")  # fmt: skip
    handle_stale_reserved_jobs(module, 24)
    errors = (jobs & {"table_name": "__spikes"}).fetch("error_message")
    report(found=[str(message) for message in errors])


def _overview() -> None:
    from datajoint_utilities.dj_worker.utils import get_workflow_operation_overview

    report(found=_plain(get_workflow_operation_overview("worker_own", ["worker_"])))


def _search() -> None:
    from datajoint_utilities.dj_search import DJSearch

    found = DJSearch(["worker_lab"])
    found.search("threshold")


def _notify() -> None:
    from datajoint_utilities.dj_worker import DataJointWorker

    notes = Notes()
    (Trace & {"session": 1}).delete()
    worker = DataJointWorker(
        "second", "worker_own", sleep_duration=0.01, max_idled_cycle=1, notifiers=[notes]
    )
    worker(Trace, notify_on=["start", "success", "error"], display_progress=False)
    worker.run()
    report(found=sorted(set(notes.told)))


if __name__ == "__main__":
    main()
