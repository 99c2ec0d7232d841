"""Rows that are gone and are not made again: their partitions are shown as missing."""

from __future__ import annotations

from typing import Any

import dagster as dg

from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark
from dj_dagster.orchestration.runs.shown_marks import vanished_pages
from dj_dagster.orchestration.tables.collection import of_database
from dj_dagster.orchestration.tables.table_graph import table_graph
from dj_dagster.relational.table import Manual, Part
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab, partition, partitions
from tests.orchestration.running import create_run, execute, key_of, run_until_quiet, statuses
from tests.services.process import eventually


def recompute(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance, session: int) -> bool:
    config = {"ops": {f"{lab.schema.name}__raw_data": {"config": {"on_existing": "recompute"}}}}
    tags = {"dagster/partition": partition(session)}
    key = key_of(lab.asset("raw_data"))
    return execute(defs, instance, create_run(defs, instance, [key], run_config=config, tags=tags))


def comes_to_show(
    defs: dg.Definitions, instance: dg.DagsterInstance, name: str, shown: dict[str, set[str]]
) -> bool:
    """Let the daemon work until an asset's partitions are shown so."""

    def is_shown() -> bool:
        run_until_quiet(defs, instance)
        return statuses(defs, instance, name) == shown

    return eventually(is_shown, every=0.1)


def test_what_hung_on_a_key_that_fails_now(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    any_lab.broken.add(1)
    assert not recompute(any_lab, defs, instance, 1)
    wanted = {"MATERIALIZED": partitions([0, 2]), "MISSING": partitions([1])}
    for name in ("processed", "processed/peak"):
        assert comes_to_show(defs, instance, any_lab.asset(name), wanted)
    # Its key source has the keys no more: their partitions are gone too.
    finer = statuses(defs, instance, any_lab.asset("filtered"))
    assert set(finer) == {"MATERIALIZED"}
    any_lab.broken.clear()
    assert recompute(any_lab, defs, instance, 1)
    wanted = {"MATERIALIZED": partitions([0, 1, 2])}
    assert comes_to_show(defs, instance, any_lab.asset("processed"), wanted)


def test_what_people_have_deleted(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    @any_lab.schema
    class Verdict(Manual):
        definition = """
        -> RawData
        ---
        usable : int8
        """

    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    rows = [{"subject_id": 1, "session_id": number, "usable": 1} for number in range(3)]
    Verdict.insert(rows)
    run_until_quiet(defs, instance)
    (Verdict & "session_id < 2").delete()
    name = any_lab.asset("verdict")
    wanted = {"MATERIALIZED": partitions([2]), "MISSING": partitions([0, 1])}
    assert comes_to_show(defs, instance, name, wanted)
    Verdict.insert(rows[:1])
    wanted = {"MATERIALIZED": partitions([0, 2]), "MISSING": partitions([1])}
    assert comes_to_show(defs, instance, name, wanted)


def test_what_the_key_source_leaves_out(any_lab: Lab, instance: dg.DagsterInstance) -> None:
    session = any_lab.Session

    @any_lab.schema
    class Noted(Computed):
        definition = """
        -> Session
        """

        class Word(Part):
            definition = """
            -> master
            word : varchar(20)
            """

        @property
        def key_source(self) -> Any:
            return session & "note IS NULL"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    any_lab.add_sessions(range(2))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    assert statuses(defs, instance, any_lab.asset("noted")) == {"MATERIALIZED": partitions([0, 1])}
    session.update1({"subject_id": 1, "session_id": 1, "note": "noise"})
    (Noted & "session_id = 1").delete()
    wanted = {"MATERIALIZED": partitions([0]), "MISSING": partitions([1])}
    # The part has no rows, as its make left it.
    for name in ("noted", "noted/word"):
        assert comes_to_show(defs, instance, any_lab.asset(name), wanted)


def test_what_is_not_a_key_is_taken_back_alone(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions([1])
    run_until_quiet(lab.definitions(), instance)
    key = key_of("lab/raw_data")
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="foo"))
    defs = lab.definitions()

    def is_clean() -> bool:
        run_until_quiet(defs, instance)  # A failed tick would raise.
        return instance.get_materialized_partitions(key) == partitions([1])

    eventually(is_clean, every=0.1)


def test_a_mark_that_comes_meanwhile_stays(lab: Lab, instance: dg.DagsterInstance) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    graph = table_graph(of_database(lab.schema.connection, "lab"))
    node = graph.by_key[key_of("lab/raw_data")]
    (lab.RawData & "session_id < 2").delete()
    pieces = vanished_pages(instance, node, [node.key])
    next(pieces)
    # Both rows come back after they were looked for, and one is marked.
    write_marks(instance, [Mark(node.key, partition(0))])
    assert [page for page in pieces if page] == [[partition(0), partition(1)]]
    assert statuses(defs, instance, "lab/raw_data") == {
        "MATERIALIZED": partitions([0, 2]),
        "MISSING": partitions([1]),
    }
