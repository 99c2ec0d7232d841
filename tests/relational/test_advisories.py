"""The kinds of weakness of DataJoint's five advisories of November 2026, tried on all databases.

Files outside the store, encryption that is not enforced, restrictions that become SQL, what `alter`
and blobs are made to do by what is stored, and configuration files of other users.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_dagster as dj
from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from dj_dagster.settings import Config
from dj_dagster.settings_mapping import found_settings
from tests.lab import connect
from tests.test_local_files import NOBODY, as_root

CODE = "__import__('pathlib').Path('ran').touch()"


@pytest.fixture
def file(schema: Any, tmp_path: Path) -> Any:
    """A table whose rows point into a store, with a file of somebody else's beside the store."""

    @schema
    class File(dj.Manual):
        definition = """
        # files 1
        name : varchar(40)
        ---
        size = 0 : int32
        array = null : <npy@local>
        whole = null : <object@local>
        own = null : <filepath@local>
        packed = null : <blob@local>
        inline = null : <blob>
        letter = null : <attach>
        """

    np.save(tmp_path / "secret.npy", np.arange(3))
    File.insert1({"name": "ann", "array": np.arange(3), "inline": [1], "size": 3})
    File.insert1({"name": "bob"})
    return File


def put(table: Any, column: str, stored: Any) -> None:
    """Write into a row what no client of ours writes."""
    name = table.full_table_name
    table.connection.query(f"UPDATE {name} SET {column} = %s WHERE name = 'bob'", (stored,))


def read(table: Any, column: str) -> Any:
    """Read what a row's reference points to."""
    value = (table & {"name": "bob"}).fetch1(column)
    return value.load() if column == "array" else value.read()


@pytest.mark.parametrize("column", ["array", "whole", "own", "packed"])
def test_no_reference_leads_out_of_its_store(file: Any, tmp_path: Path, column: str) -> None:
    kind = {"dtype": "int64", "shape": [3]} if column == "array" else {"size": 152}
    for path in (
        "../secret.npy", "x/../../secret.npy", "..\\secret.npy", str(tmp_path / "secret.npy"),
        "./../secret.npy", "%2e%2e/secret.npy", "../store/../secret.npy", "\0/../secret.npy",
    ):  # fmt: skip
        reference = {"path": path, "store": "local", **kind}
        try:
            put(file, column, json.dumps(reference))
        except dj.DataJointError:
            continue
        with pytest.raises(dj.DataJointError):
            read(file, column)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..\\evil", "a/../../evil", "..", "."])
def test_no_attachment_is_written_outside_the_downloads(
    file: Any, tmp_path: Path, database_url: str, name: str
) -> None:
    put(file, "letter", name.encode() + b"\0content")
    inside = tmp_path / "down" / "loads"
    elsewhere = dj.Connection(database_url, download_path=inside)
    table = dj.FreeTable(elsewhere, f"{file.database}.file") & {"name": "bob"}
    try:
        found = Path(table.fetch1("letter")).resolve()
    except dj.DataJointError:
        found = None
    assert found is None or found.parent == inside.resolve()
    assert {path.name for path in tmp_path.glob("down/*")} <= {"loads"}
    assert not list(tmp_path.glob("evil*"))
    elsewhere.close()


def test_tls_that_is_asked_for_is_had_or_an_error(server_url: str) -> None:
    for wanted in (True, False):
        connection = Config({"database.url": server_url, "database.use_tls": wanted}).connect()
        try:
            ((_, cipher),) = connection.query("SHOW STATUS LIKE 'Ssl_cipher'").fetchall()
        except dj.DataJointError as error:
            # The server has none, or asks for it.
            cipher = wanted if re.search("TLS|SSL|transport", str(error)) else None
        assert bool(cipher) is wanted
        connection.close()


WORDS = (
    "x' OR '1'='1", "\\' OR 1=1 -- ", "x\\", '" OR ""="', "%s", "%(name)s", "%", "`", "?", ":name",
    "'; DROP TABLE file; -- ", "\\' UNION SELECT 1 -- ", "{0}", "/*", "#", "\0' OR 1=1",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_values_are_values(file: Any, word: str) -> None:
    assert len(file & {"name": word}) == 0
    assert len(file & [{"name": word}, {"name": word, "size": 1}]) == 0
    assert len(file - {"name": word}) == 2
    assert len(file & dj.Not({"name": word})) == 2
    file.insert1({"name": word, "size": 7})
    assert (file & {"name": word}).fetch1("size") == 7
    file.update1({"name": word, "size": 8})
    assert (file & {"name": word}).delete() == 1
    assert len(file()) == 2


@pytest.mark.parametrize(
    "name",
    ["name` = 'ann' OR 1=1 -- ", 'size" OR 1=1 -- ', "1=1) OR (1=1", "size); DROP TABLE file; -- "],
)
def test_names_are_names(file: Any, schema: Any, name: str) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: len(file & {"name": "nobody", name: 1}),
        lambda: len(file & [{"name": "nobody", name: 1}]),
        lambda: len(dj.U(name) & file),
        lambda: len(file.proj(name)),
        lambda: file.fetch(name),
        lambda: file.to_dicts(order_by=name),
        lambda: (file & dj.Top(1, name)).to_dicts(),
        lambda: file.insert1({"name": "eve", name: 1}),
        lambda: file.update1({"name": "ann", name: 1}),
        lambda: len(dj.FreeTable(schema.connection, f"{schema.name}.{name}")),
    ]
    for use in uses:
        with contextlib.suppress(dj.DataJointError, TypeError):
            assert not use()
    assert sorted(file.to_arrays("name")) == ["ann", "bob"]


