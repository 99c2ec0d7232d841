"""Tables whose classes are not at hand: read from the server, kept in a file, chosen by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dj_dagster.errors import ConfigurationError, ConnectionFailedError
from dj_dagster.orchestration import build_definitions
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema, VirtualModule
from dj_dagster.relational.table import Manual
from tests.orchestration.lab import Lab, declare_lab, partition
from tests.orchestration.running import key_of, requested, tick

MANUAL = ("subject", "session", "session/trial")
DEAD = "mysql+pymysql://root:secret@127.0.0.1:9/"


def specs_of(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    """The assets by name, without those that Dagster makes up for deps that it does not know."""
    return {
        spec.key.to_user_string(): spec
        for spec in defs.resolve_all_asset_specs()
        if "dj/class" in spec.metadata
    }


def shown(defs: dg.Definitions) -> dict[str, Any]:
    """What an asset says of its table, whoever declared it."""
    return {
        name: (
            sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            spec.kinds,
            spec.group_name,
            getattr(spec.partitions_def, "name", None),
            spec.metadata["dagster/column_schema"],
            spec.metadata["dj/class"],
        )
        for name, spec in specs_of(defs).items()
    }


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tables.json"


def test_a_server_shows_the_same_tables_as_their_classes(any_lab: Lab, state: Path) -> None:
    connection = any_lab.schema.connection
    pattern = any_lab.schema.name[:-1] + "*"
    defs = build_definitions(pattern, connection=connection, state_path=state)
    defs.get_repository_def().load_all_definitions()
    assert shown(defs) == shown(any_lab.definitions())
    # Nothing here knows how to fill them.
    assert not defs.resolve_asset_graph().materializable_asset_keys
    description = specs_of(defs)[any_lab.asset("raw_data")].description or ""
    assert description.startswith("The recording\n\n```\n-> Session\n---\n")
    assert description.rstrip("`\n").endswith(": <blob>")


def test_reflected_rows_are_marked_and_nothing_is_run(
    lab: Lab, instance: dg.DagsterInstance, state: Path
) -> None:
    lab.add_sessions([1, 2])
    lab.RawData.populate()
    defs = build_definitions("lab", connection=lab.schema.connection, state_path=state)
    assert requested(tick(defs, instance)) == []
    expected = {partition(1), partition(2)}
    for name in ("session", "raw_data"):
        assert instance.get_materialized_partitions(key_of(f"lab/{name}")) == expected
    assert instance.get_materialized_partitions(key_of("lab/processed")) == set()


def test_classes_at_hand_come_before_what_the_server_has(lab: Lab, state: Path) -> None:
    connection = lab.schema.connection
    declare_lab(connection, "lab_two")
    defs = build_definitions([lab.schema, "lab*"], connection=connection, state_path=state)
    names = {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}
    assert {name.split("/")[0] for name in names} == {"lab"}
    assert "lab_two/processed/peak" in specs_of(defs)


def test_virtual_modules_are_taken_too(lab: Lab) -> None:
    module = VirtualModule("lab", "lab", connection=lab.schema.connection)
    defs = build_definitions([module])
    assert shown(defs) == shown(lab.definitions())
    assert not defs.resolve_asset_graph().materializable_asset_keys


def test_a_dead_database_leaves_the_code_location_up(
    server_url: str, server_prefix: str, state: Path, instance: dg.DagsterInstance
) -> None:
    connection = Connection(server_url, safemode=False)
    declare_lab(connection, f"{server_prefix}lab")
    other = Schema(f"{server_prefix}other", connection=connection)
    other.context = {"lab": VirtualModule("lab", f"{server_prefix}lab", connection=connection)}

    @other
    class Probe(Manual):
        definition = """
        -> lab.Session
        ---
        depth = 1.5 : float64
        """

    pattern = f"{server_prefix}o*"
    alive = build_definitions(pattern, connection=connection, state_path=state)
    assert "secret" not in state.read_text()
    dead = Connection(DEAD)
    defs = build_definitions(pattern, connection=dead, state_path=state)
    defs.get_repository_def().load_all_definitions()
    assert list(specs_of(defs)) == [f"{server_prefix}other/probe"]
    assert shown(defs) == shown(alive)
    description = f"{server_prefix}other/probe"
    assert specs_of(defs)[description].description == specs_of(alive)[description].description
    # The sensor says what is wrong, and the location stays.
    with pytest.raises(ConnectionFailedError):
        build_definitions(pattern, connection=dead, state_path=state.with_name("none.json"))


def test_a_broken_state_file_is_as_good_as_none(lab: Lab, state: Path) -> None:
    state.parent.mkdir()
    state.write_text("{")
    defs = build_definitions("lab", connection=lab.schema.connection, state_path=state)
    assert len(specs_of(defs)) == 8
    state.write_text("[1]")
    with pytest.raises(ConnectionFailedError):
        build_definitions("lab", connection=Connection(DEAD), state_path=state)


def test_the_state_follows_the_tables(lab: Lab, state: Path) -> None:
    connection = lab.schema.connection
    build_definitions("lab", connection=connection, state_path=state)
    before = state.stat().st_mtime_ns
    build_definitions("lab", connection=connection, state_path=state)
    assert state.stat().st_mtime_ns == before

    @lab.schema
    class Added(Manual):
        definition = """
        added : int32
        """

    defs = build_definitions("lab", connection=connection, state_path=state)
    assert "lab/added" in specs_of(defs)
    assert "added" in state.read_text()


@pytest.mark.parametrize(
    ("select", "exclude", "left"),
    [
        (["lab.Session"], [], {"session", "session/trial"}),
        (["tier:manual", "Processed"], [], {*MANUAL, "processed", "processed/peak"}),
        (None, ["tier:computed", "tier:lookup", "lab.S*"], {"raw_data"}),
        (["lab"], ["Processed.Peak", "*Param*"], {*MANUAL, "raw_data", "processed", "filtered"}),
    ],
)  # fmt: skip
def test_tables_are_chosen_by_name_schema_and_tier(
    lab: Lab, select: list[str] | None, exclude: list[str], left: set[str]
) -> None:
    defs = lab.definitions(select=select, exclude=exclude)
    defs.get_repository_def().load_all_definitions()
    assert set(specs_of(defs)) == {f"lab/{name}" for name in left}


@pytest.mark.parametrize(
    ("schemas", "options", "message"),
    [
        ("lib*", {}, r"No schema has a name like 'lib\*'; there are lab"),
        ("lab", {"select": ["Sesion"]}, r"select has 'Sesion', which names no table; near it: lab"),
        ([3], {}, "3 is not a schema: give a dj.Schema"),
        ("lab", {"partition_by": {"Session": "session_id"}}, "write the first of subject_id, ses"),
    ],
)  # fmt: skip
def test_what_fits_nothing_says_what_there_is(
    lab: Lab, state: Path, schemas: Any, options: dict[str, Any], message: str
) -> None:
    connection = lab.schema.connection
    with pytest.raises(ConfigurationError, match=message):
        build_definitions(schemas, connection=connection, state_path=state, **options)
