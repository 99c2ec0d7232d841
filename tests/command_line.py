"""The command `dj-dagster` in the process of a test, on the defaults of a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dj_dagster import default_connection
from dj_dagster.cli import cli

Command = Callable[..., Result]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run the command in this process, on defaults of an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DJ_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(default_connection, "_config", None)
    monkeypatch.setattr(default_connection, "_connection", None)
    # Commands add folders of modules.
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield lambda *arguments: CliRunner().invoke(cli, arguments)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]
