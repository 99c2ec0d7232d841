"""DataJoint's modules and what code takes from them; connections as DataJoint makes them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.compat.exports import PUBLIC_NAMES
from dj_dagster.compat.modules import old_module
from dj_dagster.dependencies import Dependencies, topo_sort, unite_master_parts
from tests.compat.public_imports import LINES

LOGGING = """
import logging
logging.getLogger("datajoint").setLevel(logging.CRITICAL)
assert logger.level == logging.CRITICAL
assert logging.getLogger("datajoint.populate").parent is logger
""".strip().splitlines()


def test_lines_that_public_packages_import() -> None:
    # In a process of its own: here DataJoint itself is imported by other tests.
    script = "\n".join(["import dj_dagster", "dj_dagster.replace_datajoint()", *LINES, *LOGGING])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["blob", "hash", "errors", "settings", "user_tables"])
def test_a_module_is_one_object(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__(f"dj_dagster.{name}", fromlist=["any"])
    monkeypatch.setattr(module, "chosen", 1, raising=False)
    assert getattr(dj, name) is module
    assert getattr(dj, name).chosen == 1


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_a_module_lists_its_names(name: str) -> None:
    module = old_module(name)
    assert {*PUBLIC_NAMES[name]} <= {*dir(module)}
    assert [each for each in PUBLIC_NAMES[name] if not hasattr(module, each)] == []


def test_names_that_are_nowhere_are_errors() -> None:
    with pytest.raises(AttributeError, match=r"dj_dagster\.hash has no 'no_such_name'"):
        _ = dj.hash.no_such_name
    with pytest.raises(AttributeError, match=r"dj_dagster\.settings has no 'no_such_name'"):
        _ = dj.settings.no_such_name
    with pytest.raises(dj.DataJointError, match=r"declare\.declare is a piece of how DataJoint"):
        dj.declare.declare("`lab`.`session`", "session : int", {})


def test_switches_of_0_14(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("filepath_types", "adapted_types"):
        switch = getattr(dj.errors, f"_switch_{name}")
        support = getattr(dj.errors, f"_support_{name}")
        monkeypatch.delenv(dj.errors.ADAPTED_TYPE_SWITCH, raising=False)
        monkeypatch.delenv(dj.errors.FILEPATH_FEATURE_SWITCH, raising=False)
        assert not support()
        switch(True)
        assert support()
        switch(False)
        assert not support()


def test_functions_of_utils_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dj.utils.get_master("`lab`.`__sort__unit`") == "`lab`.`__sort`"
    assert dj.utils.get_master("`lab`.`__sort`") == ""
    assert dj.utils.is_camel_case("SpikeSort")
    assert not dj.utils.is_camel_case("spike_sort")
    answers = iter(["perhaps", "No"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert dj.utils.user_choice("Go on?", default="yes") == "no"
    (tmp_path / "file").write_bytes(b"content")
    expected = uuid.UUID(bytes=hashlib.md5(b"lab/content").digest())
    assert dj.hash.uuid_from_file(tmp_path / "file", init_string="lab/") == expected
    assert dj.hash.uuid_from_buffer(b"content", init_string="lab/") == expected


def test_tables_in_a_graph_come_parents_first_and_parts_behind_masters() -> None:
    edges = [("`a`.`a`", "`a`.`m`"), ("`a`.`a`", "`a`.`z`"), ("`a`.`m`", "`a`.`m__p`")]
    graph = nx.DiGraph([*edges, ("`a`.`z`", "`a`.`m__p`")])
    assert topo_sort(graph) == ["`a`.`a`", "`a`.`z`", "`a`.`m`", "`a`.`m__p`"]
    names = ["`a`.`a`", "`a`.`m`", "`a`.`z`", "`a`.`m__p`"]
    assert unite_master_parts(names) == ["`a`.`a`", "`a`.`m`", "`a`.`m__p`", "`a`.`z`"]


def test_files_of_utils(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first.bin", tmp_path / "b" / "second.bin"
    dj.utils.safe_write(first, b"one")
    dj.utils.safe_write(first, b"two")
    dj.utils.safe_copy(first, second)
    first.write_bytes(b"two")
    dj.utils.safe_copy(first, second)
    assert second.read_bytes() == b"one"
    dj.utils.safe_copy(first, second, overwrite=True)
    dj.utils.safe_copy(second, second, overwrite=True)
    assert second.read_bytes() == b"two"
    script = tmp_path / "tables.sql"
    script.write_text("-- two\nSELECT 1,\n  2;\ndelimiter //\nSELECT 3; SELECT 4//\nSELECT 5\n")
    statements = ["SELECT 1, 2;", "SELECT 3; SELECT 4//", "SELECT 5"]
    assert list(dj.utils.parse_sql(script)) == statements


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a : int # hi", {"name": "a", "type": "int ", "comment": " hi#"}),
        ("a=null:varchar(3)", {"name": "a", "default": "null", "type": "varchar(3)"}),
        ("a = ':x' : enum('a#','b')", {"default": "':x' ", "type": "enum('a#','b')"}),
        ("x_1 : <blob@store> # z", {"name": "x_1", "comment": " z#"}),
    ],
)
def test_lines_of_attributes_as_datajoint_takes_them_apart(
    line: str, parts: dict[str, str]
) -> None:
    found = dj.declare.attribute_parser.parseString(f"{line}#", parseAll=True)
    assert {name: found[name] for name in parts} == parts
    assert found.default == parts.get("default", "")
    assert not dj.declare.is_foreign_key(line)


def test_lines_of_foreign_keys_as_datajoint_takes_them_apart() -> None:
    parse = dj.declare.foreign_key_parser.parseString
    assert parse("-> [nullable, unique] Session").options == ["nullable", "unique"]
    assert parse("-> Session.proj(a='b')").as_dict() == {"ref_table": "Session.proj(a='b')"}
    assert dj.declare.is_foreign_key("-> Session")
    with pytest.raises(dj.DataJointError, match="not a line with a foreign key"):
        parse("session : int")


def test_the_sql_of_a_query_in_parts(tables: dict[str, Any], schema: dj.Schema) -> None:
    cell, query = tables["cell"], schema.connection.query
    listed = cell.proj() & [{"cell": 1}, {"cell": 2}]
    for chosen in (cell & "cell > 0", listed, cell.proj(n="cell") & "n > 0"):
        sql = f"SELECT count(*) FROM {chosen.from_clause()}{chosen.where_clause()}"
        assert query(sql).fetchone() == (2,)
        assert sorted(chosen.cursor()) == [(1,), (2,)]
    assert cell.support == (cell & "cell > 0").support == [cell.full_table_name]
    assert (cell & "cell > 0").restriction_attributes == {"cell"}
    assert cell.cursor(as_dict=True).fetchone() == {"cell": 0}
    assert dj.condition.extract_column_names("`a` > 3 and b in (c, 'd')") == {"a", "b", "c"}
    dj.condition.assert_join_compatibility(cell(), tables["synapse"])
    with pytest.raises(dj.DataJointError, match="not a query"):
        dj.condition.assert_join_compatibility(1, cell)


def test_a_dropped_table_is_declared_again(tables: dict[str, Any]) -> None:
    spine = tables["synapse"].Spine
    spine.drop_quick()
    spine.declare()
    spine.declare()
    assert (len(spine), spine.heading.primary_key) == (0, ["pre", "post", "spine"])


def test_fetches_as_classes(tables: dict[str, Any]) -> None:
    cell = tables["cell"]
    assert dj.fetch.Fetch(cell())("cell", order_by="cell").tolist() == [0, 1, 2]
    assert dj.fetch.Fetch1(cell & "cell = 2")("cell") == 2
    assert list(dj.fetch.to_dicts(cell.fetch(limit=1, order_by="cell"))) == [{"cell": 0}]


def test_blobs_of_nulls() -> None:
    assert dj.blob.unpack(None) is None
    assert dj.blob.unpack(dj.blob.pack([1])) == dj.blob.Blob().unpack(dj.blob.pack([1])) == [1]


def test_errors_with_further_arguments() -> None:
    error = dj.errors.DuplicateError("one").suggest("two")
    assert (type(error), error.args) == (dj.errors.DuplicateError, ("one", "two"))


def test_an_adapter_in_a_context() -> None:
    adapter = dj.AttributeAdapter()
    assert dj.attribute_adapter.get_adapter({"graph": adapter}, "<graph>") is adapter
    with pytest.raises(dj.DataJointError, match=r"<graph> needs an instance of dj\.AttributeA"):
        dj.attribute_adapter.get_adapter({}, "graph")


@pytest.fixture
def tables(schema: dj.Schema) -> dict[str, Any]:
    @schema
    class Cell(dj.Manual):
        definition = "cell : int"

    @schema
    class Synapse(dj.Manual):
        definition = """
        -> Cell.proj(pre='cell')
        -> Cell.proj(post='cell')
        ---
        weight = null : float
        """

        class Spine(dj.Part):
            definition = """
            -> master
            spine : int
            """

    Cell.insert([{"cell": number} for number in range(3)])
    return {"cell": Cell, "synapse": Synapse}


def test_dependencies_of_a_connection(tables: dict[str, Any], schema: dj.Schema) -> None:
    cell, synapse = tables["cell"], tables["synapse"]
    graph = schema.connection.dependencies
    assert isinstance(graph, Dependencies)
    assert graph is schema.connection.dependencies
    graph.load()
    names = [cell.full_table_name, synapse.full_table_name, synapse.Spine.full_table_name]
    assert graph.topo_sort() == names
    assert graph.number_of_edges(*names[:2]) == 2
    assert graph.descendants(names[1]) == names[1:]
    assert graph.ancestors(names[1]) == [names[1], names[0]]
    assert [name for name, _ in graph.children(names[0])] == [names[1]] * 2
    ((parent, edge),) = graph.parents(names[2])
    assert parent == names[1]
    assert edge["attr_map"] == {"pre": "pre", "post": "post"}
    assert edge["primary"]
    assert graph.subgraph(names[:2]).number_of_edges() == 2
    assert graph.nodes[names[0]]["primary_key"] == {"cell"}


def test_kinds_of_queries_and_tables(tables: dict[str, Any], schema: dj.Schema) -> None:
    cell = tables["cell"]
    union = (cell & "cell = 1") + (cell & "cell = 2")
    assert isinstance(union, dj.expression.Union)
    assert isinstance(dj.U().aggr(cell, n="count(*)"), dj.expression.Aggregation)
    assert not isinstance(cell(), dj.expression.Union)
    assert isinstance(cell(), dj.user_tables.UserTable)
    assert not isinstance(schema["Cell"], dj.user_tables.UserTable)
    assert isinstance(cell, dj.user_tables.TableMeta)


@pytest.mark.parametrize(
    ("restriction", "rows"),
    [
        ({"cell": 1}, 1),
        ("cell > 0", 2),
        ([{"cell": 0}, {"cell": 2}], 2),
        (dj.AndList(["cell > 0", "cell < 2"]), 1),
        (dj.Not("cell = 0"), 2),
    ],
)
def test_a_condition_as_text_restricts_as_it_does(
    tables: dict[str, Any], restriction: Any, rows: int
) -> None:
    cell, columns = tables["cell"], set[str]()
    text = dj.condition.make_condition(cell(), restriction, columns)
    assert isinstance(text, str)
    assert len(cell & text) == len(cell & restriction) == rows
    assert columns == {"cell"}
    assert dj.condition.make_condition(cell(), True, set()) is True


def test_a_connection_to_a_server_by_host_and_account(server_url: str) -> None:
    url = sa.make_url(server_url)
    place = f"{url.host}:{url.port}"
    with dj.Connection(place, url.username, url.password or "") as connection:
        assert connection.is_connected
        assert connection.query("SELECT 1", reconnect=True).fetchone() == (1,)
        assert connection.adapter.backend == "mysql"
        assert connection.adapter.quote_identifier("key") == "`key`"
        assert connection.connection_id > 0
        assert connection.conn_info["passwd"] == (url.password or "")
    assert not connection.is_connected
    with dj.config.override(database__port=url.port):
        again = dj.Connection(url.host, url.username, url.password or "")
    assert again.conn_info["port"] == url.port
    other = dj.Connection(
        host=url.host, user=url.username, password=url.password or "", port=url.port, use_tls=None
    )
    assert other.conn_info["port"] == url.port
    assert connection.query("SELECT 1").fetchone() == (1,)
    assert connection.is_connected
    connection.close()
    other.close()


def test_a_first_statement_of_connections(server_url: str, tmp_path: Path) -> None:
    url, statement = sa.make_url(server_url), "SET @chosen = 7"
    account = (f"{url.host}:{url.port}", url.username, url.password or "")
    made = [dj.Connection(*account, init_fun=statement)]
    lab = dj.Instance(database__url=server_url, connection__init_function=statement)
    made.append(lab.connection)
    for connection in made:
        assert connection.query("SELECT @chosen").fetchone() == (7,)
        with connection.session_apart() as session:
            assert session.exec_driver_sql("SELECT @chosen").scalar() == 7
        connection.close()
    with pytest.raises(dj.ConfigurationError, match=r"'SET nothing', was refused.*init_function"):
        dj.Connection(*account, init_fun="SET nothing").ping()
    with dj.Connection(f"sqlite:///{tmp_path}/lab", init_fun=statement) as connection:
        assert connection.query("SELECT 1").fetchone() == (1,)


def test_a_password_is_not_shown() -> None:
    info = dj.Connection("mysql+pymysql://alice:secret@localhost/").conn_info
    assert info["passwd"] == "secret"
    assert "secret" not in repr(info)


def test_per_cent_signs_of_a_statement_may_be_doubled(schema: dj.Schema) -> None:
    query = schema.connection.query
    assert query("SELECT 'a%b'").fetchone() == ("a%b",)
    assert query("SELECT 'a%%b'").fetchone() == ("a%b",)
    assert query("SELECT 'a%%b', %s", (1,)).fetchone() == ("a%b", 1)


def test_names_of_a_definition_are_given(schema: dj.Schema) -> None:
    @schema
    class Subject(dj.Manual):
        definition = "subject : int"

    def written_elsewhere() -> Any:
        return type("Weight", (dj.Manual,), {"definition": "-> Animal\n---\nweight : int"})

    with pytest.raises(dj.DataJointError, match="Animal"):
        schema(written_elsewhere())
    weight = schema(written_elsewhere(), context={"Animal": Subject})
    Subject.insert1({"subject": 1})
    weight.insert1({"subject": 1, "weight": 20})
    assert weight.fetch1("weight") == 20


def test_positional_inserts_warn(schema: dj.Schema, recwarn: pytest.WarningsRecorder) -> None:
    @schema
    class Color(dj.Lookup):
        definition = "color : varchar(8)"
        contents = (("red",), ("blue",))

    Color.insert1({"color": "green"})
    assert not [warning for warning in recwarn if "Positional" in str(warning.message)]
    with pytest.warns(DeprecationWarning, match="Positional inserts"):
        Color.insert1(("black",))


def test_parts_of_a_base_class_that_is_no_table(schema: dj.Schema) -> None:
    class Recording(dj.Manual):
        definition = """
        recording : int
        """

        class Channel(dj.Part):
            definition = """
            -> master
            channel : int
            """

    @schema
    class Ephys(Recording):
        pass

    assert Ephys.Channel.heading.primary_key == ["recording", "channel"]
    assert Ephys.Channel is not Recording.Channel


def test_settings_that_programs_write_and_read(tmp_path: Path) -> None:
    file = tmp_path / "datajoint.json"
    assert dj.config.save_template(file, create_secrets_dir=True) == file
    assert (tmp_path / ".secrets" / ".gitignore").read_text() == "*\n"
    with pytest.raises(FileExistsError, match="already exists"):
        dj.config.save_template(file)


def test_a_codec_tells_whether_spark_can_read_it() -> None:
    class Readable:
        def to_spark(self, decoded: Any, *, key: Any = None) -> list[Any]:
            return list(decoded)

    assert isinstance(Readable(), dj.SparkAdapter)
    assert not isinstance(dj.get_codec("<blob>"), dj.SparkAdapter)
    assert dj.codecs.is_codec_registered("<blob>")


def test_edges_of_a_diagram_are_counted(tables: dict[str, Any], schema: dj.Schema) -> None:
    names = tables["cell"].full_table_name, tables["synapse"].full_table_name
    assert dj.Diagram(schema).number_of_edges(*names) == 2
    assert dj.Diagram(schema).number_of_edges() == 3
