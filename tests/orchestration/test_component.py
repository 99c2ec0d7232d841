"""The component of a ``dg`` project."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration import PipelineComponent
from dj_dagster.orchestration.scaffold import NewPipelineParams, NewPipelineScaffolder
from tests.orchestration.lab import Lab
from tests.services.process import PATIENCE

DG = Path(sys.executable).with_name("dg")
REPOSITORY = Path(__file__).parents[2]

DEFINITIONS = """
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""

MODULE = """
import dagster as dg
from dj_dagster.orchestration import TableTranslator
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Manual
from dj_dagster.workflow.computed import Computed

schema = Schema("lab", connection=Connection("sqlite:///{file}"))

@schema
class Thing(Manual):
    definition = "thing : int32"

@schema
class Result(Computed):
    definition = "-> Thing"
    def make(self, key):
        self.insert1(key)

@dg.asset(key=["lab", "thing"], io_manager_key="table_io_manager")
def things() -> list[dict]:
    return [{"thing": 1}]

class Owned(TableTranslator):
    def get_asset_spec(self, props):
        return super().get_asset_spec(props).replace_attributes(owners=["team:lab"])
"""


LEAF = {"leaf_id": 1, "length_mm": 80.0, "width_mm": 40.0}


def load(attributes: dict[str, Any]) -> dict[str, dg.AssetSpec]:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=PipelineComponent,
            defs_yaml_contents={
                "type": "dj_dagster.orchestration.PipelineComponent",
                "attributes": attributes,
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            defs.get_repository_def().load_all_definitions()
            return {
                spec.key.to_user_string(): spec
                for spec in defs.resolve_all_asset_specs()
                if "dj/class" in spec.metadata
            }


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"module_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE.replace("{file}", str(tmp_path / "own.sqlite")))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_modules_are_filled_and_patterns_looked_at(
    lab: Lab, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    specs = load({"modules": [module], "translator": f"{module}.Owned", "schedule": "0 3 * * *"})
    assert set(specs) == {"lab/thing", "lab/result"}
    assert specs["lab/result"].owners == ["team:lab"]
    assert specs["lab/result"].code_version
    specs = load(
        {
            "schemas": ["l*"],
            "database_url": lab.schema.connection.url,
            "exclude": ["tier:lookup"],
            "partition_by": {"RawData": ["subject_id"]},
            "batch_size": 10,
        }
    )
    assert "lab/processed/peak" in specs
    assert "lab/filter_params" not in specs
    assert specs["lab/raw_data"].partitions_def == specs["lab/subject"].partitions_def
    assert list((tmp_path / "dj_dagster").glob("tables-*.json"))


def test_one_name_is_not_a_list_of_letters(tmp_path: Path) -> None:
    said = f"modules: lab\nschemas: l*\nentry_folders: {tmp_path}\nassets: lab.things"
    found = PipelineComponent.resolve_from_yaml(said)
    assert found.modules == ["lab"]
    assert found.schemas == ["l*"]
    assert found.entry_folders == [str(tmp_path)]
    assert found.assets == ["lab.things"]
    assert PipelineComponent(schemas="lab_*").schemas == ["lab_*"]


def test_assets_stand_for_manual_tables(module: str) -> None:
    specs = load({"modules": [module], "assets": [f"{module}.things"]})
    assert set(specs) == {"lab/thing", "lab/result"}
    assert specs["lab/thing"].metadata["dj/class"] == "lab.Thing"


def test_everything_in_an_empty_database_is_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    assert load({"schemas": ["*"], "database_url": url}) == {}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "names no schemas: write modules"),
        ({"modules": ["no_such_lab"]}, "no Python module 'no_such_lab'"),
        ({"modules": ["json"]}, "is not a schema: give a dj.Schema"),
        ({"modules": ["json"], "translator": "json.dumps"}, "is not a TableTranslator"),
        ({"modules": ["json"], "assets": ["json.dumps"]}, "'json.dumps' is not an asset"),
        ({"schemas": ["*"], "batch_size": 0}, r"SensorSettings\(batch_size=0\): write 1 or more"),
        ({"schemas": ["*"], "schedule": ""}, "has schedule: '', which is empty"),
        ({"schemas": ["*"], "database_url": " "}, "has database_url: ' ', which is empty"),
    ],
)
def test_what_is_wrong_is_said(attributes: dict[str, Any], message: str) -> None:
    component = PipelineComponent(**attributes)
    with pytest.raises(ConfigurationError, match=message):
        component.build_defs(dg.ComponentTree.for_test().load_context)


