"""What the truth machine expects: the pipeline's rows, failures and states, worked out in memory.

Nothing here knows of a database, of Dagster or of dj_dagster. Each act of the machine has its
counterpart; `settle` does what is left to do once everybody waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.orchestration.truth_pipeline import COMPUTED, ENTERED, KEYS, PIECES, Key

PARENTS = {
    "Made": ("Session",),
    "Grade": ("Made",),
    "Below": ("Made",),
    "Chosen": ("Session",),
    "Fine": ("Made", "Param"),
}
CHILDREN = {
    "Session": ("Made", "Chosen"),
    "Param": ("Fine",),
    "Made": ("Grade", "Below", "Fine"),
}
ABOVE = {table: ("Session", "Param") if table == "Fine" else ("Session",) for table in COMPUTED}
"""The tables of people that a table's keys come from, directly or not."""

SHOWN = {"Made": ("Made", "Made/Piece")}
"""The assets of a table, where it has others than its own."""

State = Literal["materialised", "failed", "missing"]


@dataclass
class Row:
    """A row of one table.

    Attributes
    ----------
    values
        What is beside the key.
    code
        The number in the `make` that made it; None where nobody can know.
    inputs
        The rows that it was made from, by table, as they were.
    """

    values: tuple[Any, ...]
    code: int | None = None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Truth:
    """The pipeline as it should be.

    Attributes
    ----------
    enforced
        Whether outside clients keep foreign keys: they do not in SQLite.
    codes
        The number in each `make`.
    rows, failed
        By table and key.
    broken
        Keys whose `make` raises.
    calls
        How often each `make` was called for a key, since this was emptied.
    noted
        Keys that were made, until their rows are seen to be gone by their marks.
    unmarked
        Tables whose marks are gone since everybody waited.
    lasting
        Keys whose rows were gone before they were marked again.
    """

    enforced: bool
    codes: dict[str, int]
    rows: dict[str, dict[Key, Row]] = field(
        default_factory=lambda: {table: {} for table in (*ENTERED, *COMPUTED)}
    )
    failed: dict[str, set[Key]] = field(
        default_factory=lambda: {table: set() for table in COMPUTED}
    )
    broken: set[tuple[str, Key]] = field(default_factory=set)
    calls: Counter[tuple[str, Key]] = field(default_factory=Counter)
    noted: set[tuple[str, Key]] = field(default_factory=set)
    unmarked: set[str] = field(default_factory=set)
    lasting: set[tuple[str, Key]] = field(default_factory=set)

    # --- what is asked of it

    def source(self, table: str) -> list[Key]:
        """The keys that a table's `make` may be given."""
        if table == "Chosen":
            return [key for key, row in self.rows["Session"].items() if row.values[1]]
        if table == "Fine":
            return [m + p for m in self.rows["Made"] for p in self.rows["Param"]]
        return list(self.rows[PARENTS[table][0]])

    def partitions(self, grain: str) -> set[Key]:
        """The keys of a grain, named after the table where it begins."""
        found = set(self.rows[grain])
        return found | set(self.source(grain)) if grain in COMPUTED else found

    def states(self, table: str, keys: Iterable[Key]) -> dict[Key, State]:
        """What the partitions of a table are shown as."""
        failed = self.failed.get(table, set())
        return {
            key: "materialised"
            if key in self.rows[table]
            else "failed"
            if key in failed
            else "missing"
            for key in keys
        }

    def stale(self, table: str, key: Key) -> bool | None:
        """Whether a row is of other code or inputs than there are now; None if nobody can know."""
        row = self.rows[table][key]
        if row.code is None:
            return None
        now = {parent: self._input(table, key, parent) for parent in PARENTS[table]}
        if row.code != self.codes[table]:
            return True
        return None if None in now.values() else now != row.inputs

    def is_unclear(self, table: str, key: Key) -> bool:
        """Whether a row may count as stale by the note on another that had its key before.

        A run may then make it again, or leave it.
        """
        row = self.rows[table].get(key)
        return row is not None and row.code is None and (table, key) in self.noted

    def pieces(self) -> dict[Key, int]:
        """The rows of the part, with their heights."""
        made = self.rows["Made"].items()
        return {(*key, n): row.values[0] + n for key, row in made for n in range(PIECES)}

    def dependents(self, table: str, key: Key) -> list[tuple[str, Key]]:
        """The rows that hang on a row, directly or not."""
        found: list[tuple[str, Key]] = []
        for child in CHILDREN.get(table, ()):
            for each in self.rows[child]:
                if parent_key(child, each, table) == key:
                    found += [(child, each), *self.dependents(child, each)]
        return list(dict.fromkeys(found))

    def may_refer(self, table: str, key: Key) -> bool:
        """Whether a row that people enter finds what it refers to."""
        return all(
            parent_key(table, key, each) in self.rows[each] for each in PARENTS.get(table, ())
        )

    # --- what clients do

    def insert(self, table: str, key: Key, values: tuple[Any, ...]) -> None:
        self.rows[table][key] = Row(values)

    def update(self, table: str, key: Key, values: tuple[Any, ...]) -> None:
        self.rows[table][key].values = values

    def delete(self, table: str, key: Key) -> None:
        """Delete a row with all that depends on it, as our client does."""
        for child, each in self.dependents(table, key):
            del self.rows[child][each]
        del self.rows[table][key]

    def delete_alone(self, table: str, key: Key) -> bool:
        """Delete a row as an outside client does; return whether the database lets it."""
        if self.enforced and self.dependents(table, key):
            return False
        del self.rows[table][key]
        return True

    def rename(self, table: str, old: Key, new: Key) -> bool:
        """Give a row another key as an outside client does; return whether the database lets it.

        A server renames what hangs on it.
        """
        hanging = self.dependents(table, old) if self.enforced else []
        renamed = {(table, old): new}
        for child, each in hanging:
            changed = dict(zip(KEYS[child], each, strict=True))
            changed |= dict(zip(KEYS[table], new, strict=True))
            renamed[child, each] = tuple(changed[name] for name in KEYS[child])
        if any(key in self.rows[child] for (child, _), key in renamed.items()):
            return False
        for (child, each), key in renamed.items():
            row = self.rows[child][key] = self.rows[child].pop(each)
            if child in COMPUTED:
                row.code = None
        return True

    def restore(self, table: str, rows: Sequence[tuple[Key, tuple[Any, ...]]]) -> None:
        """Have the rows of a dump, and no others; nothing looks at what refers to them."""
        self.rows[table] = {key: Row(values) for key, values in rows}

    def retry(self, table: str) -> None:
        """Forget the errors of a table."""
        self.failed[table].clear()

    # --- what is made

    def populate(self, table: str, *, reserve: bool) -> None:
        """Make what is pending as `populate` does, with the errors of before or without."""
        if reserve:
            self.failed[table] &= {*self.source(table)} - self.rows[table].keys()
        for key in self.source(table):
            if key not in self.rows[table] and not (reserve and key in self.failed[table]):
                self._make(table, key, noted=reserve)

    def run(self, table: str, keys: Iterable[Key], *, recompute: bool = False) -> None:
        """Make the keys of a run as a person asks for them."""
        possible = set(self.source(table))
        wanted = list(keys)
        again = [key for key in wanted if self._is_made_again(table, key, possible, recompute)]
        for key in again:
            self.delete(table, key)
        for key in wanted:
            if key in possible and key not in self.rows[table]:
                self._make(table, key)

    def settle(self) -> None:
        """Make all that is pending, has not failed, and has a partition."""
        for table in COMPUTED:
            self.failed[table] -= self.rows[table].keys()
            for key in self.source(table):
                done = key in self.rows[table] or key in self.failed[table]
                if not done and self._has_partition(table, key):
                    self._make(table, key)
        gone = {(table, key) for table, key in self.noted if key not in self.rows[table]}
        self.lasting |= {each for each in gone if each[0] in self.unmarked}
        self.noted -= gone - self.lasting
        self.unmarked.clear()
        for table, failed in self.failed.items():
            possible = {*self.source(table)}
            failed -= {k for k in failed if k not in possible and self._is_taken_back(table, k)}

    def _has_partition(self, table: str, key: Key) -> bool:
        """Whether the row is there with which the table's grain begins: not below an orphan."""
        return table == "Fine" or key in self.rows["Session"]

    def _is_taken_back(self, table: str, key: Key) -> bool:
        return any(parent_key(table, key, each) not in self.rows[each] for each in ABOVE[table])

    def _is_made_again(self, table: str, key: Key, possible: set[Key], recompute: bool) -> bool:
        if key not in self.rows[table] or key not in possible:
            return False
        if any(child in ENTERED for child, _ in self.dependents(table, key)):
            return False
        return recompute or bool(self.stale(table, key))

    def _make(self, table: str, key: Key, *, noted: bool = True) -> None:
        self.calls[table, key] += 1
        if (table, key) in self.broken:
            if noted:
                self.failed[table].add(key)
            return
        if noted:
            self.failed[table].discard(key)
        inputs = {parent: self._input(table, key, parent) for parent in PARENTS[table]}
        self.noted.add((table, key))
        self.rows[table][key] = Row(self._values(table, key), self.codes[table], inputs)

    def _values(self, table: str, key: Key) -> tuple[Any, ...]:
        value = self.codes[table]
        if table == "Fine":
            value += self.rows["Made"][key[:2]].values[0] + self.rows["Param"][key[2:]].values[0]
        else:
            value += self.rows[PARENTS[table][0]][key].values[0]
        return (value, [value, key[1]]) if table == "Made" else (value,)

    def _input(self, table: str, key: Key, parent: str) -> Any:
        row = self.rows[parent].get(parent_key(table, key, parent))
        if row is None:
            return None
        return row.values


def parent_key(table: str, key: Key, parent: str) -> Key:
    """Return which row of a parent a key refers to."""
    values = dict(zip(KEYS[table], key, strict=True))
    return tuple(values[name] for name in KEYS[parent])
