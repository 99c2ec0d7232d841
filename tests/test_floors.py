"""The floors of the house: imports point down only, in no circle, and dagster stays upstairs.

All import statements count, those inside functions and under TYPE_CHECKING too, and modules that
are loaded by their name: a name that is needed from above usually belongs further down.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).parents[1] / "dj_dagster"

# From the ground up; a module that none of these names (or contains) is of the public face.
FLOORS = (
    ("model", "class_access", "definition", "errors", "lazy", "local_files", "new_project"),
    ("objects", "compat.spellings"),
    ("relational",),
    ("workflow",),
    (
        "default_connection",
        "settings",
        "settings_mapping",
        "settings_model",
    ),
    ("launcher_tags", "orchestration"),
)
DAGSTER_FROM = len(FLOORS) - 1

DOORS = {
    "dj_dagster.compat.spellings": ("dj_dagster.dependencies",),
    "dj_dagster": ("dj_dagster.compat.cli",),
    "dj_dagster.slurm.jobs": ("dj_dagster.array_helper",),
}
"""Modules that one which they import loads by name, when it is asked for something of theirs: a
connection of DataJoint has the graph of tables, the package an interpreter, and a run of tables on
Slurm has helpers, which are processes of their own."""

BROUGHT = {"celery": ("celery", "dagster_celery", "kombu")}
"""Libraries that an extra brings for a run launcher."""

Imports = Mapping[str, frozenset[str]]

BACKENDS = "dj_dagster.relational.backends"

OF_ONE_DATABASE = {
    "dj_dagster.relational.user_sql": "below the backends: the way in which SQLite has MySQL's SQL",
    "dj_dagster.relational.old_layout": "writes tables of DataJoint 0.14",
    "dj_dagster.orchestration.runs.event_storage": "writes Dagster's own databases",
    "dj_dagster.temporary.mariadb": "starts a server of its own for tests",
    "dj_dagster.pytest_plugin": "runs tests on a file and on that server",
    "dj_dagster.workflow.shared_jobs": "writes a table of DataJoint 0.14",
    "dj_dagster.workflow.migration": "reads and changes tables of DataJoint 0.14",
}
"""What may be of one database although it is not a backend: schemas of DataJoint 0.14, in its own
words, are there only where `Backend.holds_old_era`."""

_BRAND = r"(sqlite|mysql|mariadb|postgres(?:ql)?)"
_SPELLED = re.compile(rf"{_BRAND}(?:[+:].*)?", re.IGNORECASE)
_SQL = re.compile(
    r"\b(PRAGMA|information_schema|performance_schema|sqlite_master|processlist|pg_catalog|_rowid_"
    r"|CONNECTION_ID\(|FORCE INDEX|ON DUPLICATE KEY|ENGINE\s*=|constraint failed|Duplicate entry"
    r"|SHOW\s+(?:GLOBAL|CREATE|VARIABLES))",
    re.IGNORECASE,
)
_NAMES = {"SingletonThreadPool", "is_mariadb", "get_backend_name", "drivername", "dialect_name"}
_MODULES = re.compile(rf"(sqlite3|pymysql|psycopg2?|sqlalchemy\.dialects|{BACKENDS}\.{_BRAND}).*")


def floor_of(module: str) -> int:
    """Return the number of a module's floor, 0 for the ground."""
    parts = module.split(".")
    named = {parts[1], ".".join(parts[1:3])} if len(parts) > 1 else set[str]()
    return next((n for n, names in enumerate(FLOORS) if named & {*names}), len(FLOORS))


def imports_of(package: Path) -> Imports:
    """Return what each module of a package imports: its own modules, and others as written."""
    files = {_module_name(package, path): path for path in package.rglob("*.py")}
    return {name: frozenset(_targets(name, path, files)) for name, path in files.items()}


