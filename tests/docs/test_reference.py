"""The pages of the reference that are written from the code leave nothing out."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
import traceback
from pathlib import Path

import pytest

import dj_dagster as dj
import dj_dagster.orchestration as dj_orchestration
from dj_dagster import errors
from dj_dagster.cli import cli
from dj_dagster.settings_model import setting_names
from tools import reference

REPOSITORY = Path(__file__).parents[2]
NOT_RAISED = {"BucketInaccessible"}
"""Errors that are there for programs that name them."""


def all_errors() -> list[type[dj.DataJointError]]:
    for module in pkgutil.walk_packages(dj.__path__, "dj_dagster."):
        if ".demo" not in module.name:
            importlib.import_module(module.name)
    found, left = list[type[dj.DataJointError]](), [dj.DataJointError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return [kind for kind in found if kind.__module__.startswith("dj_dagster")]


def test_each_error_has_a_section_with_what_to_do() -> None:
    texts = reference.error_texts()
    names = {kind.__name__ for kind in all_errors() if not kind.__name__.startswith("_")}
    assert names - NOT_RAISED == set(texts)
    for name, text in texts.items():
        meaning, *more = text.split("\n\n")
        assert meaning, name
        assert any(not part.startswith(("A kind", "Kinds", "Transient")) for part in more), name


def test_a_traceback_ends_with_the_address_of_the_errors_section() -> None:
    with pytest.raises(dj.DefinitionError) as caught:
        dj.Schema("lab", connection=dj.Connection("sqlite://"))(
            type("Odd", (dj.Manual,), {"definition": "name : varchr(20)"})
        )
    last = "".join(traceback.format_exception(caught.value)).splitlines()[-1]
    assert last == f"Help: {errors.DOCUMENTATION}reference/errors.html#definitionerror"
    urls = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["urls"]
    assert urls["Documentation"] == errors.DOCUMENTATION


def test_an_error_of_a_programs_own_has_the_section_of_its_kind() -> None:
    class MineError(dj.InvalidValueError):
        def __init__(self, name: str, *, unit: str) -> None:
            super().__init__(f"{name} in {unit}")

    error = MineError("gain", unit="V")
    assert str(error) == "gain in V"
    assert error.__notes__[0].endswith("#invalidvalueerror")


def test_all_settings_are_listed_with_their_meaning() -> None:
    rows = [line.split(" | ") for line in reference.settings().splitlines() if "`" in line]
    named = {row[0].strip("| `"): row[-1].strip(" |") for row in rows if row[0].startswith("| `")}
    assert set(named) == set(setting_names())
    assert [name for name, meaning in named.items() if not meaning] == []


def test_all_commands_are_listed_with_their_options() -> None:
    text = reference.commands()
    for name, command in cli.commands.items():
        assert f"\n## {name}\n" in f"\n{text}"
        for parameter in command.params:
            assert all(option in text for option in parameter.opts if option.startswith("-"))


def test_the_api_lists_all_public_names() -> None:
    text = (REPOSITORY / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    aliases = {"ERD", "Di", "Entry", "Ingest", "Compute", "schema", "create_virtual_module"}
    elsewhere = {"config", "errors", "logger", "key"}
    kinds = {name for name in dj.__all__ if name in reference.error_texts()}
    assert set(dj.__all__) - aliases - elsewhere - kinds <= listed
    assert set(dj_orchestration.__all__) <= listed
