"""One odd table of a code location is named, and leaves the others up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster.components.testing import create_defs_folder_sandbox

from dj_dagster.errors import ConfigurationError, DataJointError, PopulateError
from dj_dagster.orchestration import (
    PipelineComponent,
    build_definitions,
    check_schedule,
    garbage_schedule,
    populate_schedule,
    recompute_schedule,
    sync,
)
from dj_dagster.orchestration.headless import run_assets, run_job, run_until_idle
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual, Part
from dj_dagster.workflow.computed import Computed
from tests.orchestration.running import run_until, run_until_quiet, statuses, tick


@pytest.fixture
def schema(database_url: str, schema_prefix: str) -> Iterator[Schema]:
    """An item of which a Computed table makes a row with a part, and one below that."""
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}odd", connection=connection)

    @schema
    class Item(Manual):
        definition = "item : int32"

    @schema
    class Made(Computed):
        definition = "-> Item"

        class Piece(Part):
            definition = "-> master\npiece : int32"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)
            self.Piece().insert1({**key, "piece": 1})

    @schema
    class Below(Computed):
        definition = "-> Made"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    yield schema
    connection.close()


def outside(schema: Schema, *statements: str) -> None:
    """Execute SQL in another client; ``{name}`` is a table of the schema in SQL."""
    engine = sa.create_engine(schema.connection.engine.url)
    lite = engine.name == "sqlite"
    name, quote = schema.name, '"' if lite else "`"

    class Names(dict[str, str]):
        def __missing__(self, table: str) -> str:
            table = table.replace("computed_", "__")
            parts = [f"{name}.{table}"] if lite else [name, table]
            return ".".join(f"{quote}{part}{quote}" for part in parts)

    with engine.connect() as client:
        for statement in statements:
            client.exec_driver_sql(statement.format_map(Names()))
        client.commit()
    engine.dispose()


def told_by(defs: dg.Definitions, instance: dg.DagsterInstance) -> str:
    """What the sensor says when there is nothing more to run."""
    try:
        for _ in range(3):
            run_until_quiet(defs, instance)
    except DataJointError as error:
        return str(error)
    return ""


def test_a_dropped_table_stops_itself_alone(schema: Schema, instance: dg.DagsterInstance) -> None:
    defs, tables = build_definitions(schema), schema.tables
    tables["Item"].insert1((1,))
    assert told_by(defs, instance) == ""
    outside(schema, "drop table {computed_below}")
    for item in (2, 3):
        tables["Item"].insert1((item,))
        told = told_by(defs, instance)
        assert f"{schema.name}.__below" in told
        assert f"{schema.name}.__made:" not in told
        assert len(tables["Made"]()) == item


@pytest.mark.parametrize("name", ["below", "item"])
def test_a_table_that_is_away_for_a_while_is_worked_on_again(
    schema: Schema, instance: dg.DagsterInstance, name: str
) -> None:
    defs, tables = build_definitions(schema), schema.tables
    tables["Item"].insert1((1,))
    assert told_by(defs, instance) == ""
    table = "computed_below" if name == "below" else "item"
    outside(schema, f"alter table {{{table}}} rename to {{computed_away}}")
    if name == "below":
        tables["Item"].insert1((2,))
    assert f"{name} is gone" in told_by(defs, instance)
    outside(schema, f"alter table {{computed_away}} rename to {{{table}}}")
    if name == "item":
        outside(schema, "insert into {item} values (2)")
    run_until(defs, instance, lambda: len(tables["Below"]()) == 2)


def test_a_locked_table_stops_itself_alone(
    server_url: str, server_prefix: str, instance: dg.DagsterInstance
) -> None:
    """Nobody waits for it, for the lock may be there for hours; on servers readers would."""
    connection = Connection(server_url, safemode=False)
    lab = Schema(f"{server_prefix}lab", connection=connection)
    tables: dict[str, Any] = {}
    for name in ("Locked", "Free"):

        def make(self: Any, key: dict[str, Any]) -> None:
            self.insert1(key)

        source = type(name, (Manual,), {"definition": "item : int32"})
        made = type(f"{name}Made", (Computed,), {"definition": f"-> {name}", "make": make})
        tables[name] = lab(source)
        tables[made.__name__] = lab(made, context={name: source})
    defs = build_definitions(lab)
    tables["Locked"].insert1((1,))
    assert told_by(defs, instance) == ""
    for name in ("Locked", "Free"):
        tables[name].insert1((2,))
    engine = sa.create_engine(server_url)
    with engine.connect() as client:
        # The lock goes with its client, which the server ends when it is idle for long.
        client.exec_driver_sql("SET SESSION wait_timeout = 120")
        client.exec_driver_sql(f"LOCK TABLES `{lab.name}`.locked WRITE")
        told = told_by(defs, instance)
        client.exec_driver_sql("UNLOCK TABLES")
    engine.dispose()
    assert f"{lab.name}.locked: TransientError" in told
    assert f"{lab.name}.free" not in told
    assert len(tables["FreeMade"]()) == 1
    run_until(defs, instance, lambda: len(tables["LockedMade"]()) == 2)
    with connection.cursor() as session:
        waits = session.exec_driver_sql("SELECT @@lock_wait_timeout").scalar()
    assert waits is not None
    assert waits > 1000
    connection.close()


def test_a_table_that_is_gone_is_left_out_when_the_location_loads(schema: Schema) -> None:
    outside(schema, "drop table {computed_below}")
    schema.connection.catalog.forget_all()
    with pytest.warns(UserWarning, match=r"odd\.Below is left out: .*__below"):
        defs = build_definitions(schema)
    paths = {spec.key.path[-1] for spec in defs.resolve_all_asset_specs()}
    assert paths == {"item", "made", "piece"}


class SilentError(Exception):
    """One that cannot even be told."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail_without_text() -> None:
    raise SilentError


