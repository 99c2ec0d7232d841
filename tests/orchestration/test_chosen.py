"""Which keys a run makes: those that were chosen when it was created, whatever comes between."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.dagster_run import DagsterRun

from dj_dagster.relational.table import Lookup
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab, partition
from tests.orchestration.running import (
    create_run,
    execute,
    key_of,
    reexecute,
    requested,
    run_until_quiet,
    tick,
)
from tests.services.process import eventually

PARTITION = "dagster/partition"
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
RECOMPUTE = {"on_existing": "recompute"}


def choose(
    lab: Lab,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    config: dict[str, Any],
    tables: Iterable[str] = ("raw_data",),
) -> DagsterRun:
    """Create a run of tables, and do not start it."""
    ops = {f"{lab.schema.name}__{table}": {"config": config} for table in tables}
    selection = [key_of(lab.asset(table)) for table in tables]
    return create_run(defs, instance, selection, run_config={"ops": ops}, tags=tags)


def span(first: int, last: int) -> dict[str, str]:
    return {START: partition(first), END: partition(last)}


def enter_again(lab: Lab, defs: dg.Definitions, instance: dg.DagsterInstance, session: int) -> None:
    """Delete a session and enter it again, so that Dagster lists its partition last."""
    grain = f"{lab.schema.name}.Session"

    def listed() -> list[str]:
        tick(defs, instance)
        return [*instance.get_dynamic_partitions(grain)]

    (lab.Session & {"session_id": session}).delete()
    eventually(lambda: partition(session) not in listed(), every=0.1)
    lab.add_sessions([session])
    eventually(lambda: listed()[-1] == partition(session), every=0.1)


def made(lab: Lab, table: str = "RawData") -> list[int]:
    return [session for name, session in lab.calls if name == table]


def present(lab: Lab) -> set[int]:
    return set(lab.Processed.to_arrays("session_id").tolist())


def failure(instance: dg.DagsterInstance, run: DagsterRun) -> str:
    (event,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return str(event.get_dagster_event().step_failure_data.error_display_string)


@pytest.mark.parametrize("again", [1, 2, 3])  # the first, one in the middle, and the last
def test_a_range_is_what_it_was_when_it_was_chosen(
    any_lab: Lab, instance: dg.DagsterInstance, again: int
) -> None:
    lab = any_lab
    lab.add_sessions(range(6))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    run = choose(lab, defs, instance, span(1, 3), RECOMPUTE)
    enter_again(lab, defs, instance, again)
    lab.calls.clear()
    assert execute(defs, instance, run)
    assert sorted(made(lab)) == [1, 2, 3]
    assert present(lab) == {0, 4, 5}


@pytest.mark.parametrize(("gone", "wanted"), [(2, [1, 3]), (3, [])])
def test_a_key_of_a_range_that_is_gone_is_left_out_or_told(
    any_lab: Lab, instance: dg.DagsterInstance, gone: int, wanted: list[int]
) -> None:
    any_lab.add_sessions(range(6))
    defs = any_lab.definitions()
    tick(defs, instance)
    run = choose(any_lab, defs, instance, span(1, 3), {})
    (any_lab.Session & {"session_id": gone}).delete()
    grain = f"{any_lab.schema.name}.Session"

    def is_gone() -> bool:
        tick(defs, instance)
        return partition(gone) not in instance.get_dynamic_partitions(grain)

    eventually(is_gone, every=0.1)
    # Dagster itself refuses a range whose end is not there.
    assert execute(defs, instance, run) == bool(wanted)
    assert sorted(made(any_lab)) == wanted
    if not wanted:
        assert partition(gone) in failure(instance, run)


def test_a_range_is_announced_as_a_subset_where_the_storage_can(
    lab: Lab, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    lab.add_sessions(range(6))
    defs = lab.definitions()
    tick(defs, instance)
    run = choose(lab, defs, instance, span(1, 3), {})
    enter_again(lab, defs, instance, 1)
    assert execute(defs, instance, run)
    assert sorted(made(lab)) == [1, 2, 3]


def test_a_run_that_is_executed_again_is_for_the_range_of_the_first(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(6))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    run = choose(lab, defs, instance, span(1, 3), RECOMPUTE)
    assert execute(defs, instance, run)
    enter_again(lab, defs, instance, 3)
    lab.calls.clear()
    # Dagster announces 1 to 3 anew, and these are now 1 to 5 as well.
    assert reexecute(defs, instance, run)
    assert sorted(made(lab)) == [1, 2, 3]


def test_a_run_of_a_backfill_makes_nothing_that_the_backfill_was_not_for(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(6))
    defs = lab.definitions()
    tick(defs, instance)
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="chosen",
        asset_graph=defs.resolve_asset_graph(),
        partition_names=[partition(number) for number in (1, 2, 3)],
        asset_selection=[key_of(lab.asset("raw_data"))],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    # The daemon has found the range; now its end moves, and then the run is created.
    enter_again(lab, defs, instance, 3)
    tags = {**span(1, 3), "dagster/backfill": "chosen"}
    assert execute(defs, instance, choose(lab, defs, instance, tags, {}))
    assert sorted(made(lab)) == [1, 2, 3]


def test_a_range_that_nobody_remembers_touches_nothing(
    any_lab: Lab, instance: dg.DagsterInstance
) -> None:
    any_lab.add_sessions(range(4))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    run = choose(any_lab, defs, instance, span(1, 2), RECOMPUTE)
    instance.event_log_storage.delete_events(run.run_id)
    any_lab.calls.clear()
    assert not execute(defs, instance, run)
    assert any_lab.calls == []
    assert present(any_lab) == {0, 1, 2, 3}
    said = failure(instance, run)
    assert all(f"'{partition(end)}'" in said for end in (1, 2))
    assert f"{any_lab.schema.name}.RawData" in said


def test_the_sensor_leaves_to_a_waiting_run_what_was_chosen_for_it(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    lab.add_sessions(range(6))
    defs = lab.definitions()
    tick(defs, instance)
    choose(lab, defs, instance, span(1, 3), {})
    late = lab.definitions()  # another code server, which has not asked for a run yet
    enter_again(lab, late, instance, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dj_dagster.orchestration.sensor.requests.Attempts.read", lambda *_: Free())
        asked = [keys_of(lab, request) for request in requested(tick(lab.definitions(), instance))]
    assert asked == [[partition(number) for number in (0, 4, 5)]]


class Free:
    """A batch without runs."""

    has_died = False
    next_number = 1

    def refusal(self, _limit: int) -> None:
        return None


def keys_of(lab: Lab, request: dg.RunRequest) -> list[str]:
    config: Any = request.run_config
    return config["ops"][f"{lab.schema.name}__raw_data"]["config"]["keys"]


@pytest.mark.parametrize("on_existing", ["skip", "recompute"])
@pytest.mark.parametrize(
    ("tags", "config", "said"),
    [
        ({PARTITION: partition(1)}, {"keys": []}, "has an empty list of keys, which is none"),
        ({PARTITION: partition(1)}, {"keys": "All"}, "has keys: All. Write a list"),
        (
            {PARTITION: partition(1)},
            {"keys": [partition(1), partition(99)]},
            f"has the keys {partition(99)}, which are neither in lab.RawData nor in its key source",
        ),
        ({}, {}, "non-partitioned run"),  # Dagster's own words
    ],
)
def test_nothing_is_not_all_keys(
    lab: Lab,
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    config: dict[str, Any],
    said: str,
    on_existing: str,
) -> None:
    lab.add_sessions(range(3))
    defs = lab.definitions()
    run_until_quiet(defs, instance)
    lab.add_sessions([3])
    tick(defs, instance)
    lab.calls.clear()
    run = choose(lab, defs, instance, tags, {"on_existing": on_existing, **config})
    assert not execute(defs, instance, run)
    assert lab.calls == []
    assert present(lab) == {0, 1, 2}
    assert said in failure(instance, run)


@pytest.mark.parametrize(("on_existing", "sessions"), [("skip", [3]), ("recompute", [0, 1, 2, 3])])
def test_all_keys_have_a_word(
    any_lab: Lab, instance: dg.DagsterInstance, on_existing: str, sessions: list[int]
) -> None:
    any_lab.add_sessions(range(3))
    defs = any_lab.definitions()
    run_until_quiet(defs, instance)
    any_lab.add_sessions([3])
    any_lab.calls.clear()
    run = choose(
        any_lab,
        defs,
        instance,
        {PARTITION: partition(0)},
        {"keys": "all", "on_existing": on_existing},
    )
    assert execute(defs, instance, run)
    assert sorted(made(any_lab)) == sessions


def test_keys_are_refused_for_a_table_without_partitions(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    @lab.schema
    class Rig(Lookup):
        definition = """
        ---
        name : varchar(20)
        """
        contents = (("A",),)

    @lab.schema
    class Tuning(Computed):
        definition = "-> Rig"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    defs = lab.definitions()
    run = choose(lab, defs, instance, {}, {"keys": [partition(1)]}, tables=["tuning"])
    assert not execute(defs, instance, run)
    assert "lab.Tuning has no partitions" in failure(instance, run)
    assert len(Tuning()) == 0
    assert execute(defs, instance, choose(lab, defs, instance, {}, {}, tables=["tuning"]))
    assert len(Tuning()) == 1
