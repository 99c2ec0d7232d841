"""Relational workflows for scientific labs, run by Dagster.

``import dj_dagster as dj``: tables are workflow steps, foreign keys are dependencies, and ``make``
computes the rows of one key. See `dj_dagster.orchestration` for the Dagster side.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dj_dagster import defaults
from dj_dagster.defaults import Schema, conn
from dj_dagster.errors import (
    AccessError,
    BlobError,
    ChecksumError,
    ConfigurationError,
    ConnectionFailedError,
    DataJointError,
    DefinitionError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    LostConnectionError,
    MissingAttributeError,
    MissingExternalFile,
    MissingTableError,
    ObjectError,
    PopulateError,
    QueryError,
    QuerySyntaxError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.objects.codecs import Codec
from dj_dagster.objects.stores import Stores
from dj_dagster.relational.condition import AndList, Not
from dj_dagster.relational.connection import Connection
from dj_dagster.relational.table import Lookup, Manual, Part, Table
from dj_dagster.workflow.computed import Computed, Imported

__version__ = version("dj-dagster")

__all__ = [
    "AccessError",
    "AndList",
    "BlobError",
    "ChecksumError",
    "Codec",
    "Computed",
    "ConfigurationError",
    "Connection",
    "ConnectionFailedError",
    "DataJointError",
    "DefinitionError",
    "DuplicateError",
    "Imported",
    "IntegrityError",
    "InvalidValueError",
    "Lookup",
    "LostConnectionError",
    "Manual",
    "MissingAttributeError",
    "MissingExternalFile",
    "MissingTableError",
    "Not",
    "ObjectError",
    "Part",
    "PopulateError",
    "QueryError",
    "QuerySyntaxError",
    "Schema",
    "Stores",
    "Table",
    "TransientError",
    "UnknownAttributeError",
    "config",
    "conn",
]


if TYPE_CHECKING:
    config = defaults.config()  # given by __getattr__, read when it is first asked for


def __getattr__(name: str) -> Any:
    if name == "config":
        return defaults.config()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