def test_the_entry_point_leads_to_it() -> None:
    (entry,) = (
        each
        for each in entry_points(group="dagster_dg_cli.registry_modules")
        if each.name == "dj_dagster"
    )
    assert entry.load().PipelineComponent is PipelineComponent


def in_project(project: Path, *command: str | Path, code: int = 0) -> str:
    """Return what a command prints in a project of `dg` that is installed."""
    done = subprocess.run(
        command,
        cwd=project,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DJ_")},
            "PYTHONPATH": os.pathsep.join([str(project / "src"), str(REPOSITORY)]),
            "DAGSTER_HOME": "",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def dg_command(project: Path, *words: str, code: int = 0) -> str:
    return in_project(project, DG, *words, code=code)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of `dg`, as `create-dagster` makes one."""
    defs = tmp_path / "pulse" / "src" / "pulse" / "defs"
    defs.mkdir(parents=True)
    (defs / "__init__.py").touch()
    (defs.parent / "__init__.py").touch()
    (defs.parent / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "pulse" / "pyproject.toml").write_text(
        '[project]\nname = "pulse"\nversion = "1"\n[tool.dg]\ndirectory_type = "project"\n'
        '[tool.dg.project]\nroot_module = "pulse"\n'
    )
    return tmp_path / "pulse"


def test_a_dg_project_scaffolds_and_lists_it(project: Path, lab: Lab) -> None:
    name = "dj_dagster.orchestration.PipelineComponent"
    dg_command(project, "scaffold", "defs", name, "tables")
    file = project / "src" / "pulse" / "defs" / "tables" / "defs.yaml"
    assert "schemas:" in file.read_text()
    file.write_text(f"{file.read_text().rstrip()}\n  database_url: {lab.schema.connection.url}\n")
    assert "lab/processed/peak" in dg_command(project, "list", "defs", "--json")


def test_a_dg_project_scaffolds_a_pipeline_of_its_own(project: Path) -> None:
    scaffold = ("scaffold", "defs", "dj_dagster.orchestration.new_pipeline", "leaves")
    dg_command(project, *scaffold, "--schema-name", "plants")
    files = {str(p.relative_to(project)) for p in project.rglob("*") if p.is_file()}
    assert files >= {
        "dagster.yaml",
        "src/pulse/defs/leaves/definitions.py",
        "tests/test_leaves.py",
    }
    dg_command(project, "check", "defs")
    entry = {"ops": {"insert__plants__leaf__rows": {"config": {"rows": [LEAF]}}}}
    launch = ("launch", "--job", "insert__plants__leaf", "--config-json", json.dumps(entry))
    dg_command(project, *launch)
    # The key's partition is there once the rows were looked at, by the sensor or by `sync`.
    dj_command = [sys.executable, "-c", "from dj_dagster.cli import main; main()"]
    in_project(project, *dj_command, "sync")
    where = ("--assets", "plants/leaf_shape", "--partition", "leaf_id=1")
    dg_command(project, "launch", *where)
    with closing(sqlite3.connect(project / ".dj" / "lab.sqlite")) as database:
        rows = database.execute('SELECT * FROM "plants.__leaf_shape"').fetchall()
    assert [tuple(row[:2]) for row in rows] == [(1, 2.0)]
    tested = in_project(project, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in tested


def test_what_would_overwrite_a_test_is_not_scaffolded(project: Path) -> None:
    place = project / "src" / "pulse" / "defs" / "leaves"
    (project / "tests").mkdir()
    (project / "tests" / "test_leaves.py").write_text("mine")
    for schema, message in (("lab", "has tests/test_leaves.py already"), ("My Lab", "'My Lab'")):
        place.mkdir()
        request = dg.ScaffoldRequest(
            type_name="dj_dagster.orchestration.new_pipeline",
            target_path=place,
            scaffold_format="python",
            project_root=project,
            params=NewPipelineParams(schema_name=schema),
        )
        with pytest.raises(click.ClickException, match=message):
            NewPipelineScaffolder().scaffold(request)
        assert not place.exists()
