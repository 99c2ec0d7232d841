"""A schema saved as a Python module has the same tables when that is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from tests.relational.test_describe import DEFINITIONS, declare, facts

CHECK = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
import dj_dagster as dj
module = importlib.import_module(sys.argv[1])
before = sorted(module.schema.list_tables())
print(module.schema.name, len(before), sorted(
    cls.table_name for cls in module.schema.tables.values()
))
print(module.Session.Trial.class_name, module.Session.tier.value, len(module.Lab))
print(module.None_.table_name)
module.schema.connection.close()
"""


def run(folder: Path, url: str, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, name],
        cwd=folder,
        env={"DJ_DATABASE_URL": url, "PYTHONPATH": str(Path(dj.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_saved_module_is_the_schema(schema: Any, database_url: str, tmp_path: Path) -> None:
    tricky = "# ends in a backslash \\ and ''' \"\"\" quotes\nid : int32  # \\n\n---\nx : int8"
    definitions = {
        **DEFINITIONS,
        "None_": (dj.Manual, tricky),
        "Late": (dj.Manual, "late : int32"),
        "Late.Piece": (dj.Part, "-> master\n-> Session.Event\n-> None_"),
    }
    classes = declare(schema, definitions)
    classes["Lab"].insert([("a",), ("b",)])
    before = {cls.table_name: facts(schema, cls.table_name) for cls in classes.values()}
    assert schema.save(tmp_path / "saved.py") == (tmp_path / "saved.py").read_text()
    masters = sorted(cls.table_name for name, cls in classes.items() if "." not in name)
    assert run(tmp_path, database_url, "saved").splitlines() == [
        f"{schema.name} {len(classes)} {masters}",
        "Session.Trial imported 2",
        "none",
    ]
    assert {table: facts(schema, table) for table in before} == before

    # And where there are no tables yet, it makes the same.
    schema.drop(prompt=False)
    run(tmp_path, database_url, "saved")
    assert {table: facts(schema, table) for table in before} == before


def test_other_schemas_are_reached_by_virtual_modules(
    schema: Any, connection: dj.Connection, schema_prefix: str
) -> None:
    lab = declare(schema, {"Lab": DEFINITIONS["Lab"]})["Lab"]
    other: Any = dj.Schema(
        f"{schema_prefix}1-other",
        connection=connection,
        context={"lab": type("M", (), {"Lab": lab})},
    )
    other(type("Visit", (dj.Manual,), {"definition": "-> lab.Lab"}))
    third: Any = dj.Schema(
        f"{schema_prefix}third", connection=connection, context=dict(other.tables)
    )
    third(type("Stay", (dj.Manual,), {"definition": "-> Visit"}))
    name = f"{schema_prefix}1_other"
    source = third.save()
    assert f"{name} = dj.VirtualModule({name!r}, {other.name!r})\n" in source
    assert f"-> {name}.Visit\n" in source
    assert f"-> {schema.name}.Lab" in other.save()
    compile(source, "saved", "exec")
    with pytest.raises(dj.QueryError, match="third"):
        other.drop(prompt=False)