def upward(imports: Imports) -> set[str]:
    """Return the imports from a lower floor of one on a higher floor, as `a -> b`."""
    return {
        f"{module} -> {target}"
        for module, target in _edges(imports)
        if floor_of(target) > floor_of(module)
    }


def circles(imports: Imports) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not."""
    graph = nx.DiGraph(list(_edges(imports)))
    groups = [sorted(group) for group in nx.strongly_connected_components(graph)]
    return sorted(group for group in groups if len(group) > 1 or graph.has_edge(group[0], group[0]))


def dagster_downstairs(imports: Imports) -> set[str]:
    """Return the modules below orchestration that import dagster or one of its libraries."""
    return {
        module
        for module, targets in imports.items()
        if floor_of(module) < DAGSTER_FROM
        and any(target.split(".")[0].startswith("dagster") for target in targets)
    }


def brands(package: Path) -> set[str]:
    """Return where a module above the backends depends on which database there is.

    As `module:line what`: a database's name or URL as a value, SQL or names of SQLAlchemy that only
    one of them has, a driver, a module of one backend, a comparison of backends' names. What people
    read, docstrings and messages, may name databases.
    """
    found: set[str] = set()
    for path in package.rglob("*.py"):
        module = _module_name(package, path)
        if not any(f"{module}.".startswith(f"{name}.") for name in (BACKENDS, *OF_ONE_DATABASE)):
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            found |= {f"{module}:{line} {what}" for line, what in _brands(tree)}
    return found


def _brands(tree: ast.Module) -> Iterator[tuple[int, str]]:
    # Docstrings, and strings below a name that document it.
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in texts:
                if _SPELLED.fullmatch(text) or _SQL.search(text):
                    yield node.lineno, repr(text)
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.keyword(arg=str(name)):
                if name in _NAMES:
                    yield node.lineno, name
            case ast.Compare():
                for side in (node.left, *node.comparators):
                    if ast.unparse(side).endswith("backend.name"):
                        yield node.lineno, ast.unparse(node)
            case ast.Import() | ast.ImportFrom():
                base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                for alias in node.names:
                    if _MODULES.fullmatch(base + alias.name):
                        yield node.lineno, base + alias.name
            case _:
                pass


def _edges(imports: Imports) -> Iterator[tuple[str, str]]:
    for module, targets in imports.items():
        yield from ((module, target) for target in targets if target in imports)


def _module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(module: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, path, node)
            for alias in node.names:
                # `from package import module` imports the module.
                name = f"{base}.{alias.name}"
                yield name if name in known else base
        elif isinstance(node, ast.Constant) and node.value in known:
            # A module that is imported by its name, when it is needed.
            name = str(node.value)
            if "." in name and name not in DOORS.get(module, ()):
                yield name


def _base(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") + (["__init__"] if path.name == "__init__.py" else [])
    return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


def _fresh_python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def test_imports_point_down() -> None:
    assert not upward(imports_of(PACKAGE))


def test_imports_go_in_no_circle() -> None:
    assert not circles(imports_of(PACKAGE))


def test_dagster_is_known_upstairs_only() -> None:
    assert not dagster_downstairs(imports_of(PACKAGE))


@pytest.mark.parametrize("launcher", ["slurm", "celery"])
def test_a_launcher_stands_apart(launcher: str) -> None:
    # It is for any Dagster project, so that it loads no tables and no libraries of theirs.
    package, shared = f"dj_dagster.{launcher}", "dj_dagster.launcher_tags"
    own = {n: t for n, t in imports_of(PACKAGE).items() if n.startswith((package, shared))}
    foreign = {target for targets in own.values() for target in targets} - set(own)
    allowed = {*sys.stdlib_module_names, "dagster", *BROUGHT.get(launcher, ())}
    assert package in own
    assert {target for target in foreign if target.split(".")[0] not in allowed} == set()


def test_what_differs_between_databases_is_known_to_backends_only() -> None:
    assert brands(PACKAGE) == set()


def test_importing_the_package_loads_no_dagster_and_does_nothing_else(tmp_path: Path) -> None:
    python = _fresh_python("import sys, dj_dagster; print(*sys.modules)", tmp_path)
    loaded = python.stdout.split()
    assert "dj_dagster" in loaded
    assert not [name for name in loaded if name.startswith("dagster")]
    assert python.stderr == ""
    assert not list(tmp_path.iterdir())


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package in good order."""
    modules = {
        "__init__": "from house.orchestration.sensor import tick\nimport dagster",
        "errors": "",
        "model/__init__": "",
        "model/types": "from house import errors\nimport json",
        "model/names": "from . import types",
        "objects/__init__": "",
        "objects/blob": "from house.model.types import parse",
        "orchestration/__init__": "",
        "orchestration/sensor": "import dagster as dg\nimport house.objects.blob",
    }
    package = tmp_path / "house"
    for name, text in modules.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_the_walker_accepts_a_house_in_order(house: Path) -> None:
    imports = imports_of(house)
    assert imports["house.model.types"] == {"house.errors", "json"}
    assert imports["house.model.names"] == {"house.model.types"}
    assert not upward(imports)
    assert not circles(imports)
    assert not dagster_downstairs(imports)


