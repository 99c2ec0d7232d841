"""Where rows came from: ``_prov`` of manual tables, and makes that read and write what they may."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dj_dagster as dj
from dj_dagster.deploy import add_prov_column
from dj_dagster.settings import Config


@pytest.fixture
def config(database_url: str) -> Config:
    return Config({"database.url": database_url, "safemode": False})


@pytest.fixture
def lab(config: Config, schema_prefix: str) -> Iterator[dj.Schema]:
    connection = config.connect()
    yield dj.Schema(f"{schema_prefix}lab", connection=connection)
    connection.close()


def noted(table: Any) -> list[Any]:
    """Return what is in ``_prov``, by key."""
    rows = table.connection.query(
        f"SELECT _prov FROM {table.full_table_name} ORDER BY 1=1, {table.primary_key[0]}"
    )
    return [None if text is None else json.loads(text) for (text,) in rows]


def entry(lab: dj.Schema, name: str = "Entry") -> Any:
    definition = "entry : int32\n---\nvalue : float64"
    return lab(type(name, (dj.Manual,), {"definition": definition}))


def test_entered_rows_have_a_record_of_where_they_came_from(config: Config, lab: Any) -> None:
    config["provenance.capture"] = True
    config["provenance.source"] = {"system": "scale", "since": Path("here")}
    table = entry(lab)

    @lab
    class Step(dj.Imported):
        definition = "-> Entry"

        def make(self, key: dict[str, Any]) -> None:
            self.insert1(key)
            Feed.insert1((key["entry"], 0.5))

    Feed = entry(lab, "Feed")
    assert table().heading.names == ["entry", "value"]
    assert not table.alter(prompt=False)
    table.insert1((1, 2.5))
    table.insert([{"entry": 2, "value": 1.5}, {"entry": 3, "value": 1}])
    config["provenance.source"] = {}
    config["provenance.capture"] = False
    table.insert1({"entry": 4, "value": 1})
    first, second, third, fourth = noted(table)
    assert first["source"] == {"system": "scale", "since": "here"}
    assert first["agent"].keys() == {"user", "host"}
    assert first["time"].endswith("+00:00")
    assert second == third
    assert fourth is None
    config["provenance.capture"] = True
    (Step & "entry = 1").delete()
    Step.populate("entry = 2")
    (fed,) = noted(Feed)
    assert fed["context"] == {"table": Step.full_table_name, "key": {"entry": 2}}
    assert "source" not in fed
    copied = entry(lab, "Copy")
    copied.insert(table & "entry < 3")
    assert noted(copied) == [first, second]
    assert table.to_dicts(order_by="entry")[0] == {"entry": 1, "value": 2.5}


def test_the_attribute_is_added_to_tables_that_are_there(config: Config, lab: Any) -> None:
    table = entry(lab)
    table.insert1((1, 1))
    config["provenance.capture"] = True
    table.insert1((2, 1))
    assert add_prov_column(lab)["tables_modified"] == 0
    assert len(add_prov_column(table)["ddl"]) == 1
    assert add_prov_column(lab, dry_run=False)["columns_added"] == 1
    assert add_prov_column(lab, dry_run=False)["details"][0]["status"] == "already_present"
    table.insert1((3, 1))
    assert [record is None for record in noted(table)] == [True, True, False]
    assert not table.alter(prompt=False)


def test_a_source_that_cannot_be_noted_is_refused_when_it_is_set(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(dj.DataJointError, match=r"provenance\.source"):
        config["provenance.source"] = {(1, 2): "x"}
    monkeypatch.setenv("DJ_PROVENANCE_SOURCE", '{"system": "feed"}')
    assert Config.found()["provenance.source"] == {"system": "feed"}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda made, key: len(Other()), "undeclared"),
        (lambda made, key: Other.to_dicts(), "undeclared"),
        (lambda made, key: len(Source & Other), "undeclared"),
        (lambda made, key: Other.insert1((9, 1)), "not permitted to write"),
        (lambda made, key: Other.insert(Source.proj(entry="source")), "not permitted"),
        (lambda made, key: Other.update1({"entry": 1, "value": 2}), "not permitted"),
        (lambda made, key: (Other & "entry = 1").delete_quick(), "not permitted"),
        (lambda made, key: made.insert1({"source": 99, "sum": 1}), r"current make\(\) key"),
        (lambda made, key: made.Bin.insert([(99, 1)]), r"current make\(\) key"),
    ],
)
def test_a_strict_make_keeps_to_what_is_its_own(
    config: Config, lab: Any, act: Callable[[Any, Any], Any], words: str
) -> None:
    told: list[str] = []

    @lab
    class Source(dj.Lookup):
        definition = "source : int32"
        contents = ((1,), (2,))

    other = entry(lab, "Other")
    other.insert1((1, 1))
    globals().update(Source=Source, Other=other)

    @lab
    class Total(dj.Computed):
        definition = "-> Source\n---\nsum : int32"

        class Bin(dj.Part):
            definition = "-> master\nbin : int32"

        def make(self, key: dict[str, Any]) -> None:
            try:
                act(self, key)
            except dj.DataJointError as error:
                told.append(str(error))
            self.insert1({**key, "sum": len(self.upstream[Source])})
            self.Bin.insert([{**key, "bin": 1}, {**key, "bin": 2}])

    config["strict_provenance"] = True
    Total.populate()
    assert len(told) == 2
    assert all(text.startswith("strict_provenance") for text in told)
    assert all(re.search(words, text) for text in told)
    assert Total.to_arrays("sum").tolist() == [1, 1]
    assert len(Total.Bin()) == 4
    assert other.to_dicts() == [{"entry": 1, "value": 1.0}]


Source: Any = None
Other: Any = None
