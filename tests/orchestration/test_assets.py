"""What tables look like as assets: keys, grains, deps, columns, descriptions, the translator."""

from __future__ import annotations

from datetime import date
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import (
    SensorSettings,
    TableProps,
    TableSettings,
    TableTranslator,
    build_definitions,
    populate_schedule,
    sync,
)
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Lookup, Manual, Part
from dj_dagster.workflow.computed import Computed
from tests.orchestration.lab import Lab
from tests.orchestration.running import key_of, run_until_quiet, statuses


def specs_of(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def grains_of(defs: dg.Definitions) -> dict[str, str | None]:
    return {
        name: getattr(spec.partitions_def, "name", None) for name, spec in specs_of(defs).items()
    }


def test_every_table_and_part_is_an_asset_and_the_location_loads(lab: Lab) -> None:
    defs = lab.definitions()
    defs.get_repository_def().load_all_definitions()
    assert set(specs_of(defs)) == {
        "lab/filter_params",
        "lab/subject",
        "lab/session",
        "lab/session/trial",
        "lab/raw_data",
        "lab/processed",
        "lab/processed/peak",
        "lab/filtered",
    }


def test_only_what_make_fills_is_executable(lab: Lab) -> None:
    graph = lab.definitions().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == {
        "lab/raw_data",
        "lab/processed",
        "lab/processed/peak",
        "lab/filtered",
    }


def test_tables_with_the_same_keys_share_a_grain_named_where_it_begins(lab: Lab) -> None:
    assert grains_of(lab.definitions()) == {
        "lab/filter_params": None,
        "lab/subject": "lab.Subject",
        "lab/session": "lab.Session",
        "lab/session/trial": "lab.Session",
        "lab/raw_data": "lab.Session",
        "lab/processed": "lab.Session",
        "lab/processed/peak": "lab.Session",
        "lab/filtered": "lab.Filtered",
    }


def test_deps_are_the_foreign_keys_with_no_partitions_between_grains(lab: Lab) -> None:
    deps = {
        name: {dep.asset_key.path[-1]: dep.partition_mapping for dep in spec.deps}
        for name, spec in specs_of(lab.definitions()).items()
    }
    nothing = dg.SpecificPartitionsPartitionMapping([])
    assert deps["lab/processed"] == {"raw_data": None}
    assert deps["lab/processed/peak"] == {"processed": None}
    assert deps["lab/session"] == {"subject": nothing}
    assert deps["lab/filtered"] == {"raw_data": nothing, "filter_params": None}


def test_a_lookup_table_has_partitions_when_a_computed_table_shares_its_key(lab: Lab) -> None:
    @lab.schema
    class Design(Computed):
        definition = """
        -> FilterParams
        ---
        order : int32
        """

    grains = grains_of(lab.definitions())
    assert grains["lab/design"] == grains["lab/filter_params"] == "lab.FilterParams"


def test_keys_of_equal_names_but_other_origin_are_another_grain(lab: Lab) -> None:
    @lab.schema
    class Order(Manual):
        definition = """
        subject_id : int32
        """

    grains = grains_of(lab.definitions())
    assert grains["lab/order"] == "lab.Order"
    assert grains["lab/subject"] == "lab.Subject"


def test_a_partition_of_a_computed_table_is_what_make_is_given(lab: Lab) -> None:
    @lab.schema
    class Unit(Computed):
        definition = """
        -> RawData
        unit_id : int32
        """

    assert grains_of(lab.definitions())["lab/unit"] == "lab.Session"


def test_a_table_without_key_has_no_partitions(lab: Lab) -> None:
    @lab.schema
    class Rig(Lookup):
        definition = """
        ---
        name : varchar(20)
        """

    assert grains_of(lab.definitions())["lab/rig"] is None


def test_description_is_the_comment_and_then_the_definition(lab: Lab) -> None:
    description = specs_of(lab.definitions())["lab/session"].description or ""
    first, _, rest = description.partition("\n\n")
    assert first == "One recording session"
    assert rest.startswith("```\n-> Subject\nsession_id : int32")
    assert rest.endswith("\n```")


def test_tier_backend_group_and_table_name(any_lab: Lab) -> None:
    specs = specs_of(any_lab.definitions())
    spec = specs[any_lab.asset("processed")]
    backend = any_lab.schema.connection.backend.name
    assert spec.kinds == {"computed", backend}
    assert spec.group_name == any_lab.schema.name
    assert spec.tags["dj_dagster/tier"] == "computed"
    assert spec.metadata["dagster/table_name"] == f"{any_lab.schema.name}.__processed"
    assert specs[any_lab.asset("processed", "peak")].kinds == {"part", backend}


def test_columns_tell_keys_constraints_types_and_origin(lab: Lab) -> None:
    schema = specs_of(lab.definitions())["lab/session"].metadata["dagster/column_schema"]
    columns = {column.name: column for column in schema.columns}
    assert list(columns) == ["subject_id", "session_id", "session_date", "note"]
    assert columns["subject_id"].constraints.other == ["primary key", "-> Subject"]
    assert columns["subject_id"].description == "(from lab.Subject.subject_id)"
    assert columns["session_id"].description == "counted per subject"
    assert columns["session_id"].tags == {"key": ""}
    assert columns["note"].constraints.nullable
    assert not columns["session_date"].constraints.nullable
    assert schema.constraints.other == [
        "primary key (subject_id, session_id)",
        "(subject_id) -> lab.Subject",
    ]


def test_columns_of_a_single_key_are_unique_and_types_get_icons(lab: Lab) -> None:
    specs = specs_of(lab.definitions())
    subject, sex = specs["lab/subject"].metadata["dagster/column_schema"].columns
    assert subject.constraints.unique
    # "enum" would be shown as a number, for the letters n-u-m.
    assert sex.type.startswith("str enum(")
    data = specs["lab/raw_data"].metadata["dagster/column_schema"].columns[-1]
    assert data.type == "arr <blob>"


class LabTranslator(TableTranslator):
    def get_asset_spec(self, props: TableProps) -> dg.AssetSpec:
        spec = super().get_asset_spec(props)
        return spec.replace_attributes(owners=["team:lab"], group_name=f"{props.group}/all")


def test_the_translator_has_the_last_word(lab: Lab) -> None:
    specs = specs_of(lab.definitions(translator=LabTranslator()))
    assert all(spec.owners == ["team:lab"] for spec in specs.values())
    assert specs["lab/processed"].group_name == "lab/all"
    assert specs["lab/processed"].kinds == {"computed", "sqlite"}


def test_tables_of_another_schema_are_deps(lab: Lab) -> None:
    ephys = Schema("ephys", connection=lab.schema.connection, context=lab.schema.tables)

    @ephys
    class Probe(Manual):
        definition = """
        -> Session
        probe : int32
        """

        class Shank(Part):
            definition = """
            -> master
            shank : int32
            """

    defs = lab.definitions()
    assert "ephys/probe" not in specs_of(defs)
    both = specs_of(build_definitions([ephys, lab.schema]))
    assert [dep.asset_key for dep in both["ephys/probe"].deps] == [key_of("lab/session")]
    assert both["ephys/probe/shank"].group_name == "ephys"


def subjects_asset(description: str) -> dg.AssetsDefinition:
    @dg.asset(key=["lab", "subject"], io_manager_key="table_io_manager", description=description)
    def subject() -> pd.DataFrame:
        return pd.DataFrame({"subject_id": [1], "sex": ["F"]})

    return subject


def test_an_asset_of_the_users_stands_for_a_manual_table(lab: Lab) -> None:
    defs = lab.definitions(assets=[subjects_asset("From the colony's list")])
    defs.get_repository_def().load_all_definitions()
    spec = specs_of(defs)["lab/subject"]
    assert spec.description == "From the colony's list"
    assert spec.group_name == "lab"
    assert spec.kinds == {"manual", "sqlite"}
    assert "dagster/column_schema" in spec.metadata
    assert key_of("lab/subject") in defs.resolve_asset_graph().materializable_asset_keys


def test_a_spec_of_the_users_leaves_a_manual_table_as_it_is(
    lab: Lab, instance: dg.DagsterInstance
) -> None:
    spec = dg.AssetSpec(["lab", "session"], owners=["team:lab"])
    defs = lab.definitions(assets=[spec])
    assert specs_of(defs)["lab/session"].owners == ["team:lab"]
    assert grains_of(defs) == grains_of(lab.definitions())
    lab.add_sessions([1])
    sync(defs, instance=instance)
    assert len(instance.get_materialized_partitions(spec.key)) == 1
    odd = spec.replace_attributes(partitions_def=dg.StaticPartitionsDefinition(["a"]))
    with pytest.raises(ConfigurationError, match=r"lab\.Session has partitions of its own"):
        lab.definitions(assets=[odd])


def test_an_asset_with_the_key_of_a_computed_table_is_refused(lab: Lab) -> None:
    @dg.asset(key=["lab", "processed"])
    def processed() -> None: ...

    with pytest.raises(ConfigurationError, match=r"lab\.Processed.*another key"):
        lab.definitions(assets=[processed])


def test_everything_else_of_the_users_is_joined(lab: Lab) -> None:
    @dg.asset_check(asset=["lab", "processed"])
    def positive() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    job = dg.define_asset_job("nightly", selection=[key_of("lab/raw_data")])
    defs = lab.definitions(
        asset_checks=[positive],
        jobs=[job],
        schedules=[dg.ScheduleDefinition(job=job, cron_schedule="0 3 * * *")],
        resources={"camera": "webcam"},
    )
    repository = defs.get_repository_def()
    repository.load_all_definitions()
    assert {"nightly", "populate"} <= set(repository.job_names)
    assert "camera" in repository.get_top_level_resources()
    assert repository.has_sensor_def("populate_sensor")


def test_a_schema_given_twice_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="lab is given more than once"):
        build_definitions([lab.schema, lab.schema])


