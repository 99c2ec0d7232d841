"""The project in a folder: the Python modules that it names for Dagster, and its instance."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from dagster import DagsterError, DagsterInstance
from yaml import YAMLError

from dj_dagster.errors import ConfigurationError
from dj_dagster.new_project import DAGSTER_YAML
from dj_dagster.orchestration._dagster import InstanceRef
from dj_dagster.orchestration.tables.collection import module_named


def modules(names: Sequence[str] = (), folder: Path | None = None) -> list[ModuleType]:
    """Import Python modules by name, or those that a folder names for Dagster.

    Without names these are ``[tool.dagster]`` or ``[tool.dg.project]`` in ``pyproject.toml``, or
    else the entries of ``workspace.yaml``.

    Parameters
    ----------
    names
        The modules; by default those of the folder.
    folder
        The project's folder, by default the working directory. Modules are looked for there first.

    Raises
    ------
    ConfigurationError
        When a module is not there, or the folder does not name one.
    """
    place = Path.cwd() if folder is None else folder
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    if names:
        return list(map(module_named, names))
    return [_loaded(each, place) for each in places(place)]


def dagster_instance(*, ephemeral: bool = False) -> DagsterInstance:
    """Return the instance that `dagster dev` has here.

    That is the one of DAGSTER_HOME or, where this is not set, of the ``dagster.yaml`` in the
    working directory.

    Parameters
    ----------
    ephemeral
        Whether to return an empty instance in memory where there is neither.

    Raises
    ------
    ConfigurationError
        When there is neither, or the instance cannot be opened.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home and not Path(DAGSTER_YAML).is_file():
        if ephemeral:
            return DagsterInstance.ephemeral()
        raise ConfigurationError(
            "There is no Dagster instance to show the keys in: set DAGSTER_HOME to its folder, or "
            f"run this where {DAGSTER_YAML} is."
        )
    try:
        return (
            DagsterInstance.get()
            if home
            else DagsterInstance.from_ref(InstanceRef.from_dir(str(Path.cwd())))
        )
    except (DagsterError, YAMLError) as error:
        raise ConfigurationError(
            f"The Dagster instance of {home or Path.cwd() / DAGSTER_YAML} cannot be opened: {error}"
        ) from error


Place = tuple[str, str, str]
"""The kind of a code location, ``module`` or ``file``; its name; and the folder it is in."""


def places(folder: Path) -> list[Place]:
    """Return the code locations that a folder names for Dagster.

    Raises
    ------
    ConfigurationError
        When it does not name one.
    """
    found = _named(folder)
    if not found:
        name = "definitions" if (folder / "definitions.py").is_file() else "MODULE"
        raise ConfigurationError(
            f"{folder} does not say where its tables are: run this in the folder of a project, "
            f"which has a workspace.yaml, or name a Python module: -m {name}"
        )
    return found


def _named(folder: Path) -> list[Place]:
    project = folder / "pyproject.toml"
    tool: Any = {}
    if project.is_file():
        tool = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {})
    name = tool.get("dagster", {}).get("module_name")
    if name is None and "project" in tool.get("dg", {}):
        of_dg = tool["dg"]["project"]
        name = of_dg.get("code_location_target_module", f"{of_dg['root_module']}.definitions")
    if name is not None:
        return [("module", name, ".")]
    workspace = folder / "workspace.yaml"
    if not workspace.is_file():
        return []
    listed: Any = yaml.safe_load(workspace.read_text(encoding="utf-8")) or {}
    return [place for each in listed.get("load_from", ()) for place in _places(each)]


_KINDS = {
    "python_module": ("module", "module_name"),
    "python_package": ("module", "package_name"),
    "python_file": ("file", "relative_path"),
}
"""What an entry of ``workspace.yaml`` is called, what it names, and the field that has the name."""


def _places(entry: Mapping[str, Any]) -> list[Place]:
    found: list[Place] = []
    for key, (kind, name) in _KINDS.items():
        given = entry.get(key)
        if given is not None:
            said: Any = given if isinstance(given, dict) else {name: given}
            found.append((kind, said[name], said.get("working_directory", ".")))
    return found


def _loaded(place: Place, folder: Path) -> ModuleType:
    kind, name, working_directory = place
    within = str((folder / working_directory).resolve())
    if within not in sys.path:
        sys.path.insert(0, within)
    if kind == "module":
        return module_named(name)
    path = folder / name
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"workspace.yaml names {path}, which is not a Python file.")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