@pytest.mark.parametrize(
    "broken",
    [
        lambda schema: schema.nothing,
        lambda schema: schema.tables["Item"]() & "nope = 1",
        lambda schema: 5,
        lambda schema: fail_without_text(),
    ],
)
def test_a_key_source_that_fails_is_named(
    schema: Schema, instance: dg.DagsterInstance, broken: Callable[[Schema], Any]
) -> None:
    @schema
    class Wrong(Computed):
        definition = "-> Item"

        @property
        def key_source(self) -> Any:
            return broken(schema)

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    defs = build_definitions(schema)
    for count in (1, 2):
        schema.tables["Item"].insert1((count,))
        told = told_by(defs, instance)
        assert len(schema.tables["Below"]()) == count
        assert "Wrong" in told
        assert "key_source" in told


def test_a_job_may_select_a_table_without_its_parts(
    schema: Schema, instance: dg.DagsterInstance
) -> None:
    """A job of the master, and one of the part alone, fill both; failures are shown of both."""
    keys = {name: dg.AssetKey([schema.name, *name.split("/")]) for name in ("made", "made/piece")}
    jobs = [dg.define_asset_job(f"job_{n}", selection=[key]) for n, key in enumerate(keys.values())]
    schedule = dg.ScheduleDefinition(job=jobs[0], cron_schedule="0 0 * * *")
    defs = dg.Definitions.merge(
        build_definitions(schema, schedules=[schedule]), dg.Definitions(jobs=jobs)
    )
    schema.tables["Item"].insert([(1,), (2,)])
    tick(defs, instance)
    pieces: Any = vars(schema.tables["Made"])["Piece"]
    for number in (0, 1):
        done = defs.resolve_job_def(f"job_{number}").execute_in_process(
            instance=instance, partition_key=f"item={number + 1}"
        )
        assert done.success
        assert len(pieces()) == number + 1
    for key in keys.values():
        made = instance.get_materialized_partitions(key)
        assert made == {"item=1", "item=2"}