@pytest.mark.parametrize(
    "comment", [":<blob>:{}", ":{}:x", "{{{}}}", '""" + {} + """', '\\"\\"\\" ; {} #', "default={}"]
)
def test_comments_are_not_run(
    file: Any, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, comment: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text, name = comment.format(CODE), file.full_table_name
    if database_url.startswith("sqlite"):
        file.connection.query("UPDATE `~catalog` SET comment = %s", (text,))
    else:
        file.connection.query(f"ALTER TABLE {name} COMMENT = %s", (text,))
        column = "MODIFY size int NOT NULL DEFAULT 0 COMMENT %s"
        file.connection.query(f"ALTER TABLE {name} {column}", (text,))
    other = connect(database_url, tmp_path)
    again = dj.Schema(file.database, connection=other)
    for use in (
        lambda: again["file"].describe(),
        lambda: repr(again["file"]),
        lambda: again.save(tmp_path / "saved.py"),
        lambda: dj.VirtualModule("found", file.database, connection=other).File.alter(prompt=False),
        lambda: file.alter(prompt=False),
    ):
        with contextlib.suppress(dj.DataJointError):
            use()
    saved = tmp_path / "saved.py"
    if saved.exists():
        # Enough to see that what was a comment is a text there too.
        assert "ran" not in code_of(saved.read_text(encoding="utf-8"))
    assert not (tmp_path / "ran").exists()
    other.close()


def code_of(source: str) -> str:
    """Return a module's code without its texts."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
    return ast.unparse(tree)


def test_alter_reads_no_value_as_another(schema: Any) -> None:
    @schema
    class Kept(dj.Manual):
        definition = "kept : int32\n---\ndata : <blob>\nraw : bytes"

    Kept.insert1((1, {"a": [1, 2]}, pack([1])))
    Kept.definition = "kept : int32\n---\ndata : bytes\nraw : <blob>"
    with pytest.raises(dj.DataJointError, match=r"data|raw"):
        Kept.alter(prompt=False)
    assert Kept.fetch1("data") == {"a": [1, 2]}
    assert Kept.fetch1("raw") == pack([1])


@pytest.mark.parametrize(
    "blob",
    [
        b"ZL123\0" + struct.pack("<Q", 100) + zlib.compress(bytes(2**24)),
        b"ZL123\0" + struct.pack("<Q", 2**60) + zlib.compress(bytes(100)),
        b"mYm\0A" + struct.pack("<QQII", 1, 2**40, 6, 0),
        b"dj0\0\x02" + struct.pack("<Q", 2**40),
        b"dj0\0" + (b"\x02" + struct.pack("<QQ", 1, 9)) * 10_000,
    ],
)
def test_forged_blobs_are_errors_of_their_row(file: Any, blob: bytes) -> None:
    put(file, "inline", blob)
    with pytest.raises(dj.DataJointError, match=r"file\.inline \(name='bob'\)"):
        (file & {"name": "bob"}).fetch1("inline")
    assert (file & {"name": "ann"}).fetch1("inline") == [1]
    assert "bob" in repr(file())


class _Evil:
    def __reduce__(self) -> Any:
        return (eval, (CODE,))


def test_no_pickle_is_loaded(file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (stored,) = (tmp_path / "store").rglob("array_*.npy")
    np.save(stored, np.array([_Evil()] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(dj.DataJointError):
        (file & {"name": "ann"}).fetch1("array").load()
    with pytest.raises(dj.DataJointError):
        unpack(np.array([_Evil()], dtype=object).dumps())
    assert not (tmp_path / "ran").exists()


@as_root
def test_settings_of_others_in_shared_folders_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "shared" / "own"
    own.mkdir(parents=True)
    own.parent.chmod(0o1777)
    settings = own.parent / "datajoint.json"
    settings.write_text('{"database": {"host": "evil.org"}}')
    os.chown(settings, NOBODY, NOBODY)
    monkeypatch.chdir(own)
    monkeypatch.setenv("HOME", str(own))
    for variable in ("DJ_HOST", "DJ_DATABASE_URL", "DJ_CONFIG_FILE"):
        monkeypatch.delenv(variable, raising=False)
    assert "evil.org" not in map(str, found_settings().values())
    assert str(settings) in caplog.text
