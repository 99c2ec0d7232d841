"""The project in a folder: the Python modules that it names for Dagster, and its instance."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Annotated, NamedTuple, TypeVar

import yaml
from dagster import DagsterInstance
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from yaml import YAMLError

from dj_dagster.errors import ConfigurationError
from dj_dagster.local_files import reading
from dj_dagster.new_project import DAGSTER_YAML
from dj_dagster.orchestration._dagster import InstanceRef
from dj_dagster.orchestration.tables.collection import module_named


def modules(names: Sequence[str] = (), folder: Path | None = None) -> list[ModuleType]:
    """Import Python modules by name, or those that a folder names for Dagster.

    Without names these are ``[tool.dagster]`` in ``pyproject.toml``, the project of ``dg`` in
    ``dg.toml`` or ``pyproject.toml``, or else the entries of ``workspace.yaml``.

    Parameters
    ----------
    names
        The modules; by default those of the folder. ``lab.two:defs`` is one thing of a module that
        has several definitions.
    folder
        The project's folder, by default the working directory. Modules are looked for there first.

    Raises
    ------
    ConfigurationError
        When a module is not there, the folder does not name one, or two of its code locations
        have different modules of one name.
    """
    place = Path.cwd() if folder is None else folder
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    if names:
        return [_part(module_named(name), of) for name, _, of in (n.partition(":") for n in names)]
    return _all_loaded(places(place), place)


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
    except Exception as error:
        # The file may name any class, and Dagster has errors of several kinds for it.
        raise ConfigurationError(
            f"The Dagster instance of {home or Path.cwd() / DAGSTER_YAML} cannot be opened: {error}"
        ) from error


class Place(NamedTuple):
    """A code location.

    Attributes
    ----------
    kind, name
        ``module`` or ``file``, and its name.
    folder
        The folder that it is in.
    attribute
        The definitions in it, empty where it has one.
    """

    kind: str
    name: str
    folder: str = "."
    attribute: str = ""


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
    tool = _read(folder / "pyproject.toml", tomllib.loads, _PyProject).tool
    if names := tool.dagster.names():
        return [Place("module", name) for name in names]
    of_dg = _read(folder / "dg.toml", tomllib.loads, _OfDg).project or tool.dg.project
    if of_dg is not None:
        name = of_dg.code_location_target_module or f"{of_dg.root_module}.definitions"
        return [Place("module", name)]
    entries = _read(folder / "workspace.yaml", yaml.safe_load, _Workspace).load_from
    return [place for entry in entries for place in entry.places()]


S = TypeVar("S", bound=BaseModel)


def _read(file: Path, parse: Callable[[str], object], kind: type[S]) -> S:
    """Return the settings in a file of the project; the defaults if it is not there or empty.

    Raises
    ------
    ConfigurationError
        If they cannot be read, or are not as Dagster needs them.
    """
    if not file.is_file():
        return kind()
    with reading(file, YAMLError):
        content = parse(file.read_text(encoding="utf-8"))
    try:
        return kind.model_validate({} if content is None else content)
    except ValidationError as error:
        said = "; ".join(_problem(each["loc"], each["msg"]) for each in error.errors())
        raise ConfigurationError(
            f"{file} does not say where the definitions are: {said}. Correct the file."
        ) from None


def _problem(place: Sequence[int | str], text: str) -> str:
    # The classes of this module mean nothing to its users.
    said, _, _ = text.partition(" or instance of ")
    return f"{'.'.join(map(str, place))}: {said}" if place else said


Name = Annotated[str, StringConstraints(min_length=1)]


class _Settings(BaseModel):
    """A part of a project's file; what Dagster alone reads is left out."""

    model_config = ConfigDict(strict=True)


class _NamedModule(_Settings):
    type: str
    name: Name


class _OfDagster(_Settings):
    module_name: Name | None = None
    modules: list[_NamedModule] = []

    def names(self) -> list[str]:
        """Return the modules: Dagster reads one or a list, and of the list those of this type."""
        listed = [each.name for each in self.modules if each.type == "module"]
        return listed if self.module_name is None else [self.module_name]


class _DgProject(_Settings):
    root_module: Name
    code_location_target_module: Name | None = None


class _OfDg(_Settings):
    project: _DgProject | None = None


class _Tool(_Settings):
    dagster: _OfDagster = _OfDagster()
    dg: _OfDg = _OfDg()


class _PyProject(_Settings):
    tool: _Tool = _Tool()