def test_two_tiers_of_one_name_are_told_apart_or_named(schema: Schema) -> None:
    old = schema.tables["Made"]

    @schema
    class Foo(Manual):
        definition = "a : int32"

    class Again(Computed):
        definition = "b : int32"

        def make(self, key: dict[str, Any]) -> None:
            del key

    Again.__name__ = "Foo"
    Schema(schema.name, connection=schema.connection)(Again)
    assert old is schema.tables["Made"]
    with pytest.warns(UserWarning, match=rf"{schema.name}\.foo and {schema.name}\.__foo are both"):
        defs = build_definitions(schema.name, connection=schema.connection)
    specs = [spec for spec in defs.resolve_all_asset_specs() if spec.key.path[-1] == "foo"]
    assert [spec.metadata["dagster/table_name"] for spec in specs] == [f"{schema.name}.__foo"]


def test_keys_that_a_queue_cannot_hold_are_made_without_one(
    schema: Schema, instance: dg.DagsterInstance
) -> None:
    @schema
    class Phase(Manual):
        definition = "status : varchar(8)\nversion : int32"

    @schema
    class Graded(Computed):
        definition = "-> Phase"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    phase: Any = Phase
    phase.insert([("a", 1), ("b", 1)])
    for call in (
        lambda: Graded.populate(reserve_jobs=True),
        lambda: Graded().jobs.refresh(),
        lambda: len(Graded().jobs),
    ):
        with pytest.raises(
            PopulateError, match=r"graded cannot reserve jobs: the attribute status"
        ):
            call()
    run_until_quiet(build_definitions(schema, select="Phase+"), instance)
    assert len(Graded()) == 2


