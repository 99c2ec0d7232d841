"""All settings, jobs and commands that choose tables understand the same names of tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dj_dagster.cli import cli
from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import (
    PipelineComponent,
    SensorSettings,
    TableChecks,
    TableIOManager,
    TableSettings,
    build_definitions,
    populate_schedule,
    recompute,
    recompute_schedule,
)
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual, Part
from dj_dagster.workflow.computed import Computed, Imported
from dj_dagster.workflow.release.release import named_rows

Titles = frozenset[str]

MODULE = "pipeline_of_table_names"


@dataclass
class Rig:
    """Two schemas with a table of one name, and which tables `make` was called for."""

    schema: Schema
    other: Schema
    made: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return self.schema.tables[name]

    def build(self, **options: Any) -> dg.Definitions:
        return build_definitions([self.schema, self.other], **options)

    def make_apart(self) -> None:
        """Leave a key to make in each table, so that each can be filled without the others."""
        self.Recording().delete(prompt=False)
        self.other.tables["Summary"]().delete(prompt=False)
        self.Recording.populate("session < 3")
        self.Cleaned.populate("session < 2")
        self.made.clear()

    def make_all(self) -> None:
        for table in (self.Recording, self.Cleaned, self.Summary, self.other.tables["Summary"]):
            table.populate()


def declare(rig: Rig) -> None:
    @rig.schema
    class Subject(Manual):
        definition = "subject : int32"

    @rig.schema
    class Session(Manual):
        definition = "-> Subject\nsession : int32"

        class Trial(Part):
            definition = "-> master\ntrial : int32"

    class Noted:
        def make(self, key: dict[str, Any]) -> None:
            table: Any = self
            rig.made.append(f"{table.database}.{type(self).__name__}")
            table.insert1(key)

    @rig.schema
    class Recording(Noted, Imported):
        definition = "-> Session"

    @rig.schema
    class Cleaned(Noted, Computed):
        definition = "-> Recording"

        class Peak(Part):
            definition = "-> master\npeak : int32"

    @rig.schema
    class Summary(Noted, Computed):
        definition = "-> Cleaned"

    @rig.other
    class Summary(Noted, Computed):  # noqa: F811
        definition = "-> Subject"

        @property
        def key_source(self) -> Any:
            return Subject()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("names")
    connection = Connection(f"sqlite:///{folder / 'lab.sqlite'}", safemode=False)
    found = Rig(Schema("lab", connection=connection), Schema("elsewhere", connection=connection))
    declare(found)
    found.Subject.insert1({"subject": 1})
    found.Session.insert([{"subject": 1, "session": n} for n in (1, 2, 3)])
    yield found
    connection.close()


def titles(text: str) -> Titles:
    return frozenset(word if "." in word else f"lab.{word}" for word in text.split())


ONE = {
    "class and schema": "lab.Cleaned",
    "class alone": "Cleaned",
    "asset key as text": "lab/cleaned",
    "asset key of Dagster's syntax": 'key:"lab/cleaned"',
    "name in SQL": "lab.__cleaned",
    "quoted name in SQL": "`lab`.`__cleaned`",
    "name in SQL, quoted as a whole": "`lab.__cleaned`",
    "name in SQL without the prefix": "lab.cleaned",
    "class": lambda rig: rig.Cleaned,
    "table": lambda rig: rig.Cleaned(),
    "asset key": lambda rig: dg.AssetKey(["lab", "cleaned"]),
    "pattern of one": "*Clean*d",
}
"""Names that stand for ``lab.Cleaned`` alone."""

SEVERAL = {
    "schema": ("lab", "Subject Session Recording Cleaned Summary"),
    "tier": ("tier:computed", "Cleaned Summary elsewhere.Summary"),
    "pattern of a tier": ("tier:[ci]*", "Recording Cleaned Summary elsewhere.Summary"),
    "pattern of classes": ("lab.S*", "Subject Session Summary"),
    "pattern of asset keys": ("*/summary", "Summary elsewhere.Summary"),
    "everything": ("*", "Subject Session Recording Cleaned Summary elsewhere.Summary"),
    "all above": ("+Cleaned", "Subject Session Recording Cleaned"),
    "all above an asset key": ("+key:lab/cleaned", "Subject Session Recording Cleaned"),
    "one level above": ("1+Cleaned", "Recording Cleaned"),
    "all below": ("Recording+", "Recording Cleaned Summary"),
    "below what people enter": ("Subject+2", "Subject Session Recording elsewhere.Summary"),
    "above and below": ("1+lab.Cleaned+", "Recording Cleaned Summary"),
}
"""Names that stand for several tables; parts go with their masters."""

NAMES = [
    *(pytest.param(text, titles("Cleaned"), id=name) for name, text in ONE.items()),
    *(pytest.param(text, titles(found), id=name) for name, (text, found) in SEVERAL.items()),
]

BY_MAKE = titles("Recording Cleaned Summary elsewhere.Summary")
EVERYTHING = BY_MAKE | titles("Subject Session")
CHAIN = ("Recording", "Cleaned", "Summary")


def given(rig: Rig, name: Any) -> Any:
    return name(rig) if callable(name) and not isinstance(name, type) else name


def shown(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    """The assets of tables by title, without parts."""
    found = {spec.metadata.get("dj/class"): spec for spec in defs.resolve_all_asset_specs()}
    return {title: spec for title, spec in found.items() if title and title.count(".") == 1}


def checked(defs: dg.Definitions, fits: Callable[[dg.AssetCheckSpec], bool]) -> Titles:
    keys = {
        spec.asset_key
        for definition in defs.asset_checks or ()
        if isinstance(definition, dg.AssetChecksDefinition)
        for spec in definition.check_specs
        if fits(spec)
    }
    return frozenset(title for title, spec in shown(defs).items() if spec.key in keys)


def by_select(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    return frozenset(shown(rig.build(select=name)))


def by_exclude(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    return EVERYTHING - frozenset(shown(rig.build(exclude=name)))


def by_partitions(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    found = shown(rig.build(partition_by={name: "subject"}))
    coarse = {
        t for t, spec in found.items() if spec.partitions_def == found["lab.Subject"].partitions_def
    }
    # These have the partitions of subjects always.
    return frozenset(coarse - titles("Subject elsewhere.Summary"))


def by_freshness(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    defs = rig.build(checks=TableChecks(freshness={name: timedelta(days=1)}))
    return checked(defs, lambda spec: spec.name == "fresh")


def by_blocking(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    defs = rig.build(checks=TableChecks(blocking=name))
    return checked(defs, lambda spec: spec.name == "complete" and spec.blocking)


def by_sensor_settings(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    settings = SensorSettings(tables={name: TableSettings(automatic=False)})
    defs = rig.build(sensor_settings=settings)
    selection = defs.resolve_sensor_def("populate_sensor").asset_selection
    assert selection is not None
    started = selection.resolve(defs.resolve_asset_graph())
    specs = shown(defs)
    return frozenset(title for title in BY_MAKE if specs[title].key not in started)


def by_populate_job(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    defs = rig.build(schedules=[populate_schedule("0 3 * * *", name)])
    (schedule,) = defs.schedules or ()
    rig.make_apart()
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("populate")
        assert job.execute_in_process({"ops": configured(schedule)}, instance=instance).success
    return frozenset(rig.made)


def by_recompute(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    rig.make_all()
    with dg.DagsterInstance.ephemeral() as instance:
        done = recompute([rig.schema, rig.other], name, stale=False, instance=instance)
    return frozenset(each.title for each in done)


def by_recompute_schedule(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    (schedule,) = rig.build(schedules=[recompute_schedule("0 3 * * *", name)]).schedules or ()
    return by_recompute(rig, configured(schedule)["recompute_stale"]["config"]["tables"], tmp_path)


def by_command(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    rig.make_all()
    module: Any = ModuleType(MODULE)
    module.schema = rig.schema
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, MODULE, module)
        patch.setattr(sys, "path", [*sys.path])
        done = CliRunner().invoke(
            cli, ["recompute", name, "--all", "--module", MODULE], catch_exceptions=False
        )
    assert done.exit_code == 0, done.output
    return frozenset(line.split(":")[0] for line in done.output.splitlines())


def by_component(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    component = PipelineComponent.from_attributes_dict(
        attributes={
            "schemas": ["lab", "elsewhere"],
            "database_url": rig.schema.connection.url,
            "select": name,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(tmp_path))
        return frozenset(shown(component.build_defs(dg.ComponentTree.for_test().load_context)))


def by_trace(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    rig.make_all()
    config = {"table": name, "partition": "subject=1/session=1"}
    with dg.DagsterInstance.ephemeral() as instance:
        done = (
            rig.build()
            .resolve_job_def("trace")
            .execute_in_process({"ops": {"trace_rows": {"config": config}}}, instance=instance)
        )
    (output,) = (event for event in done.all_events if event.is_successful_output)
    text: Any = output.event_specific_data.metadata["trace"].value  # type: ignore[union-attr]
    return frozenset([text.splitlines()[2].split("|")[1].strip()])


def by_io_manager(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    rig.make_all()
    key = name if isinstance(name, dg.AssetKey) else dg.AssetKey(name.split("/"))
    graph = rig.build().resources["table_io_manager"]  # type: ignore[index]
    alone = TableIOManager(connection=rig.schema.connection)
    with dg.build_input_context(asset_key=key) as context:
        rows = [manager.load_input(context) for manager in (graph, alone)]
    assert rows[0] == rows[1] == rig.Cleaned.to_dicts(order_by="KEY")
    return titles("Cleaned")


def by_release(rig: Rig, name: Any, tmp_path: Path) -> Titles:
    rig.make_all()
    found = named_rows(rig.schema.connection, name, (), everything=True)
    return titles("Cleaned") if found.full_table_name == rig.Cleaned.full_table_name else Titles()


def configured(schedule: Any) -> Any:
    """The config of the run that a schedule asks for."""
    with dg.build_schedule_context() as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    return request.run_config["ops"]


def filled(found: Titles) -> Titles:
    return found & BY_MAKE


def with_below(found: Titles) -> Titles:
    """The tables that are made again with some, in which rows were deleted."""
    first = min((CHAIN.index(t) for t in CHAIN if f"lab.{t}" in found), default=len(CHAIN))
    return filled(found) | titles(" ".join(CHAIN[first:]))


def finer(found: Titles) -> Titles:
    return found - titles("Subject elsewhere.Summary")


def in_lab(found: Titles) -> Titles:
    return frozenset(title for title in with_below(found) if title.startswith("lab."))


ENTRIES = {
    "select": (by_select, frozenset),
    "exclude": (by_exclude, frozenset),
    "partition_by": (by_partitions, finer),
    "TableChecks.freshness": (by_freshness, frozenset),
    "TableChecks.blocking": (by_blocking, filled),
    "SensorSettings.tables": (by_sensor_settings, filled),
    "tables of the populate job": (by_populate_job, filled),
    "tables of recompute": (by_recompute, with_below),
    "tables of the recompute job": (by_recompute_schedule, with_below),
}
"""Where any name may be given, and which of its tables count there."""

OF_TEXTS = {
    "command": (by_command, in_lab),
    "component": (by_component, frozenset),
    "tables of the populate job": (by_populate_job, filled),
}
"""Where only texts can be given."""

OF_ONE = {"trace": by_trace, "IO manager": by_io_manager, "release": by_release}
"""Where a name must stand for one table."""


@pytest.mark.parametrize(("name", "found"), NAMES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_name_is_understood_everywhere(
    rig: Rig, entry: str, name: Any, found: Titles, tmp_path: Path
) -> None:
    choose, counted = ENTRIES[entry]
    assert choose(rig, given(rig, name), tmp_path) == counted(found)


@pytest.mark.parametrize(
    ("name", "found"), [each for each in NAMES if isinstance(each.values[0], str)]
)
@pytest.mark.parametrize("entry", OF_TEXTS)
def test_every_text_is_understood_where_texts_are_given(
    rig: Rig, entry: str, name: str, found: Titles, tmp_path: Path
) -> None:
    choose, counted = OF_TEXTS[entry]
    assert choose(rig, name, tmp_path) == counted(found)


@pytest.mark.parametrize("name", ONE.values(), ids=ONE)
@pytest.mark.parametrize("entry", OF_ONE)
def test_every_name_of_one_table_is_understood_where_one_is_chosen(
    rig: Rig, entry: str, name: Any, tmp_path: Path
) -> None:
    chosen = given(rig, name)
    if entry == "trace" and not isinstance(chosen, str):
        # A table itself is traced by the function `trace`.
        chosen = "lab.Cleaned"
    if isinstance(chosen, type) or hasattr(chosen, "heading"):
        chosen = chosen.full_table_name
    assert OF_ONE[entry](rig, chosen, tmp_path) == titles("Cleaned")


PLACES = {
    "select": by_select,
    "exclude": by_exclude,
    "partition_by": by_partitions,
    "TableChecks.freshness": by_freshness,
    "TableChecks.blocking": by_blocking,
    "SensorSettings.tables": by_sensor_settings,
    "The schedule populate_": by_populate_job,
    "The schedule recompute_": by_recompute_schedule,
    "tables": by_recompute,
    "table": by_trace,
    "An input or output": by_io_manager,
    "TABLE": by_release,
}
"""How an error names where a name was given."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Cleand", "'Cleand', which names no table; near it: lab.Cleaned."),
        ("lab.cleand+", "'lab.cleand+', which names no table; near it: lab.Cleaned"),
        ("nothing.*", "'nothing.*', which names no table; there are "),
        (
            "tier:compted",
            "'tier:compted', which names no table; near it: tier:computed, tier:imported",
        ),
        ("", "'', which names no table; there are"),
        (
            "Summary",
            "'Summary', which names more than one table; write one of elsewhere.Summary, lab.",
        ),
    ],
)
def test_a_name_of_none_or_of_several_tables_is_an_error_that_says_where_and_what_is_near(
    rig: Rig, place: str, name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as error:
        PLACES[place](rig, name, tmp_path)
    assert str(error.value).startswith(place)
    assert said in str(error.value)


@pytest.mark.parametrize("entry", OF_ONE)
@pytest.mark.parametrize("name", [text for text, _ in SEVERAL.values()])
def test_several_tables_are_refused_where_one_is_chosen(
    rig: Rig, entry: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"names no table|names more than one table"):
        OF_ONE[entry](rig, name, tmp_path)


@pytest.mark.parametrize("place", ["partition_by", "TableChecks.freshness", "select"])
def test_what_is_not_a_name_is_refused(rig: Rig, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{place} has 5, which is not a table"):
        PLACES[place](rig, 5, tmp_path)


def test_nothing_is_not_everything(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No schema is given"):
        build_definitions([])
    with pytest.raises(ConfigurationError, match="select is empty: name tables, or leave it out"):
        rig.build(select=[])
    with pytest.raises(ConfigurationError, match="An empty list of tables is none"):
        populate_schedule("0 3 * * *", [])
    assert by_exclude(rig, [], tmp_path) == frozenset()


def test_a_part_is_chosen_by_its_master(rig: Rig) -> None:
    message = "'Cleaned.Peak', which names parts alone; .* write one of lab.Cleaned"
    with pytest.raises(ConfigurationError, match=message):
        rig.build(select=["Subject", "Cleaned.Peak"])
    defs = rig.build(select=["lab.Cleaned"], exclude=["lab/cleaned/peak"])
    assert [
        spec.metadata["dj/class"]
        for spec in defs.resolve_all_asset_specs()
        if spec.metadata.get("dj/class")
    ] == ["lab.Cleaned"]


def test_of_several_settings_that_fit_a_table_the_narrowest_counts(rig: Rig) -> None:
    settings = SensorSettings(
        tables={
            "Cleaned": TableSettings(automatic=True),
            "lab": TableSettings(automatic=False),
            "tier:computed": TableSettings(automatic=True),
        }
    )
    defs = rig.build(sensor_settings=settings)
    selection = defs.resolve_sensor_def("populate_sensor").asset_selection
    assert selection is not None
    started = selection.resolve(defs.resolve_asset_graph())
    assert {key.to_user_string() for key in started} == {
        *("lab/cleaned", "lab/cleaned/peak", "lab/summary", "elsewhere/summary")
    }


def test_a_table_that_is_left_out_may_have_settings(rig: Rig) -> None:
    settings = SensorSettings(tables={"elsewhere": TableSettings(), "Summary": TableSettings()})
    assert rig.build(sensor_settings=settings, exclude=["elsewhere"])
