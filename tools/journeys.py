"""Traces of five common calls: the files and functions that each passes through.

``python -m tools.journeys`` prints the figures on SQLite, ``--url`` takes a server's URL.
``--write`` draws the traces into ``docs/architecture.md`` as trees: below each file are the files
that it was the first to call.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dj_dagster"
PAGE = REPOSITORY / "docs" / "architecture.md"
BEGIN, END = "<!-- journeys: written by python -m tools.journeys --write -->", "<!-- end -->"


@dataclass
class Trace:
    """The files and functions of dj_dagster that were called.

    Attributes
    ----------
    first
        For each file, the file from which it was first called, in the order of these calls.
    functions
        The functions, each with its file.
    """

    first: dict[str, str] = field(default_factory=dict[str, str])
    functions: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Record a call; a function for `sys.setprofile`."""
        del argument
        if event == "call" and (name := _own(frame)):
            self.functions.add((name, frame.f_code.co_qualname))
            if name not in self.first:
                self.first[name] = next(filter(None, map(_own, _callers(frame))), "")


def _own(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else ""


def _callers(frame: FrameType) -> Iterator[FrameType]:
    caller = frame.f_back
    while caller is not None:
        yield caller
        caller = caller.f_back


@contextlib.contextmanager
def traced() -> Generator[Trace]:
    """Trace the calls inside the block, in other threads too."""
    trace = Trace()
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def journeys(url: str, folder: Path) -> dict[str, Trace]:
    """Return the traces of the five journeys on a database, by description."""
    os.environ["DJ_DATABASE_URL"] = url
    os.chdir(folder)
    import dagster as dg

    import dj_dagster as dj
    from dj_dagster.orchestration import build_definitions

    dj.config["stores"] = {
        "default": "raw",
        "raw": {"protocol": "file", "location": str(folder / "store")},
    }
    dj.config["safemode"] = False
    schema = dj.Schema("journeys")
    schema.drop(prompt=False)
    schema = dj.Schema("journeys")

    class Subject(dj.Manual):
        definition = "subject : int32\n---\nweight = 0 : float64"

    class Trial(dj.Manual):
        definition = "-> Subject\ntrial : int32\n---\ntrace : <blob@raw>"

    class Mean(dj.Computed):
        definition = "-> Trial\n---\nmean : float64"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "mean": (Trial & key).fetch1("trace").mean()})

    import numpy as np

    rows = [{"subject": 1, "trial": n, "trace": np.arange(5000.0) + n} for n in range(1, 9)]
    Subject = schema(Subject)
    found: dict[str, Trace] = {}
    with traced() as found["declare a table"]:
        Trial = schema(Trial)
    Mean = schema(Mean)
    Subject.insert1({"subject": 1})
    # The first calls of a process are not traced.
    Trial.insert(rows[:2])
    with traced() as found["insert rows with a blob in a store"]:
        Trial.insert(rows[2:4])
    (Trial * Subject & "trial > 1").to_dicts()
    with traced() as found["to_dicts of a join"]:
        (Trial.proj() * Subject & {"trial": 3}).to_dicts()
    Mean.populate(reserve_jobs=True)
    Trial.insert(rows[4:5])
    with traced() as found["populate one key, reserved"]:
        Mean.populate(reserve_jobs=True)
    defs = build_definitions(schema)
    (folder / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        sensor, job = defs.resolve_sensor_def("populate_sensor"), None
        for step in range(3):
            context = dg.build_sensor_context(instance, repository_def=defs.get_repository_def())
            if step == 2:
                Trial.insert(rows[5:6])
            with traced() if step == 2 else contextlib.nullcontext(Trace()) as trace:
                result = sensor(context)
                assert isinstance(result, dg.SensorResult)
                for request in result.run_requests or ():
                    job = defs.resolve_implicit_global_asset_job_def().get_subset(
                        asset_selection=set(request.asset_selection or ())
                    )
                    job.execute_in_process(
                        instance=instance, run_config=request.run_config, tags=request.tags
                    )
        found["a new row: the sensor's tick and its run"] = trace
    assert len(Mean()) == 6
    schema.drop(prompt=False)
    return found


def drawn(found: dict[str, Trace]) -> str:
    """Return the journeys as Markdown with a Mermaid tree for each."""
    parts = [BEGIN]
    for what, trace in found.items():
        count = f"{len(trace.first)} files, {len(trace.functions)} functions"
        parts += [f"\n## {what.capitalize()}\n\n{count} on SQLite.\n\n```mermaid\nflowchart LR"]
        ids = {name: f"n{n}" for n, name in enumerate(trace.first)}
        parts += [f'    {ids[name]}["{name.removesuffix(".py")}"]' for name in trace.first]
        parts += [f"    {ids[a]} --> {ids[b]}" for b, a in trace.first.items() if a in ids]
        parts += ["```"]
    return "\n".join([*parts, "", END])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a database; a SQLite file of its own by default")
    parser.add_argument("--write", action="store_true", help="draw them into the page")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        found = journeys(options.url or f"sqlite:///{folder}/lab.sqlite", Path(folder))
        os.chdir(REPOSITORY)
    for what, trace in found.items():
        print(f"{what}: {len(trace.first)} files, {len(trace.functions)} functions")
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        PAGE.write_text(before + drawn(found) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