def test_a_cycle_of_foreign_keys_leaves_the_location_up(
    database_url: str, schema_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Other programs make such: SQLite takes a reference to what is not there yet."""
    connection = Connection(database_url, safemode=False)
    schema = Schema(f"{schema_prefix}round", connection=connection)
    lite = connection.backend.name == "sqlite"
    refer = "foreign key (b) references {two} (b)"
    outside(
        schema,
        f"create table {{one}} (a int primary key, b int null{', ' + refer if lite else ''})",
        "create table {two} (b int primary key, a int null, foreign key (a) references {one} (a))",
        *([] if lite else [f"alter table {{one}} add {refer}"]),
    )
    defs = build_definitions(schema.name, connection=connection)
    assert {spec.key.path[-1] for spec in defs.resolve_all_asset_specs()} == {"one", "two"}
    defs.get_repository_def()
    assert "Foreign keys form a cycle" in caplog.text
    assert f"{schema.name}.one" in caplog.text
    connection.close()


def test_tables_may_be_given_as_classes(schema: Schema) -> None:
    made = schema.tables["Made"]
    defs = build_definitions(schema, select=[schema.tables["Item"], made], exclude=made)
    assert [spec.key.path[-1] for spec in defs.resolve_all_asset_specs()] == ["item"]
    build_definitions(schema, partition_by={made: "item"})
    wrongs: list[Any] = [{made: 5}, {5: "item"}]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match=r"partition_by has 5"):
            build_definitions(schema, partition_by=wrong)


@pytest.mark.parametrize("field", ["modules", "schemas", "select", "exclude"])
def test_one_name_is_a_list_of_it_in_a_component(schema: Schema, field: str) -> None:
    component = PipelineComponent.from_attributes_dict(attributes={field: "my_lab"})
    assert getattr(component, field) == ["my_lab"]
    by_table = {"partition_by": {"lab.Made": "item"}}
    component = PipelineComponent.from_attributes_dict(attributes=by_table)
    assert component.partition_by == {"lab.Made": ["item"]}


@pytest.fixture
def other(schema: Schema, schema_prefix: str) -> Schema:
    """A second schema, of another team: a Computed table of its own."""
    other = Schema(f"{schema_prefix}other", connection=schema.connection)

    @other
    class Sample(Manual):
        definition = "sample : int32"

    @other
    class Weighed(Computed):
        definition = "-> Sample"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    return other


def test_merged_definitions_have_the_tables_and_jobs_of_both(
    schema: Schema, other: Schema, instance: dg.DagsterInstance
) -> None:
    nightly = populate_schedule("0 3 * * *")
    more = dg.Definitions(
        jobs=[dg.define_asset_job("mine", selection=[dg.AssetKey([schema.name, "made"])])]
    )
    defs = dg.Definitions.merge(
        build_definitions(schema), more, build_definitions(other, schedules=[nightly])
    )
    repository = defs.get_repository_def()
    repository.load_all_definitions()
    ends = [f"__{each.name}" for each in (schema, other)]
    assert {f"{job}{end}" for job in ("populate", "recompute", "trace") for end in ends} < set(
        repository.job_names
    )
    assert "mine" in repository.job_names
    sensors = {sensor.name for sensor in repository.sensor_defs}
    assert sensors == {f"populate_sensor{end}" for end in ends}
    (schedule,) = repository.schedule_defs
    assert (schedule.name, schedule.job_name) == (f"populate_all{ends[1]}", f"populate{ends[1]}")
    schema.tables["Item"].insert1((1,))
    other.tables["Sample"].insert1((2,))
    for run in run_until_idle(defs, instance=instance):
        assert run.is_success
    assert len(schema.tables["Below"]()) == len(other.tables["Weighed"]()) == 1
    schema.tables["Item"].insert1((3,))
    assert run_job(defs, f"populate{ends[0]}", instance=instance).is_success
    assert len(schema.tables["Below"]()) == 2

    @dg.asset(
        ins={
            "items": dg.AssetIn([schema.name, "item"]),
            "samples": dg.AssetIn([other.name, "sample"]),
        },
        io_manager_key="io_manager",
    )
    def report(items: list[dict[str, Any]], samples: list[dict[str, Any]]) -> int:
        return len(items) + len(samples)

    with_report = dg.Definitions.merge(defs, dg.Definitions(assets=[report]))
    run = run_assets(with_report, [report.key], instance=instance)
    assert run.is_success


def test_schedules_in_definitions_of_ones_own_run_the_jobs_of_their_tables(
    schema: Schema, other: Schema
) -> None:
    """The jobs have got other names by the merge, the schedules of a third definition too."""
    both = [
        build_definitions(
            each, schedules=[garbage_schedule(each, "0 6 * * *"), check_schedule(each, "0 7 * * *")]
        )
        for each in (schema, other)
    ]
    own = dg.Definitions(
        schedules=[
            populate_schedule("0 3 * * *"),
            populate_schedule("0 4 * * *", [f"{schema.name}.Made", "Below"], name="early"),
            recompute_schedule("0 5 * * *", "Weighed"),
        ]
    )
    repository = dg.Definitions.merge(*both, own).get_repository_def()
    repository.load_all_definitions()
    ends = [f"__{each.name}" for each in (schema, other)]
    assert {schedule.name: schedule.job_name for schedule in repository.schedule_defs} == {
        **{f"populate_all{end}": f"populate{end}" for end in ends},
        "early": f"populate{ends[0]}",
        f"recompute_weighed{ends[1]}": f"recompute{ends[1]}",
        **{f"collect_garbage_schedule{end}": f"collect_garbage{end}" for end in ends},
        **{f"check_schemas_schedule{end}": f"check_schemas{end}" for end in ends},
    }
    spread = dg.Definitions(schedules=[populate_schedule("0 3 * * *", ["Made", "Weighed"])])
    with pytest.raises(ConfigurationError, match="populate_made_weighed is for Made, Weighed"):
        dg.Definitions.merge(*both, spread)


def test_definitions_of_one_schema_merge_and_one_alone_keeps_its_names(
    schema: Schema, other: Schema
) -> None:
    alone = dg.Definitions.merge(build_definitions(schema), dg.Definitions())
    assert alone.get_repository_def().has_sensor_def("populate_sensor")
    item, rest = (
        build_definitions(schema, select=["Item"]),
        build_definitions(schema, exclude=["Item"]),
    )
    merged = dg.Definitions.merge(dg.Definitions.merge(item, rest), build_definitions(other))
    repository = merged.get_repository_def()
    repository.load_all_definitions()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        f"populate_sensor__{each}"
        for each in (f"{schema.name}_Below", f"{schema.name}_Item", other.name)
    }


def test_two_components_live_in_one_location(
    schema: Schema, other: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with create_defs_folder_sandbox() as sandbox:
        for each in (schema, other):
            sandbox.scaffold_component(
                component_cls=PipelineComponent,
                defs_path=each.name,
                defs_yaml_contents={
                    "type": "dj_dagster.orchestration.PipelineComponent",
                    "attributes": {
                        "schemas": each.name,
                        "database_url": schema.connection.engine.url.render_as_string(False),
                        "schedule": "0 3 * * *",
                    },
                },
            )
        with sandbox.build_all_defs() as defs:
            repository = defs.get_repository_def()
            repository.load_all_definitions()
            assert {sensor.name for sensor in repository.sensor_defs} == {
                f"populate_sensor__{each.name}" for each in (schema, other)
            }
            paths = {spec.key.path[-1] for spec in defs.resolve_all_asset_specs()}
            assert {"item", "below", "sample", "weighed"} <= paths


def test_keys_are_there_before_a_daemon(
    schema: Schema, other: Schema, instance: dg.DagsterInstance
) -> None:
    defs = dg.Definitions.merge(build_definitions(schema), build_definitions(other))
    schema.tables["Item"].insert([(1,), (2,)])
    schema.tables["Made"].populate()
    other.tables["Sample"].insert1((3,))
    assert str(sync(defs, instance=instance)) == "3 partitions added, 0 removed, 7 marked"
    assert set(instance.get_dynamic_partitions(f"{schema.name}.Item")) == {"item=1", "item=2"}
    made = dg.AssetKey([schema.name, "made"])
    assert instance.get_materialized_partitions(made) == {"item=1", "item=2"}
    assert not instance.get_runs()
    (schema.tables["Item"] & {"item": 1}).delete(prompt=False)
    assert sync(defs, instance=instance).removed == 1
    outside(schema, "drop table {computed_below}")
    schema.tables["Item"].insert1((5,))
    with pytest.raises(PopulateError, match=r"__below") as told:
        sync(defs, instance=instance)
    assert "Made:" not in str(told.value)
    assert "item=5" in instance.get_dynamic_partitions(f"{schema.name}.Item")
    with pytest.raises(ConfigurationError, match="no tables: give what build_definitions"):
        sync(dg.Definitions(), instance=instance)


@pytest.mark.parametrize(
    ("kind", "usual", "odd", "made"),
    [
        ("time", ["06:00:00", "08:00:00"], ["-01:00:00", "30:00:00"], 4),
        ("date", ["2026-01-01", "2026-01-02"], ["0000-00-00", "2026-00-00"], 2),
        ("datetime", ["2026-01-01 10:00:00", "2026-01-02 10:00:00"], ["0000-00-00 00:00:00"], 2),
        ("int64", [-(2**63), 0], [str(2**63 - 1)], 3),
        ("float32", [0.1, 1e-30], ["0.5", "-16777216"], 4),
    ],
)
def test_an_odd_key_of_another_client_leaves_the_others(
    schema: Schema,
    instance: dg.DagsterInstance,
    kind: str,
    usual: list[Any],
    odd: list[str],
    made: int,
) -> None:
    """Zero dates are of no type of Python's and are left; all else is made, each key once."""

    @schema
    class Odd(Manual):
        definition = f"value : {kind}"

    @schema
    class After(Computed):
        definition = "-> Odd"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    lax = [] if schema.connection.backend.name == "sqlite" else ["set sql_mode = ''"]
    Odd.insert1((usual[0],))
    outside(schema, *lax, *[f"insert into {{odd}} values ('{value}')" for value in odd])
    defs = build_definitions(schema, select=[Odd, After])
    for run in run_until_idle(defs, instance=instance):
        assert run.is_success
    Odd.insert1((usual[1],))
    for run in run_until_idle(defs, instance=instance):
        assert run.is_success
    assert len(After()) == made
    partitions = instance.get_dynamic_partitions(f"{schema.name}.Odd")
    assert len(partitions) == len(set(partitions)) == len(usual) + len(odd)


def test_a_dropped_table_leaves_the_check_of_others(
    schema: Schema, instance: dg.DagsterInstance
) -> None:
    """The table that is gone comes before the others in the order in which they are counted."""
    defs, tables = build_definitions(schema), schema.tables
    tables["Item"].insert1((1,))
    for name in ("Made", "Below"):
        tables[name].populate()
    sync(defs, instance=instance)
    outside(schema, "drop table {computed_below}")
    assert f"{schema.name}.__below" in told_by(defs, instance)
    check = dg.AssetCheckKey(dg.AssetKey([schema.name, "made"]), "current")
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])
    assert found[check].status is AssetCheckExecutionRecordStatus.SUCCEEDED


