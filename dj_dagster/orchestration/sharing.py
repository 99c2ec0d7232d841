"""Databases and stores in the files of one machine, which runs on other machines do not see.

A run that is started elsewhere would find an empty folder, or make an empty database, and work with
that. Which launcher an instance has is known to the sensor and to runs, not when definitions load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

from dagster import DagsterInstance

from dj_dagster.errors import ConfigurationError, DefinitionError
from dj_dagster.model.types import Family
from dj_dagster.objects.codecs.chain import CodecChain
from dj_dagster.objects.stores.store_settings import FileStoreSettings
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection

_HERE = {"DefaultRunLauncher", "SyncInMemoryRunLauncher"}
"""Launchers whose runs are on the machine of the code location or of the daemon."""


def launcher_name(instance: DagsterInstance) -> str:
    """Return the name of the class of an instance's run launcher."""
    return _launcher(instance)[1]


def launches_elsewhere(instance: DagsterInstance) -> bool:
    """Return whether an instance starts its runs on other machines, or in containers."""
    module, name = _launcher(instance)
    if name in _HERE:
        return False
    try:
        found = getattr(import_module(module), name)
    except Exception:
        # Only the daemon's environment needs to have it.
        return True
    return _HERE.isdisjoint(cls.__name__ for cls in found.__mro__)


def _launcher(instance: DagsterInstance) -> tuple[str, str]:
    """Return the module and the name of the class of an instance's run launcher."""
    # Code locations and runs do not make the launcher: it may need what only the daemon has.
    data = instance.get_ref().run_launcher_data if instance.is_persistent else None
    return ("", "SyncInMemoryRunLauncher") if data is None else (data.module_name, data.class_name)


@dataclass(frozen=True, slots=True)
class Unshared:
    """A database or a store that other machines do not see.

    Attributes
    ----------
    what
        The file or database and its place, as the subject of a sentence.
    advice
        The advice.
    """

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what[0].upper()}{self.what[1:]}. {self.advice}"


def refuse_unshared(instance: DagsterInstance, graph: TableGraph) -> None:
    """Refuse runs on other machines that would not see the tables, or their objects.

    Raises
    ------
    ConfigurationError
        If the launcher starts runs elsewhere, and the database or a store of one of the tables is
        in this machine's files without being declared shared.
    """
    if launches_elsewhere(instance) and (found := unshared(graph.nodes)):
        name = launcher_name(instance)
        raise ConfigurationError(
            f"{name} starts runs on other machines. {' '.join(map(str, found))}"
        )


def unshared(nodes: Iterable[TableNode]) -> list[Unshared]:
    """Return the databases and stores of tables that other machines do not see."""
    found: dict[Unshared, None] = {}
    for node in nodes:
        connection = node.table.connection
        found.update(dict.fromkeys(unshared_database(connection)))
        for name in _stores(node):
            settings = connection.stores.settings(name)
            if isinstance(settings, FileStoreSettings) and not settings.shared:
                found[_store(name, settings)] = None
    return list(found)


def unshared_database(connection: Connection) -> list[Unshared]:
    """Return a database that other machines do not see, or nothing."""
    if connection.backend.has_server or connection.is_shared:
        return []
    return [
        Unshared(
            f"the database {connection.url} is in a file of this machine",
            "Use a server (DJ_DATABASE_URL); or, if all machines have the file under this path, on "
            "a file system whose locks work between them, set database.shared "
            "(DJ_DATABASE_SHARED=true). On most network file systems SQLite is not safe.",
        )
    ]


def _store(name: str, settings: FileStoreSettings) -> Unshared:
    return Unshared(
        f"store '{name}' is a folder of this machine, {settings.location}",
        "Use a bucket; or, if all machines have the folder under this path, set "
        f"stores.{name}.shared to true.",
    )


def _stores(node: TableNode) -> Iterator[str]:
    """Yield the stores of a table's attributes; one that is not configured fails by itself."""
    stores = node.table.connection.stores
    for _, chain in stored_attributes(node):
        with suppress(ConfigurationError):
            yield stores.resolve(chain.store, chain.codecs[-1].default_store)


def stored_attributes(node: TableNode) -> Iterator[tuple[str, CodecChain]]:
    """Yield the attributes of a table whose values are in stores, with their codecs."""
    for name, attribute in node.table.heading.attributes.items():
        if attribute.type is not None and attribute.type.family is Family.CODEC:
            with suppress(DefinitionError, ConfigurationError):
                chain = node.table.connection.codecs.resolve(attribute.type)
                if chain.store is not None:
                    yield name, chain
