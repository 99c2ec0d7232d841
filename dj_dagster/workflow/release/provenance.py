"""The provenance of a release's rows as W3C PROV.

==========  =====================================================================================
PROV        here
==========  =====================================================================================
entity      a row of the trace, with the number of its parts' rows; an object in a store; the
            code of a `make` as a plan
activity    a call of `make`: what it generated and what it used, with its time where the table
            has it; the run of Dagster that started it, if that is noted
agent       dj_dagster
==========  =====================================================================================
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from dj_dagster.lazy import LateModule
from dj_dagster.model.heading import Row, Values
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.free_table import FreeTable
from dj_dagster.relational.values import is_null
from dj_dagster.workflow.notes import Notes
from dj_dagster.workflow.release.contents import (
    COMPUTED_TIERS,
    Located,
    ReleasedRows,
    ReleasedTable,
    make_names,
    maker_of,
    title,
)

if TYPE_CHECKING:
    import prov.model as prov
else:
    # Of an extra.
    prov = LateModule("prov.model")

_NAMESPACES = ("row", "make", "code", "object", "software", "run", "dj")
_URN = "urn:dj-dagster"


@dataclass(frozen=True)
class Activity:
    """A call of `make`.

    Attributes
    ----------
    title
        The table that has the `make`: for a part its master.
    key
        Its arguments.
    code
        The version of its code, "" if unknown.
    run
        The run of Dagster in which it was called, "" if it was not or that is unknown.
    """

    title: str
    key: Row
    code: str
    run: str = ""


class ProvenanceDocument:
    """Builds the document of a release.

    Parameters
    ----------
    version
        That of dj_dagster.
    """

    def __init__(self, connection: Connection, version: str) -> None:
        self._connection = connection
        self._document = prov.ProvDocument()
        self._spaces = {
            name: self._document.add_namespace(name, f"{_URN}:{name}:") for name in _NAMESPACES
        }
        agent = self._spaces["software"][f"dj_dagster-{version}"]
        kind = {prov.PROV_TYPE: prov.PROV["SoftwareAgent"], prov.PROV_LABEL: "dj_dagster"}
        self._agent = self._document.agent(agent, kind)
        self._activities: dict[str, prov.ProvActivity] = {}
        self._plans: dict[str, prov.ProvEntity] = {}
        self._runs: dict[str, prov.ProvActivity] = {}
        self._objects: set[Located] = set()

    def add(self, released: ReleasedRows) -> None:
        """Add all rows of a trace."""
        traced = {table.name: table for table in released.tables if table.traced}
        for table in released.tables:
            if table.traced:
                self._add_table(table, traced, _part_counts(table, released.tables))

    def content(self) -> object:
        """Return the document as the content of PROV-JSON."""
        return json.loads(str(self._document.serialize(format="json")))

    def _add_table(
        self,
        table: ReleasedTable,
        traced: Mapping[TableName, ReleasedTable],
        parts: Mapping[Values, int],
    ) -> None:
        activities = activities_of(self._connection, table) if table.tier in COMPUTED_TIERS else []
        for place, row in enumerate(table.rows):
            about: dict[prov.QualifiedName, str | int | prov.QualifiedName] = {
                prov.PROV_TYPE: self._spaces["dj"][table.tier.value],
                prov.PROV_LABEL: table.title,
                self._spaces["dj"]["role"]: table.role,
            }
            if count := parts.get(tuple(row[name] for name in table.key), 0):
                about[self._spaces["dj"]["parts"]] = count
            entity = self._document.entity(self._row(table, row), about)
            for located in table.objects.get(place, ()):
                self._document.hadMember(entity, self._object(located))
            parents = [
                self._spaces["row"][_spelled(title(key.parent), parent)]
                for key in table.references()
                if key.parent in traced and (parent := _parent(row, key.attributes)) is not None
            ]
            for parent in parents:
                self._document.wasDerivedFrom(entity, parent)
            if activities:
                activity = self._activity(row, activities[place], parents)
                self._document.wasGeneratedBy(entity, activity)

    def _row(self, table: ReleasedTable, row: Row) -> prov.QualifiedName:
        key = {name: row[name] for name in table.key}
        return self._spaces["row"][_spelled(table.title, key)]

    def _object(self, located: Located) -> prov.QualifiedName:
        store, path, _ = located
        identifier = self._spaces["object"][quote(f"{store}/{path}", safe="/=")]
        if located not in self._objects:
            self._objects.add(located)
            self._document.entity(identifier, {prov.PROV_LABEL: f"{store}:{path}"})
        return identifier

    def _activity(
        self, row: Row, call: Activity, parents: Sequence[prov.QualifiedName]
    ) -> prov.ProvActivity:
        name = _spelled(call.title, call.key)
        found = self._activities.get(name)
        if found is None:
            began, ended = _times(row)
            identifier = self._spaces["make"][name]
            label = {prov.PROV_LABEL: f"{call.title}.make"}
            found = self._document.activity(identifier, began, ended, label)
            self._activities[name] = found
            plan = self._plan(call) if call.code else None
            self._document.wasAssociatedWith(found, self._agent, plan)
            for parent in parents:
                self._document.used(found, parent)
            if call.run:
                self._document.wasStartedBy(found, starter=self._run(call.run))
        return found

    def _run(self, run_id: str) -> prov.ProvActivity:
        if run_id not in self._runs:
            about: dict[prov.QualifiedName, str | int | prov.QualifiedName] = {
                prov.PROV_TYPE: self._spaces["dj"]["DagsterRun"],
                prov.PROV_LABEL: f"Dagster run {run_id}",
            }
            identifier = self._spaces["run"][quote(run_id, safe="")]
            self._runs[run_id] = self._document.activity(identifier, other_attributes=about)
        return self._runs[run_id]

    def _plan(self, call: Activity) -> prov.ProvEntity:
        name = quote(f"{call.title}@{call.code}", safe="@")
        if name not in self._plans:
            about: dict[prov.QualifiedName, str | int | prov.QualifiedName] = {
                prov.PROV_TYPE: prov.PROV["Plan"],
                prov.PROV_LABEL: f"{call.title}.make",
                self._spaces["dj"]["version"]: call.code,
            }
            self._plans[name] = self._document.entity(self._spaces["code"][name], about)
        return self._plans[name]


def activities_of(connection: Connection, table: ReleasedTable) -> list[Activity]:
    """Return for each row of a table the call of `make` that made it."""
    maker = maker_of(table.name)
    names, own = make_names(connection, maker), make_names(connection, table.name)
    keys = [dict(zip(names, (row[name] for name in own), strict=False)) for row in table.rows]
    notes = Notes(FreeTable(connection, maker), names).read(keys)
    found: list[Activity] = []
    for row, key in zip(table.rows, keys, strict=True):
        note = notes.get(tuple(key.values()))
        code = note.code if note is not None and note.code else row.get("_job_version")
        run = note.run if note is not None else ""
        found.append(Activity(title(maker), key, str(code or ""), run))
    return found


def _part_counts(master: ReleasedTable, tables: Sequence[ReleasedTable]) -> dict[Values, int]:
    """Return how many rows the parts have by key of their master, those of the trace aside."""
    counts: dict[Values, int] = defaultdict(int)
    for part in tables:
        if part.traced or not part.name.table.startswith(f"{master.name.table}__"):
            continue
        for key in part.references():
            if key.parent == master.name:
                columns = {parent: own for own, parent in key.attributes.items()}
                for row in part.rows:
                    counts[tuple(row[columns[name]] for name in master.key)] += 1
                break
    return counts


def _parent(row: Row, attributes: Mapping[str, str]) -> Row | None:
    """Return the key of a row's parent, None if it has none."""
    key = {parent: row[own] for own, parent in attributes.items()}
    return None if any(map(is_null, key.values())) else key


def _times(row: Row) -> tuple[datetime | None, datetime | None]:
    began, seconds = row.get("_job_start_time"), row.get("_job_duration")
    if began is None or seconds is None:
        return began, None
    return began, began + timedelta(seconds=float(seconds))


def _spelled(table: str, key: Row) -> str:
    parts = [f"{quote(name)}={quote(str(value), safe='')}" for name, value in sorted(key.items())]
    return "/".join([quote(table), *parts])