def test_an_infinite_key_leaves_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """SQLite takes it from a client that knows nothing of types; no table of ours does."""
    schema = Schema("lab", connection=Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}"))

    @schema
    class Item(Manual):
        definition = "item : float64"

    @schema
    class Made(Computed):
        definition = "-> Item"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    defs = build_definitions(schema)
    Item.insert([(1.5,), (2.5,)])
    outside(schema, "INSERT INTO {item} VALUES (9e999)", "INSERT INTO {item} VALUES (-9e999)")
    run_until_quiet(defs, instance)
    Item.insert1((3.5,))
    run_until_quiet(defs, instance)
    assert Made.to_arrays("item", order_by="KEY").tolist() == [1.5, 2.5, 3.5]
    assert statuses(defs, instance, "lab/made") == {
        "MATERIALIZED": {"item=1.5", "item=2.5", "item=3.5"},
        "MISSING": {"item=inf", "item=-inf"},
    }
    assert len(Item & {"item": float("inf")}) == 1
    schema.connection.close()


@pytest.mark.parametrize(
    ("kind", "good", "later", "wrong"),
    [
        ("date", "2026-01-01", "2026-01-02", "'nonsense'"),
        ("date", "2026-01-01", "2026-01-02", "'20260101'"),
        ("datetime", "2026-01-01 10:00:00", "2026-01-01 11:00:00", "'2026-01-01T10:00:00'"),
        ("uuid", str(UUID(int=1)), str(UUID(int=2)), "'nonsense'"),
        ("decimal(5,2)", "1.50", "2.50", "1.501"),
        ("varchar(9)", "a", "b", "CAST(x'61ff' AS TEXT)"),
    ],
)
def test_a_key_that_cannot_be_read_leaves_the_others(
    tmp_path: Path, instance: dg.DagsterInstance, kind: str, good: str, later: str, wrong: str
) -> None:
    """Servers refuse such values; SQLite takes any, from a client that knows nothing of types."""
    schema = Schema("lab", connection=Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}"))

    @schema
    class Item(Manual):
        definition = f"item : {kind}"

    @schema
    class Made(Computed):
        definition = "-> Item"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    defs = build_definitions(schema)
    Item.insert1({"item": good})
    outside(schema, f"INSERT INTO {{item}} VALUES ({wrong})")
    run_until_quiet(defs, instance)
    assert len(Made()) == 1
    Item.insert1({"item": later})
    run_until_quiet(defs, instance)
    assert len(Made()) == 2
    assert len(instance.get_materialized_partitions(dg.AssetKey(["lab", "made"]))) == 2
    (check,) = [
        checks
        for checks in defs.resolve_asset_graph().asset_check_keys
        if checks.name == "readable" and checks.asset_key.path[-1] == "item"
    ]
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert record.status is AssetCheckExecutionRecordStatus.FAILED
    assert record.evaluation.metadata["unreadable"].value == 1
    assert "lab.item.item" in str(record.evaluation.metadata["first"].value)
    schema.connection.close()