@pytest.mark.parametrize(
    "line",
    [
        "import house.objects.blob",
        "from house.objects import blob",
        "from house.objects.blob import pack",
        "from ..objects.blob import pack",
        "from ..objects import blob",
        "def late():\n    from house.objects import blob",
        "if TYPE_CHECKING:\n    from house.objects.blob import Blob",
    ],
)
def test_the_walker_sees_an_import_that_points_up(house: Path, line: str) -> None:
    (house / "model" / "names.py").write_text(line)
    assert upward(imports_of(house)) == {"house.model.names -> house.objects.blob"}


def test_the_walker_sees_a_lower_floor_lean_on_the_public_face(house: Path) -> None:
    (house / "objects" / "blob.py").write_text("from house import config")
    assert upward(imports_of(house)) == {"house.objects.blob -> house"}


def test_the_walker_sees_a_circle(house: Path) -> None:
    (house / "model" / "types.py").write_text("from .names import snake_case")
    assert circles(imports_of(house)) == [["house.model.names", "house.model.types"]]


@pytest.mark.parametrize("line", ["import dagster", "from dagster_webserver.app import x"])
def test_the_walker_sees_dagster_downstairs(house: Path, line: str) -> None:
    (house / "objects" / "blob.py").write_text(line)
    assert dagster_downstairs(imports_of(house)) == {"house.objects.blob"}


@pytest.mark.parametrize(
    "line",
    [
        'if connection.backend.name == "sqlite":\n    pass',
        "if backend.name != other:\n    pass",
        'KINDS = {"mysql", "other"}',
        'url = sa.URL.create("mysql+pymysql")',
        'session.exec_driver_sql("PRAGMA data_version")',
        'sql = f"SELECT id FROM information_schema.{table}"',
        "memory = isinstance(engine.pool, sa.SingletonThreadPool)",
        'hint = select.with_hint(table, "FORCE", dialect_name="other")',
        'failed = re.search("UNIQUE constraint failed: (.+)", text)',
        "import sqlite3",
        "from sqlalchemy.dialects import mysql",
        "from dj_dagster.relational.backends.mysql_server import identity",
        "from dj_dagster.relational.backends import sqlite_file",
    ],
)
def test_the_walker_sees_that_a_database_is_named(house: Path, line: str) -> None:
    (house / "model" / "names.py").write_text(line)
    assert {found.split(" ")[0] for found in brands(house)} == {"house.model.names:1"}


def test_the_walker_lets_people_read_of_databases(house: Path) -> None:
    text = '''"""On SQLite the PRAGMA is ours."""\nraise ValueError("MySQL has no such thing.")'''
    (house / "model" / "names.py").write_text(text)
    assert brands(house) == set()