class _Location(_Settings):
    """A code location in ``workspace.yaml``: its fields, or the text of the first one alone."""

    working_directory: str = "."
    attribute: str = ""

    @model_validator(mode="before")
    @classmethod
    def _in_full(cls, given: object) -> object:
        first = next(name for name in cls.model_fields if name not in _Location.model_fields)
        return {first: given} if isinstance(given, str) else given


class _Module(_Location):
    module_name: Name


class _Package(_Location):
    package_name: Name


class _File(_Location):
    relative_path: Name


class _Entry(_Settings):
    python_module: _Module | None = None
    python_package: _Package | None = None
    python_file: _File | None = None

    def places(self) -> Iterator[Place]:
        """Yield the code locations that the entry names; Dagster allows one."""
        if (module := self.python_module) is not None:
            yield Place("module", module.module_name, module.working_directory, module.attribute)
        if (package := self.python_package) is not None:
            yield Place(
                "module", package.package_name, package.working_directory, package.attribute
            )
        if (file := self.python_file) is not None:
            yield Place("file", file.relative_path, file.working_directory, file.attribute)


class _Workspace(_Settings):
    load_from: list[_Entry] = []


def _all_loaded(named: Sequence[Place], folder: Path) -> list[ModuleType]:
    """Import the modules of code locations, each of which is a process of its own in Dagster."""
    found, earlier = dict[Place, ModuleType](), list[Path]()
    # A file's module can be given any name, so that the others come first.
    for place in sorted(named, key=lambda place: place.kind, reverse=True):
        within = (folder / place.folder).resolve()
        with _apart(within, earlier) as hidden:
            module = (
                module_named(place.name)
                if place.kind == "module"
                else _loaded((folder / place.name).resolve(), {*sys.modules, *hidden})
            )
            found[place] = _part(module, place.attribute)
        earlier.append(within)
    return [found[place] for place in named]


def _part(module: ModuleType, attribute: str) -> ModuleType:
    """Return a module that has one thing of another, or without a name the module itself."""
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise ConfigurationError(
            f"The module {module.__name__} has no {attribute!r}: correct the name of its "
            "definitions."
        )
    given = getattr(module, attribute)
    part = ModuleType(f"{module.__name__}:{attribute}")
    # As for Dagster, it may be a function; the other things of the module stay within reach.
    vars(part).update(module=module, defs=given() if isfunction(given) else given)
    return part


def _loaded(path: Path, taken: Collection[str]) -> ModuleType:
    """Import a file by its name, as Dagster does, or with those of its folders where it is taken.

    Each of two projects may have a file ``definitions.py``.
    """
    parts = path.with_suffix("").parts[1:]
    names = ["_".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    for name in names:
        known = sys.modules.get(name)
        if known is not None and _file(known) == path:
            return known
    own_name = next((name for name in names if name not in taken), str(path))
    spec = spec_from_file_location(own_name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"workspace.yaml names {path}, which is not a Python file.")
    module = module_from_spec(spec)
    sys.modules[own_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[own_name]
        raise
    return module


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    return None if name is None else Path(name).resolve()


@contextmanager
def _apart(within: Path, earlier: Sequence[Path]) -> Generator[Mapping[str, ModuleType]]:
    """Let a block import from a folder first, without the modules of others; yield these by name.

    Raises
    ------
    ConfigurationError
        When the block imports a module that has the name of another folder's.
    """
    sys.path[:] = [str(within), *(each for each in sys.path if each != str(within))]
    hidden = {name: sys.modules[name] for name in [*sys.modules] if _hides(name, within, earlier)}
    for name in hidden:
        del sys.modules[name]
    try:
        yield hidden
        twice = [(hidden[name], sys.modules[name]) for name in hidden if name in sys.modules]
    finally:
        sys.modules.update(hidden)
    for one, other in twice:
        raise ConfigurationError(
            f"Two code locations have modules of one name: {_file(one)} and {_file(other)}. "
            "Commands load all code locations in one process: rename one of these, or call this "
            "in the folder of each project."
        )


def _hides(name: str, within: Path, earlier: Sequence[Path]) -> bool:
    """Return whether a module of another code location has the name of one in this folder."""
    top = name.partition(".")[0]
    file = _file(sys.modules.get(top))
    if file is None or not any(map(file.is_relative_to, earlier)):
        return False
    own = (within / f"{top}.py", within / top / "__init__.py")
    return file not in own and any(each.is_file() for each in own)
