"""The stale keys of a computed table, and the deletion of keys that are to be made again.

A `make` does not bring back rows that people entered, so keys with such dependent rows are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dj_dagster.model.names import TableName, class_path
from dj_dagster.relational.algebra.nodes import all_rows
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import Doomed, doomed_rows, row_counts
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.relational.table import Table
from dj_dagster.workflow.code_version import code_version
from dj_dagster.workflow.collation import has_spellings, matched
from dj_dagster.workflow.notes import Inputs, Note, Notes, is_entered

Key = dict[str, Any]
Row = tuple[Any, ...]

Age = Literal["current", "code", "inputs", "unknown"]
"""The age of a key.

It was made as it would be made now, by other code, from rows that have changed since, or without a
note.
"""

STALE: tuple[Age, ...] = ("code", "inputs")

CHUNK = 10_000
"""Keys whose age is found together."""


class Staleness:
    """The ages of the keys of one table.

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
        notes = self._read(keys)
        noted = [key for key in keys if tuple(key.values()) in notes]
        inputs = self._inputs.of(noted) if noted else {}
        found: dict[Row, tuple[Age, Note | None]] = {}
        for row in (tuple(key.values()) for key in keys):
            note = notes.get(row)
            found[row] = ("unknown", None) if note is None else (self._age(note, inputs[row]), note)
        return found

    def _read(self, keys: Sequence[Mapping[str, Any]]) -> dict[Row, Note]:
        notes = self.notes.read(keys)
        rest = [key for key in keys if tuple(key.values()) not in notes]
        spelled = _spelled(self._table, rest)
        more = self.notes.read(list(spelled.values())) if spelled else {}
        found = {row: more.get(tuple(key.values())) for row, key in spelled.items()}
        return notes | {row: note for row, note in found.items() if note is not None}

    def stale(self, *restrictions: Any) -> list[Key]:
        """Return the stale keys among those in the table for which all restrictions hold."""
        return [
            key
            for keys in self.pages(*restrictions)
            for key, (age, _) in zip(keys, self.of(keys).values(), strict=True)
            if age in STALE
        ]

    def pages(self, *restrictions: Any) -> Iterator[list[Key]]:
        """Yield the keys in the table for which all restrictions hold, page by page."""
        rows: Any = self._table
        for restriction in restrictions:
            rows = rows & restriction
        window = make_window(self._names or None, None, None, rows.heading)
        values = fetch.rows(rows.connection, rows.node, self._names, window)
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


def _spelled(table: Table, keys: Sequence[Mapping[str, Any]]) -> dict[Row, Key]:
    """Return the keys that a table spells differently, as it spells them; so are the notes."""
    names = list(keys[0]) if keys else []
    if not has_spellings(table.connection, map(table.heading.__getitem__, names)):
        return {}
    rows = [tuple(key.values()) for key in keys]
    pairs = matched(table.connection, all_rows(table.name, table.heading), names, rows)
    differing = {row: own for row, own in pairs.items() if row != own}
    return {row: dict(zip(names, own, strict=True)) for row, own in differing.items()}


DELETED_TOGETHER = 100
"""Keys that are deleted together, just before they are made."""


@dataclass(frozen=True)
class KeyDeletion:
    """The deletion of keys of one table so that they can be made again.

    Attributes
    ----------
    names
        The attributes of the keys that its `make` is given.
    is_filled
        A function that tells whether a `make` fills a table.
    with_entered
        Whether rows that people entered are deleted too.
    below
        The attributes of the keys of `make`, for each dependent table.
    gone
        The keys of these tables that were deleted with keys that they depend on.
    """

    table: Table
    names: Sequence[str]
    is_filled: Callable[[TableName], bool] = field(default=lambda name: not is_entered(name))
    with_entered: bool = False
    below: Mapping[TableName, Sequence[str]] = field(default_factory=dict[TableName, Sequence[str]])
    gone: dict[TableName, list[Key]] = field(default_factory=dict[TableName, list[Key]])

    def clear(self, keys: Sequence[Key]) -> dict[Row, str]:
        """Delete the rows of keys with all that depends on them.

        Returns
        -------
        dict
            The keys that are left, by their values, each with the reason.
        """
        left = {} if self.with_entered else self._kept(keys)
        free = [key for key in keys if tuple(key.values()) not in left]
        if free:
            if self.below:
                self._note_gone(free)
            spelled = _spelled(self.table, free)
            self._rows(free).delete(prompt=False)
            Notes(self.table, self.names).forget([*free, *spelled.values()])
        return left

    def _kept(self, keys: Sequence[Key]) -> dict[Row, str]:
        """Return the keys with dependent rows that people entered, found by halving `keys`."""
        entered = self._entered(keys) if keys else {}
        if not entered:
            return {}
        if len(keys) == 1:
            found = ", ".join(
                f"{count} rows of {name.schema}.{class_path(name.table)}"
                for name, count in entered.items()
            )
            reason = f"{found} depend on it, and no make brings them back: delete them first"
            return {tuple(keys[0].values()): reason}
        half = len(keys) // 2
        return self._kept(keys[:half]) | self._kept(keys[half:])

    def _rows(self, keys: Sequence[Key]) -> Any:
        # A key without attributes stands for all rows.
        return self.table & list(keys) if self.names else self.table

    def _entered(self, keys: Sequence[Key]) -> Mapping[TableName, int]:
        doomed = self._doomed(keys)
        unfilled = {name: rows for name, rows in doomed.items() if not self.is_filled(name)}
        found = row_counts(self.table.connection, unfilled)
        return {name: count for name, count in found.items() if count}

    def _doomed(self, keys: Sequence[Key]) -> Doomed:
        rows, connection = self._rows(keys), self.table.connection
        return doomed_rows(connection, hierarchy.of_table(connection, rows.node), self.table.name)

    def _note_gone(self, keys: Sequence[Key]) -> None:
        for name, layers in self._doomed(keys).items():
            names = self.below.get(name, ())
            if name == self.table.name or not names:
                continue
            known = self.gone.setdefault(name, [])
            for rows in layers:
                found = fetch.rows(self.table.connection, rows, names)
                known += [dict(zip(names, row, strict=True)) for row in dict.fromkeys(found)]