def odd_schema(lab: Lab, name: str) -> Schema:
    schema = Schema(name, connection=lab.schema.connection)

    @schema
    class Item(Manual):
        definition = "item : int32"

    @schema
    class Made(Computed):
        definition = "-> Item"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Item.insert1({"item": 1})
    return schema


def test_a_schema_may_have_any_name(lab: Lab, instance: dg.DagsterInstance) -> None:
    names = {"lab 1": "lab_x20_1", "l\xe4b": "l_xe4_b", "my-lab": "my-lab"}
    schemas = [odd_schema(lab, name) for name in names]
    defs = build_definitions(schemas)
    defs.get_repository_def().load_all_definitions()
    assert all(run_until_quiet(defs, instance))
    for schema in schemas:
        assert len(schema.tables["Made"]()) == 1
        name = f"{names[schema.name]}/made"
        assert statuses(defs, instance, name) == {"MATERIALIZED": {"item=1"}}


def test_schemas_that_dagster_cannot_tell_apart_are_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"'my-lab' and 'my_lab' have the same name"):
        build_definitions([odd_schema(lab, name) for name in ("my-lab", "my_lab")])


@pytest.mark.parametrize("given", [3, None, Lab, [3]])
def test_what_is_no_schema_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a schema: give a dj\.Schema, a module"):
        build_definitions(given)


