"""Acting on the real pipeline and on its model at once, and comparing the two.

An act is a name and plain values, so that a history of them can be kept, shortened and replayed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dagster._core.storage.dagster_run import DagsterRun

from tests.orchestration.running import start_and_die
from tests.orchestration.truth_model import SHOWN, Truth
from tests.orchestration.truth_pipeline import COMPUTED, RIG, Key
from tests.orchestration.truth_world import GRAINS, ORDER, Bench, World, read, spelled

CODES = {"Made": 1000, "Below": 2000, "Chosen": 3000, "Fine": 4000}

LOOKS = 10
"""How often a quiet point looks, at least, before it finds a difference."""

PATIENCE = 60.0
"""Seconds that the sensor has to bring all in order, where a tick takes a hundredth of one."""

Act = tuple[Any, ...]
"""The name of a method of `Player`, and its arguments."""


class DifferenceError(AssertionError):
    """What is, or is shown, differs from what should be.

    Attributes
    ----------
    history
        The acts that have led to it.
    """

    def __init__(self, found: Sequence[str], history: Sequence[Act]) -> None:
        super().__init__("\n".join([*found, "", "after", *map(repr, history)]))
        self.history = list(history)


@dataclass
class Created:
    """A run that was created and has not begun."""

    run: DagsterRun
    tables: Sequence[str]
    keys: Sequence[Key]
    recompute: bool


class Player:
    """A world and its model.

    Each act does nothing where it cannot be done, so that a history can do without any of its acts.

    Attributes
    ----------
    history
        The acts that were done.
    """

    def __init__(self, bench: Bench, *, patience: float = PATIENCE) -> None:
        self.world = World(bench, CODES)
        self.truth = Truth(self.world.enforced, dict(CODES))
        self.history: list[Act] = []
        self._patience = patience
        self._late: list[Created] = []

    def close(self) -> None:
        self.world.close()

    def do(self, act: Act) -> None:
        """Do one act; note it if it could be done.

        Raises
        ------
        DifferenceError
            If it is `quiet`, or fails where it should not.
        """
        name, *details = act
        self.history.append(act)
        try:
            done = getattr(self, name)(*details)
        except DifferenceError:
            raise
        except Exception as error:
            raise DifferenceError([f"{name} fails: {error!r}"], self.history) from error
        if done is False:
            self.history.pop()

    # --- people, by our client and by others

    def insert(self, table: str, key: Key, values: Sequence[int], outside: bool) -> bool:
        if key in self.truth.rows[table] or not self.truth.may_refer(table, key):
            return False
        insert = self.world.outside_insert if outside else self.world.insert
        insert(table, key, values)
        self.truth.insert(table, key, tuple(values))
        return True

    def update(self, table: str, key: Key, values: Sequence[int], outside: bool) -> bool:
        if key not in self.truth.rows[table]:
            return False
        update = self.world.outside_update if outside else self.world.update
        update(table, key, values)
        self.truth.update(table, key, tuple(values))
        return True

    def delete(self, table: str, key: Key) -> bool:
        if key not in self.truth.rows[table]:
            return False
        self.world.delete(table, [key])
        self.truth.delete(table, key)
        return True

    def delete_all(self, table: str) -> bool:
        keys = list(self.truth.rows[table])
        if keys:
            self.world.delete(table, keys)
        for key in keys:
            self.truth.delete(table, key)
        return bool(keys)

    def outside_delete(self, table: str, key: Key) -> bool:
        if key not in self.truth.rows[table] or not self.truth.delete_alone(table, key):
            return False
        self.world.outside_delete(table, key)
        return True

    def rename(self, table: str, old: Key, new: Key) -> bool:
        rows = self.truth.rows[table]
        if old not in rows or new in rows or not self.truth.rename(table, old, new):
            return False
        self.world.outside_rename(table, old, new)
        return True

    def replace(self, table: str, key: Key, values: Sequence[int]) -> bool:
        """REPLACE a row, which deletes it first: a server refuses that where others refer to it."""
        there = key in self.truth.rows[table]
        if not there or (self.truth.enforced and self.truth.dependents(table, key)):
            return False
        self.world.outside_insert(table, key, values, verb="REPLACE")
        self.truth.update(table, key, tuple(values))
        return True

    def restore(self, table: str, rows: Sequence[tuple[Key, tuple[int, ...]]]) -> None:
        """Restore a table from a dump."""
        self.world.outside_restore(table, rows)
        self.truth.restore(table, rows)

    def truncate(self, table: str) -> bool:
        if not self.truth.rows[table]:
            return False
        self.world.outside_truncate(table)
        self.truth.rows[table].clear()
        return True

    def populate(self, table: str, reserve: bool) -> None:
        self.world.populate(table, reserve=reserve)
        self.truth.populate(table, reserve=reserve)

    def retry(self, table: str) -> bool:
        if not self.truth.failed[table]:
            return False
        self.world.retry(table)
        self.truth.retry(table)
        return True

    # --- what goes wrong, and what changes

    def spoil(self, table: str, key: Key) -> bool:
        """Have a key fail from now on."""
        RIG.broken.add((table, key))
        self.truth.broken.add((table, key))
        return True

    def heal(self) -> bool:
        """Have no key fail from now on."""
        if not self.truth.broken:
            return False
        RIG.broken.clear()
        self.truth.broken.clear()
        return True

    def change(self, table: str) -> None:
        """Change a `make`, and load the code location."""
        self.truth.codes[table] += 10
        self.world.load(self.truth.codes)

    def restart(self) -> None:
        self.world.load(self.truth.codes)

    def lose_instance(self) -> None:
        self._late.clear()
        self.truth.unmarked.update(COMPUTED)
        self.world.begin_instance()

    # --- the UI

    def launch(self, tables: Sequence[str], start: str, end: str, recompute: bool) -> bool:
        """Run a range of partitions, or one."""
        if not self.create(tables, start, end, recompute):
            return False
        created = self._late.pop()
        self.world.execute(created.run)
        self._has_run(created)
        return True

    def create(self, tables: Sequence[str], start: str, end: str, recompute: bool) -> bool:
        """Create such a run, which begins later."""
        registered = self.world.partitions(GRAINS[tables[0]])
        if start not in registered or end not in registered:
            return False
        chosen = registered[registered.index(start) : registered.index(end) + 1]
        if not chosen or self._is_unclear(tables, list(map(read, chosen))):
            return False
        run = self.world.create(tables, start, end, recompute=recompute)
        self._late.append(Created(run, tables, list(map(read, chosen)), recompute))
        return True

    def execute(self) -> bool:
        """Begin the first of the runs that were created."""
        if not self._late:
            return False
        created, before = self._late.pop(0), RIG.calls.total()
        if self._is_unclear(created.tables, created.keys):
            return True
        done = self.world.execute(created.run)
        # What was chosen may be gone, or have another place: then a run may say so and do nothing.
        if done or RIG.calls.total() > before:
            self._has_run(created)
        return True

    def _is_unclear(self, tables: Sequence[str], keys: Sequence[Key]) -> bool:
        return any(self.truth.is_unclear(table, key) for table in tables for key in keys)

    def die(self, tables: Sequence[str], start: str, end: str, begun: bool) -> bool:
        """Have a run end before it has done anything, or even begun."""
        if not self.create(tables, start, end, False):
            return False
        run, instance = self._late.pop().run, self.world.instance
        start_and_die(instance, run) if begun else instance.report_run_failed(run)
        return True

    def wipe(self, asset: str) -> None:
        self.truth.unmarked.add(asset)
        self.world.instance.wipe_assets([self.world.asset(asset)])

    def remove_partition(self, grain: str, partition: str) -> bool:
        if partition not in self.world.partitions(grain):
            return False
        name = f"{self.world.schema_name}.{grain}"
        self.world.instance.delete_dynamic_partition(name, partition)
        return True

    def _has_run(self, created: Created) -> None:
        for table in created.tables:
            if self.world.executed(created.run, table):
                self.truth.run(table, created.keys, recompute=created.recompute)

    # --- the daemon

    def quiet(self) -> None:
        """Let the daemon work until nothing is left to do, and compare."""
        while self.execute():
            pass
        self.truth.settle()
        end, found, looks = time.monotonic() + self._patience, [""], 0
        # A machine that is busy with other things looks a few times only while one is patient.
        while found and (time.monotonic() < end or looks < LOOKS):
            found, looks = self._settled(), looks + 1
        if found:
            raise DifferenceError(found, self.history)
        self.truth.calls.clear()
        RIG.calls.clear()

    def _settled(self) -> list[str]:
        """Let the daemon work until it asks for nothing, and return what differs."""
        try:
            while self.world.tick():
                pass
            found = self.differences()
        except Exception as error:
            found = [f"the sensor fails: {error!r}"]
        if found:
            time.sleep(0.05)
        return found

    # --- comparing

    def differences(self) -> list[str]:
        """Return what differs; what is shown is compared once the tables agree."""
        return self._of_tables() or self._of_partitions() or self._of_states() or self._of_age()

    def _of_tables(self) -> list[str]:
        world, truth = self.world, self.truth
        found: list[str] = []
        for table in ORDER:
            wanted = {key: row.values for key, row in truth.rows[table].items()}
            found += differing(f"rows of {table}", wanted, world.rows(table))
        pieces = {key: (height,) for key, height in truth.pieces().items()}
        found += differing("rows of Made.Piece", pieces, world.rows("Made.Piece"))
        for table in COMPUTED:
            wanted_errors = dict.fromkeys(truth.failed[table], "error")
            errors = dict.fromkeys(world.failed(table), "error")
            found += differing(f"jobs of {table}", wanted_errors, errors)
        return found + differing("calls", dict(truth.calls), dict(RIG.calls))

    def _of_partitions(self) -> list[str]:
        found: list[str] = []
        for grain in ("Session", "Param", "Fine"):
            wanted = {spelled(grain, key) for key in self.truth.partitions(grain)}
            there = self.world.partitions(grain)
            found += differing(
                f"partitions of {grain}", dict.fromkeys(wanted, 1), dict(Counter(there))
            )
        return found

    def _of_states(self) -> list[str]:
        found: list[str] = []
        for table in ORDER:
            keys = self.truth.partitions(GRAINS[table])
            states = self.truth.states(table, keys)
            wanted = {spelled(table, key): state for key, state in states.items()}
            for asset in SHOWN.get(table, (table,)):
                found += differing(f"states of {asset}", wanted, self.world.states(asset))
        return found

    def _of_age(self) -> list[str]:
        found: list[str] = []
        for table in COMPUTED:
            shown = self.truth.partitions(GRAINS[table]) & self.truth.rows[table].keys()
            ages = {spelled(table, key): self.truth.stale(table, key) for key in shown}
            wanted = {each: age for each, age in ages.items() if age is not None}
            found += differing(f"stale keys of {table}", wanted, self.world.stale(table, wanted))
        return found


def differing(what: str, wanted: dict[Any, Any], found: dict[Any, Any]) -> list[str]:
    """Return a line for each key of which something else was found than is wanted."""
    keys = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    return [
        f"{what}: {key} is {found.get(key, 'not there')}, not {wanted.get(key, 'not there')}"
        for key in sorted(keys, key=str)
    ]
