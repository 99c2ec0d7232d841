"""A machine that uses a pipeline at random, and compares what is with what should be.

People, outside clients, the daemon and the people at the UI act one after the other. At each quiet
point, when the sensor asks for nothing any more, three things are compared key by key: what should
have been made (`truth_model`), what the tables and the store hold, and what Dagster shows.

A long run ends with the first difference and the shortest history that leads to it::

    python -m tests.orchestration.truth_machine --backend sqlite --steps 2000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import ClassVar

import dagster as dg
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.orchestration.conftest import SETTINGS
from tests.orchestration.truth_pipeline import COMPUTED, Key
from tests.orchestration.truth_player import Act, DifferenceError, Player
from tests.orchestration.truth_world import GRAINS, ORDER, Bench
from tests.services.mariadb import mariadb
from tests.services.mysql import mysql

MOST = {"Session": 7, "Param": 2}
"""Rows that people enter, at most."""

STEPS = 40
"""Steps of one history, before another begins on a new database."""

SHRINKING = 4.0
"""Seconds that a quiet point may take while a history is made shorter."""

SERVERS = {"mariadb": mariadb, "mysql": mysql}

subjects = st.integers(1, 2)
sessions = st.sampled_from([1, 2, 3, 4, 5, 0, -3, 5000, 90000])
params = st.integers(1, 3)
weights = st.integers(0, 3)
flags = st.booleans()
picks = st.integers(0, 11)
computed = st.sampled_from(COMPUTED)
tables = st.sampled_from(ORDER)
chosen = st.sampled_from(
    [("Made",), ("Below",), ("Chosen",), ("Made", "Below"), ("Made", "Below", "Chosen"), ("Fine",)]
)
lengths = st.integers(0, 4)


class TruthMachine(RuleBasedStateMachine):
    """Draws what is done next, with names for what there is.

    Attributes
    ----------
    bench
        Where worlds are made; given by a subclass.
    done
        How often each act was done, by all machines of a class.
    found
        The first difference. Nothing is done after it: hypothesis would try to come to it again,
        and shorten the history by drawing others, which takes much longer than `shortest` does.
    """

    bench: ClassVar[Bench]
    done: ClassVar[Counter[str]]
    found: ClassVar[list[DifferenceError]]

    def __init__(self) -> None:
        super().__init__()
        self.player = Player(self.bench)
        self.busy = 1
        self.dumped: dict[str, list[tuple[Key, tuple[int, ...]]]] = {}

    def teardown(self) -> None:
        # Each history ends with a comparison.
        self._do("quiet")
        self.player.close()

    @initialize(
        numbers=st.lists(sessions, min_size=1, max_size=4, unique=True),
        scale=weights,
        busy=st.integers(1, 8),
    )
    def begin(self, numbers: list[int], scale: int, busy: int) -> None:
        self.busy = busy
        for number in numbers:
            self._do("insert", "Session", (1, number), (1, number % 2), False)
        self._do("insert", "Param", (1,), (scale,), False)

    @rule()
    def quiet(self) -> None:
        self._do("quiet")

    # --- people

    @rule(subject=subjects, number=sessions, weight=weights, approved=flags, outside=flags)
    def insert_session(
        self, subject: int, number: int, weight: int, approved: bool, outside: bool
    ) -> None:
        self._insert("Session", (subject, number), (weight, int(approved)), outside)

    @rule(subject=subjects, first=st.integers(1, 3), approved=flags)
    def insert_sessions(self, subject: int, first: int, approved: bool) -> None:
        for number in range(first, first + 3):
            self._insert("Session", (subject, number), (1, int(approved)), False)

    @rule(param=params, scale=weights, outside=flags)
    def insert_param(self, param: int, scale: int, outside: bool) -> None:
        self._insert("Param", (param,), (scale,), outside)

    @rule(pick=picks, grade=weights, outside=flags)
    def insert_grade(self, pick: int, grade: int, outside: bool) -> None:
        for key in self._picked("Made", pick):
            self._insert("Grade", key, (grade,), outside)

    @rule(pick=picks, weight=weights, approved=flags, outside=flags)
    def update_session(self, pick: int, weight: int, approved: bool, outside: bool) -> None:
        for key in self._picked("Session", pick):
            self._do("update", "Session", key, (weight, int(approved)), outside)

    @rule(pick=picks, scale=weights, outside=flags)
    def update_param(self, pick: int, scale: int, outside: bool) -> None:
        for key in self._picked("Param", pick):
            self._do("update", "Param", key, (scale,), outside)

    @rule(table=tables, pick=picks)
    def delete(self, table: str, pick: int) -> None:
        for key in self._picked(table, pick):
            self._do("delete", table, key)

    @rule(pick=picks)
    def enter_again(self, pick: int) -> None:
        for key in self._picked("Session", pick):
            values = self.player.truth.rows["Session"][key].values
            self._do("delete", "Session", key)
            self._do("insert", "Session", key, values, False)

    @rule(table=tables)
    def delete_all(self, table: str) -> None:
        self._do("delete_all", table)

    @rule(table=computed, reserve=flags)
    def populate(self, table: str, reserve: bool) -> None:
        self._do("populate", table, reserve)

    @rule(table=computed)
    def retry(self, table: str) -> None:
        self._do("retry", table)

    # --- outside clients

    @rule(table=tables, pick=picks)
    def outside_delete(self, table: str, pick: int) -> None:
        for key in self._picked(table, pick):
            self._do("outside_delete", table, key)

    @rule(pick=picks, subject=subjects, number=sessions)
    def rename_session(self, pick: int, subject: int, number: int) -> None:
        for key in self._picked("Session", pick):
            self._do("rename", "Session", key, (subject, number))

    @rule(pick=picks, new=params)
    def rename_param(self, pick: int, new: int) -> None:
        for key in self._picked("Param", pick):
            self._do("rename", "Param", key, (new,))

    @rule(one=picks, other=picks)
    def rename_with_the_same_sum(self, one: int, other: int) -> None:
        for first in self._picked("Session", one):
            for second in self._picked("Session", other):
                if first[0] == second[0] and second[1] - first[1] > 2:
                    self._do("rename", "Session", first, (first[0], first[1] + 1))
                    self._do("rename", "Session", second, (second[0], second[1] - 1))

    @rule(pick=picks, weight=weights, approved=flags)
    def replace(self, pick: int, weight: int, approved: bool) -> None:
        for key in self._picked("Session", pick):
            self._do("replace", "Session", key, (weight, int(approved)))

    @rule(table=st.sampled_from(["Session", "Param", "Grade"]))
    def dump(self, table: str) -> None:
        rows = self.player.truth.rows[table]
        self.dumped[table] = [(key, row.values) for key, row in rows.items()]

    @rule(table=st.sampled_from(["Session", "Param", "Grade"]))
    def restore(self, table: str) -> None:
        if table in self.dumped:
            self._do("restore", table, self.dumped[table])

    @rule(table=st.sampled_from(["Below", "Chosen", "Fine", "Grade"]))
    def truncate(self, table: str) -> None:
        self._do("truncate", table)

    # --- what goes wrong, and what changes

    @rule(table=computed, subject=subjects, number=sessions, param=params)
    def spoil(self, table: str, subject: int, number: int, param: int) -> None:
        key = (subject, number, param) if table == "Fine" else (subject, number)
        self._do("spoil", table, key)

    @rule(table=computed, pick=picks)
    def spoil_what_is_there(self, table: str, pick: int) -> None:
        for key in self._picked(table, pick):
            self._do("spoil", table, key)

    @rule()
    def heal(self) -> None:
        self._do("heal")

    @rule(table=computed)
    def change(self, table: str) -> None:
        self._do("change", table)

    @rule()
    def restart(self) -> None:
        self._do("restart")

    @rule()
    def lose_instance(self) -> None:
        self._do("lose_instance")

    # --- the UI

    @rule(names=chosen, start=picks, length=lengths, recompute=flags)
    def launch(self, names: Sequence[str], start: int, length: int, recompute: bool) -> None:
        for ends in self._range(names, start, length):
            self._do("launch", names, *ends, recompute)

    @rule(names=chosen, start=picks, length=lengths, recompute=flags)
    def create(self, names: Sequence[str], start: int, length: int, recompute: bool) -> None:
        for ends in self._range(names, start, length):
            self._do("create", names, *ends, recompute)

    @rule()
    def execute(self) -> None:
        self._do("execute")

    @rule(names=chosen, start=picks, length=lengths, begun=flags)
    def die(self, names: Sequence[str], start: int, length: int, begun: bool) -> None:
        for ends in self._range(names, start, length):
            self._do("die", names, *ends, begun)

    @rule(table=tables)
    def wipe(self, table: str) -> None:
        self._do("wipe", table)

    @rule(grain=st.sampled_from(["Session", "Param", "Fine"]), pick=picks)
    def remove_partition(self, grain: str, pick: int) -> None:
        registered = self.player.world.partitions(grain)
        if registered:
            self._do("remove_partition", grain, registered[pick % len(registered)])

    # --- parts of the rules

    def _do(self, *act: object) -> None:
        if self.found:
            return
        before = len(self.player.history)
        try:
            self.player.do(act)
        except DifferenceError as difference:
            self.found.append(difference)
            return
        self.done.update([str(act[0])] * (len(self.player.history) - before))
        recent = self.player.history[-self.busy :]
        if len(recent) == self.busy and all(name != "quiet" for name, *_ in recent):
            self._do("quiet")

    def _insert(self, table: str, key: Key, values: Sequence[int], outside: bool) -> None:
        if len(self.player.truth.rows[table]) < MOST.get(table, 100):
            self._do("insert", table, key, values, outside)

    def _picked(self, table: str, pick: int) -> list[Key]:
        keys = sorted(self.player.truth.rows[table])
        return [keys[pick % len(keys)]] if keys else []

    def _range(self, names: Sequence[str], start: int, length: int) -> list[tuple[str, str]]:
        registered = self.player.world.partitions(GRAINS[names[0]])
        if not registered:
            return []
        start %= len(registered)
        found = registered[start : start + length + 1]
        return [(found[0], found[-1])]


def run_machine(bench: Bench, number: int, histories: int, steps: int = STEPS) -> Counter[str]:
    """Run some histories of a seed; return how often each act was done.

    Raises
    ------
    DifferenceError
        At the first difference, with the history that led to it.
    """
    done, found = Counter[str](), list[DifferenceError]()
    machine = type("Machine", (TruthMachine,), {"bench": bench, "done": done, "found": found})
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    for difference in found:
        raise difference
    return done


def replay(bench: Bench, history: Sequence[Act], *, patience: float) -> None:
    """Do some acts on a new world, and compare at the end.

    Raises
    ------
    DifferenceError
        At the first difference.
    """
    player = Player(bench, patience=patience)
    try:
        for act in history:
            player.do(act)
        player.do(("quiet",))
    finally:
        player.close()


def shortest(bench: Bench, history: Sequence[Act]) -> DifferenceError | None:
    """Leave acts out of a history as long as it ends in a difference; None if it does not."""
    kept, found = list(history), _difference(bench, history)
    if found is None:
        return None
    size = max(1, len(kept) // 2)
    while size:
        start = len(kept)
        while start > 0:
            start = max(0, start - size)
            fewer = kept[:start] + kept[start + size :]
            difference = _difference(bench, fewer)
            if difference is not None:
                kept, found = [*difference.history], difference
                start = min(start, len(kept))
        size //= 2
    return found


def _difference(bench: Bench, history: Sequence[Act]) -> DifferenceError | None:
    try:
        replay(bench, history, patience=SHRINKING)
    except DifferenceError as difference:
        return difference
    return None


@contextlib.contextmanager
def bench_of(backend: str, folder: Path) -> Generator[Bench]:
    """Give a bench on a backend, with a server of its own if need be."""
    home = folder / "dagster_home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides=SETTINGS) as instance:
        instance.get_dynamic_partitions("any")
        instance.get_runs_count()
    if backend == "sqlite":
        yield Bench(None, home, folder)
    elif backend == "mysql" and (given := os.environ.get("DJ_TEST_MYSQL_URL")):
        yield Bench(given, home, folder)
    else:
        with SERVERS[backend]() as url:
            yield Bench(url, home, folder)


def main() -> int:
    """Run the machine as the command line says; return 1 when there was a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="sqlite", choices=["sqlite", *SERVERS])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    done, number, began = Counter[str](), options.seed, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, bench_of(options.backend, Path(folder)) as bench:
        while done.total() < options.steps:
            try:
                done += run_machine(bench, number, histories=5)
            except DifferenceError as difference:
                print(f"seed {number} of {options.backend}: a difference\n{difference}\n\nshorter:")
                print(shortest(bench, difference.history) or "it does not come again")
                return 1
            seconds = time.monotonic() - began
            print(f"seed {number}: {done.total()} steps in {seconds:.0f} s, no difference")
            number += 1
    print(", ".join(f"{count} {act}" for act, count in done.most_common()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