def test_a_table_in_place_of_its_schema_is_refused(lab: Lab) -> None:
    for given, shown in ((lab.Session, "<table"), (lab.Session(), "A Session")):
        with pytest.raises(ConfigurationError, match=rf"^({shown}).*is not a schema"):
            build_definitions(given)


@pytest.mark.parametrize("given", [[], {}])
def test_nothing_is_not_a_schema(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="No schema is given"):
        build_definitions(given)


def test_a_translator_that_gives_no_spec_is_named(lab: Lab) -> None:
    class Forgetful(TableTranslator):
        def get_asset_spec(self, props: TableProps) -> Any:
            super().get_asset_spec(props)

    with pytest.raises(ConfigurationError, match=r"Forgetful.get_asset_spec gave None for lab\."):
        lab.definitions(translator=Forgetful())


@pytest.mark.parametrize(
    "changed",
    [
        {"key": dg.AssetKey("other")},
        {"partitions_def": dg.DynamicPartitionsDefinition(name="other")},
    ],
)
def test_a_translator_keeps_key_and_partitions(lab: Lab, changed: dict[str, Any]) -> None:
    class Other(TableTranslator):
        def get_asset_spec(self, props: TableProps) -> dg.AssetSpec:
            return super().get_asset_spec(props).replace_attributes(**changed)

    with pytest.raises(ConfigurationError, match=r"Other.get_asset_spec gave lab\..*keep"):
        lab.definitions(translator=Other())


def test_a_schedule_of_a_table_that_make_does_not_fill_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="'Proccessed', which names no table; near it"):
        lab.definitions(schedules=[populate_schedule("0 3 * * *", tables=["Proccessed"])])
    with pytest.raises(ConfigurationError, match="'Session', which names no table that make fills"):
        lab.definitions(schedules=[populate_schedule("0 3 * * *", tables=["Session"])])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tables": []}, "empty list of tables"),
        ({"restriction": {}}, "restricts nothing"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": "5"}, "limit is '5'"),
        ({"restriction": True}, "True restricts nothing"),
        ({"restriction": []}, "chooses nothing"),
        ({"restriction": {"at": date(2026, 1, 5)}}, "write a text, or a dict"),
        ({"running": "no"}, "running is 'no'"),
    ],
)
def test_a_schedule_of_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        populate_schedule("0 3 * * *", **options)


def test_a_schedule_of_all_tables_says_so(lab: Lab) -> None:
    nightly = populate_schedule("0 3 * * *")
    defs = lab.definitions(schedules=[nightly])
    with dg.build_schedule_context() as context:
        (request,) = list(nightly.evaluate_tick(context).run_requests or [])
    assert request.run_config["ops"]["populate_tables"]["config"]["tables"] == "all"
    assert nightly.name == "populate_all"
    assert dg.validate_run_config(defs.resolve_job_def("populate"), request.run_config)


def test_settings_of_a_table_that_is_not_there_are_refused(lab: Lab) -> None:
    wrong = SensorSettings(tables={"Procesed": TableSettings(batch_size=5)})
    with pytest.raises(
        ConfigurationError, match=r"'Procesed', which names no table; near it: lab\."
    ):
        lab.definitions(sensor_settings=wrong)
    left_out = SensorSettings(tables={"Processed": TableSettings(), "lab.RawData": TableSettings()})
    assert lab.definitions(sensor_settings=left_out, exclude=["Processed"])


def test_a_page_links_to_the_keys_and_to_the_entry_of_rows(lab: Lab) -> None:
    specs = {spec.key.path[-1]: spec for spec in lab.definitions().resolve_all_asset_specs()}
    links = {name: spec.metadata.get("dj/links") for name, spec in specs.items()}
    processed, session = links["processed"], links["session"]
    assert processed is not None
    assert "[failed keys](/assets/lab/processed?view=partitions&status=FAILED)" in processed.value
    assert session is not None
    assert session.value == "[enter rows](/guess/insert__lab__session/playground)"
    assert links["filter_params"] is None
    assert links["trial"] is None
