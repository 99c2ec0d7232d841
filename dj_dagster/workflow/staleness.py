"""Which keys of a computed table are stale: `make`, or a row that they refer to, has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.table import Table
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.inputs import Inputs
from dj_dagster.workflow.notes import Note, Notes

Key = dict[str, Any]
Row = tuple[Any, ...]

Age = Literal["current", "code", "inputs", "unknown"]
"""What a key is: made as it would be made now, by other code, from rows that have changed since, or
without a note."""

STALE: tuple[Age, ...] = ("code", "inputs")

CHUNK = 10_000
"""Keys that are looked at together."""


class Staleness:
    """Tells what age the keys of one table are.

    Parameters
    ----------
    names
        The attributes of the keys that its `make` is given.
    source
        The class that has the `make`.
    """

    def __init__(self, table: Table, names: Sequence[str], source: type) -> None:
        self.code = code_version(source)
        self.notes = Notes(table, names)
        self._table = table
        self._names = list(names)
        self._inputs = Inputs(table, names)

    def of(self, keys: Sequence[Mapping[str, Any]]) -> dict[Row, tuple[Age, Note | None]]:
        """Return the age of keys that are in the table, and the note on each, by their values."""
        notes = self.notes.read(keys)
        noted = [key for key in keys if tuple(key.values()) in notes]
        inputs = self._inputs.of(noted) if noted else {}
        found: dict[Row, tuple[Age, Note | None]] = {}
        for row in (tuple(key.values()) for key in keys):
            note = notes.get(row)
            found[row] = ("unknown", None) if note is None else (self._age(note, inputs[row]), note)
        return found

    def stale(self, *restrictions: Any) -> list[Key]:
        """Return the stale keys among those in the table for which all restrictions hold."""
        return [
            key
            for keys in self.pages(*restrictions)
            for key, (age, _) in zip(keys, self.of(keys).values(), strict=True)
            if age in STALE
        ]

    def pages(self, *restrictions: Any) -> Iterator[list[Key]]:
        """Yield the keys in the table for which all restrictions hold, so many at a time."""
        rows: Any = self._table
        for restriction in restrictions:
            rows = rows & restriction
        values = fetch.rows(rows.connection, rows.node, self._names, self._names or None)
        distinct = list(dict.fromkeys(map(tuple, values)))
        for start in range(0, len(distinct), CHUNK):
            chunk = distinct[start : start + CHUNK]
            yield [dict(zip(self._names, row, strict=True)) for row in chunk]

    def _age(self, note: Note, inputs: object) -> Age:
        if self.code and note.code and note.code != self.code:
            return "code"
        if note.inputs != inputs:
            return "inputs"
        return "current" if note.code or not self.code else "unknown"
