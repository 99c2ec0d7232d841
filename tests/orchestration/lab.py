"""Small tables for the tests: a chain of one grain, a finer grain, parts, a table without key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dj_dagster.orchestration import build_definitions
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Lookup, Manual, Part
from dj_dagster.workflow.computed import Computed, Imported


@dataclass
class Lab:
    """The tables, what their `make` does, and which keys it was called with.

    Attributes
    ----------
    broken
        Sessions whose raw file is missing.
    calls
        ``(table, session_id)`` of each `make`, in order.
    """

    schema: Schema
    broken: set[int] = field(default_factory=set)
    calls: list[tuple[str, int]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.schema.tables[name]
        except KeyError:
            raise AttributeError(name) from None

    def add_sessions(self, numbers: Iterable[int], *, subject: int = 1) -> None:
        self.Subject.insert1({"subject_id": subject, "sex": "F"}, skip_duplicates=True)
        rows = [
            {"subject_id": subject, "session_id": number, "session_date": "2026-11-20"}
            for number in numbers
        ]
        self.Session.insert(rows)

    def definitions(self, **options: Any) -> dg.Definitions:
        return build_definitions(self.schema, **options)

    def asset(self, *path: str) -> str:
        return "/".join([self.schema.name, *path])


def partition(session: int, *, subject: int = 1) -> str:
    return f"subject_id={subject}/session_id={session}"


def partitions(sessions: Iterable[int]) -> set[str]:
    return {partition(session) for session in sessions}


def declare_lab(connection: Connection, name: str) -> Lab:
    schema = Schema(name, connection=connection)
    lab = Lab(schema)

    @schema
    class FilterParams(Lookup):
        definition = """
        # Band-pass filters
        filter_id : int32
        ---
        cutoff : float64
        """
        contents = ((1, 10.0), (2, 20.0))

    @schema
    class Subject(Manual):
        definition = """
        # An animal of the lab
        subject_id : int32
        ---
        sex : enum('F', 'M')
        """

    @schema
    class Session(Manual):
        definition = """
        # One recording session
        -> Subject
        session_id : int32  # counted per subject
        ---
        session_date : date
        note = null : varchar(100)
        """

        class Trial(Part):
            definition = """
            -> master
            trial_id : int32
            ---
            start_s : float64
            """

    @schema
    class RawData(Imported):
        definition = """
        # The recording
        -> Session
        ---
        data : longblob
        """

        def make(self, key: dict[str, Any]) -> None:
            lab.calls.append(("RawData", key["session_id"]))
            if key["session_id"] in lab.broken:
                raise FileNotFoundError(f"no file session{key['session_id']}.csv")
            self.insert1({**key, "data": [key["session_id"], 2, 3]})

    @schema
    class Processed(Computed):
        definition = """
        # The recording, cleaned
        -> RawData
        ---
        total : int32
        """

        class Peak(Part):
            definition = """
            -> master
            peak_id : int32
            ---
            height : float64
            """

        def make(self, key: dict[str, Any]) -> None:
            lab.calls.append(("Processed", key["session_id"]))
            data = (RawData & key).fetch1("data")
            self.insert1({**key, "total": sum(data)})
            self.Peak().insert([{**key, "peak_id": number, "height": 1.0} for number in range(2)])

    @schema
    class Filtered(Computed):
        definition = """
        -> RawData
        -> FilterParams
        ---
        result : float64
        """

        def make(self, key: dict[str, Any]) -> None:
            lab.calls.append(("Filtered", key["session_id"]))
            self.insert1({**key, "result": float(key["filter_id"])})

    return lab
