"""DataJoint's command, and the functions by which programs bring schemas up to date."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj


def test_the_interpreter_knows_schemas(tmp_path: Path) -> None:
    connection = dj.Connection(f"sqlite:///{tmp_path / 'lab.sqlite'}")
    schema = dj.Schema("my_lab", connection=connection)
    schema(type("Item", (dj.Manual,), {"definition": "item : int32"})).insert1((1,))
    command = [sys.executable, "-m", "dj_dagster.compat.cli", "-s", "my_lab:lab"]
    done = subprocess.run(
        command,
        input="lab.Item.keys()\nlab.schema\ndj.config['safemode']\n",
        capture_output=True,
        text=True,
        check=True,
        env={"DJ_DATABASE_URL": f"sqlite:///{tmp_path / 'lab.sqlite'}", "PATH": ""},
        cwd=tmp_path,
    )
    for words in ("[{'item': 1}]", "Schema `my_lab`", "True"):
        assert words in done.stdout
    assert "lab: the schema my_lab" in done.stderr


@pytest.mark.parametrize("imported", [False, True], ids=["alone", "beside dj_dagster.cli"])
def test_its_options(capsys: pytest.CaptureFixture[str], imported: bool) -> None:
    if imported:
        importlib.import_module("dj_dagster.cli")
    with pytest.raises(SystemExit) as ended:
        dj.cli(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dj_dagster {dj.__version__}\n"
    with pytest.raises(SystemExit):
        dj.cli(["-s", "lab"])
    assert "'lab' is not SCHEMA:NAME" in capsys.readouterr().err


def test_computed_tables_get_the_attributes_of_jobs(schema: Any) -> None:
    schema(type("Source", (dj.Lookup,), {"definition": "source : int32", "contents": [(1,), (2,)]}))

    @schema
    class Result(dj.Computed):
        definition = "-> Source"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)

    Result.populate("source = 1")
    asked = dj.migrate.add_job_metadata_columns(Result)
    assert (asked["columns_added"], asked["details"][0]["status"]) == (3, "pending")
    assert "_job_duration" not in Result.heading.all_attributes
    done = dj.migrate.add_job_metadata_columns(schema, dry_run=False)
    assert (done["tables_analyzed"], done["tables_modified"], done["columns_added"]) == (1, 1, 3)
    again = dj.migrate.add_job_metadata_columns(Result(), dry_run=False)
    assert (again["columns_added"], again["details"][0]["status"]) == (0, "already_migrated")
    Result.populate()
    rows = Result.proj(seconds="_job_duration", version="_job_version").to_dicts(order_by="source")
    assert rows[0] == {"source": 1, "seconds": None, "version": ""}
    assert rows[1]["seconds"] >= 0
    assert not Result.alter(prompt=False)
    with pytest.raises(dj.DataJointError, match="must be a Schema or Table"):
        dj.migrate.add_job_metadata_columns("lab")


def test_what_is_of_other_servers_says_so(schema: Any) -> None:
    table = schema(type("Item", (dj.Manual,), {"definition": "item : int32"}))
    for target in (schema, table, table()):
        with pytest.raises(dj.DataJointError, match="PostgreSQL-only"):
            dj.deploy.set_replica_identity(target)
    with pytest.raises(dj.DataJointError, match="'default' or 'full'"):
        dj.deploy.set_replica_identity(schema, mode="nothing")
    with pytest.raises(dj.DataJointError, match="must be a Schema or Table"):
        dj.deploy.set_replica_identity("lab")
    assert schema.lineage_table_exists == schema.connection.backend.keeps_lineage
    assert dj.migrate.rebuild_lineage(schema, dry_run=False) == {"lineage_entries": 1}
    assert "class Item(dj.Manual)" in schema.code
    assert table.adapter.quote_identifier("a") == "`a`"


def test_objects_of_0_14_are_put_and_read_by_hand(
    server_url: str, server_prefix: str, tmp_path: Path
) -> None:
    stage = tmp_path / "stage"
    raw = {"protocol": "file", "location": str(tmp_path / "raw"), "stage": str(stage)}
    connection = dj.Connection(server_url, stores=dj.Stores({"raw": raw}), safemode=False)
    schema = dj.Schema(f"{server_prefix}old", connection=connection, era="0.14")
    external = schema.external["raw"]
    first, again, other = (external.put(data) for data in (b"one", b"one", b"two"))
    assert (first == again, len(external), external.get(other)) == (True, 2, b"two")
    (stage / "day").mkdir(parents=True)
    file = stage / "day" / "x.dat"
    file.write_bytes(b"12345")
    attached = external.upload_attachment(file)
    assert external.get_attachment_name(attached) == "x.dat"
    external.download_attachment(attached, "x.dat", tmp_path / "copy.dat")
    assert (tmp_path / "copy.dat").read_bytes() == b"12345"
    place = external.upload_filepath(file)
    assert external.upload_filepath(str(file)) == place
    file.unlink()
    assert external.download_filepath(place) == (str(file), dj.hash.uuid_from_file(file))
    file.write_bytes(b"changed")
    with pytest.raises(dj.DataJointError, match=r"different version of day/x\.dat"):
        external.upload_filepath(file)
    table = schema(type("Item", (dj.Manual,), {"definition": "item : int\n---\nx : blob@raw"}))
    table.insert1((1, [1, 2]))
    assert list(table.external) == ["raw"]
    assert external.delete(delete_external_files=True) == []
    assert len(table.external["raw"]) == 1
    with pytest.raises(dj.MissingExternalFile, match=str(first)):
        external.get(first)
    schema.drop()
    connection.close()


def test_a_renamed_attribute_of_0_14_has_no_type_in_its_comment(
    server_url: str, server_prefix: str
) -> None:
    connection = dj.Connection(server_url, safemode=False)
    schema = dj.Schema(f"{server_prefix}old", connection=connection, era="0.14")
    before = "item : int\n---\nnotes : varchar(20)  # words"
    table: Any = schema(type("Item", (dj.Manual,), {"definition": before}))

    def created() -> str:
        return connection.query(f"SHOW CREATE TABLE {table.full_table_name}").fetchone()[1]

    first = created()
    table.definition = "item : int\n---\nremarks : varchar(20)  # {notes} words"
    assert table.alter(prompt=False)
    assert ":varchar" not in created()
    table.definition = before.replace("words", "{remarks} words")
    assert table.alter(prompt=False)
    assert created() == first
    schema.drop()
    connection.close()


def test_a_virtual_module_is_given_the_adapters_of_its_attributes(
    database_url: str, schema_prefix: str
) -> None:
    class Doubled(dj.AttributeAdapter):
        attribute_type = "longblob"

        def put(self, obj: Any) -> Any:
            return obj * 2

        def get(self, value: Any) -> Any:
            return value / 2

    name, adapter = f"{schema_prefix}lab", Doubled()
    first = dj.Connection(database_url, safemode=False)
    schema = dj.Schema(name, connection=first, add_objects={"doubled": adapter})
    definition = "item : int\n---\nvalue : <doubled>"
    schema(type("Item", (dj.Manual,), {"definition": definition})).insert1((1, 5))
    other = dj.Connection(database_url)
    lab = dj.VirtualModule("lab", name, connection=other, add_objects={"doubled": adapter})
    assert (lab.Item.fetch1("value"), lab.doubled) == (5, adapter)
    schema.drop()
    for connection in (first, other):
        connection.close()
