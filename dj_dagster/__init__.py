"""Relational workflows for scientific labs, run by Dagster.

``import dj_dagster as dj``: tables are workflow steps, foreign keys are dependencies, and ``make``
computes the rows of one key. See `dj_dagster.orchestration` for the Dagster side.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from importlib import metadata as _metadata
from logging import getLogger as _get_logger
from typing import TYPE_CHECKING, Any

from dj_dagster import defaults
from dj_dagster import errors as errors
from dj_dagster.admin import kill, set_password
from dj_dagster.compat.modules import OLD_MODULES, install_modules, old_module, replace_datajoint
from dj_dagster.compat.spellings import AttributeAdapter, key, key_hash
from dj_dagster.default_connection import Connection
from dj_dagster.default_connection import public_config as _public_config
from dj_dagster.defaults import (
    Diagram,
    FreeTable,
    Schema,
    VirtualModule,
    backup,
    conn,
    get_codec,
    list_codecs,
    list_schemas,
    restore,
    virtual_schema,
)
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
    ThreadSafetyError,
    TransientError,
    UnknownAttributeError,
)
from dj_dagster.instance import Instance
from dj_dagster.objects.blob.format import MatCell, MatStruct
from dj_dagster.objects.codecs.arrays import NpyRef, load_arrays
from dj_dagster.objects.codecs.chain import Codec
from dj_dagster.objects.codecs.codec import SchemaCodec, SparkAdapter
from dj_dagster.objects.codecs.object_ref import ObjectRef
from dj_dagster.objects.stores.stores import StorageAdapter, Stores, get_storage_adapter
from dj_dagster.relational.algebra.condition import AndList, Not, Top
from dj_dagster.relational.garbage.collector import GarbageCollector, GarbageReport, collect_garbage
from dj_dagster.relational.inserting.insertion import ValidationResult
from dj_dagster.relational.table import Lookup, Manual, Part, Table
from dj_dagster.relational.universal import U
from dj_dagster.workflow.computed import AutoPopulate, Computed, Imported
from dj_dagster.workflow.integrity import Finding, check_schema
from dj_dagster.workflow.jobs import JobQueue as Job
from dj_dagster.workflow.release.crate import verify_release
from dj_dagster.workflow.release.release import ReleaseText, make_release
from dj_dagster.workflow.release.rerun import rerun_release

__version__ = _metadata.version("dj-dagster")

Entry, Ingest, Compute = Manual, Imported, Computed
schema, create_virtual_module = Schema, VirtualModule
ERD = Di = Diagram
logger = _get_logger(__name__)

__all__ = [
    "ERD",
    "AccessError",
    "AndList",
    "AttributeAdapter",
    "AutoPopulate",
    "BlobError",
    "ChecksumError",
    "Codec",
    "Compute",
    "Computed",
    "ConfigurationError",
    "Connection",
    "ConnectionFailedError",
    "DataJointError",
    "DefinitionError",
    "Di",
    "Diagram",
    "DuplicateError",
    "Entry",
    "Finding",
    "FreeTable",
    "GarbageCollector",
    "GarbageReport",
    "Imported",
    "Ingest",
    "Instance",
    "IntegrityError",
    "InvalidValueError",
    "Job",
    "Lookup",
    "LostConnectionError",
    "Manual",
    "MatCell",
    "MatStruct",
    "MissingAttributeError",
    "MissingExternalFile",
    "MissingTableError",
    "Not",
    "NpyRef",
    "ObjectError",
    "ObjectRef",
    "Part",
    "PopulateError",
    "QueryError",
    "QuerySyntaxError",
    "ReleaseText",
    "Schema",
    "SchemaCodec",
    "SparkAdapter",
    "StorageAdapter",
    "Stores",
    "Table",
    "ThreadSafetyError",
    "Top",
    "TransientError",
    "U",
    "UnknownAttributeError",
    "ValidationResult",
    "VirtualModule",
    "backup",
    "check_schema",
    "collect_garbage",
    "config",
    "conn",
    "create_virtual_module",
    "errors",
    "get_codec",
    "get_storage_adapter",
    "key",
    "key_hash",
    "kill",
    "list_codecs",
    "list_schemas",
    "load_arrays",
    "logger",
    "make_release",
    "replace_datajoint",
    "rerun_release",
    "restore",
    "schema",
    "set_password",
    "verify_release",
    "virtual_schema",
]


if TYPE_CHECKING:
    config = defaults.config()  # given by __getattr__, read when it is first asked for


def __getattr__(name: str) -> Any:
    if name == "config":
        return _public_config()
    if name in OLD_MODULES:
        return old_module(name)
    if name == "cli":
        # DataJoint's function, until a program imports the module `dj_dagster.cli`.
        return _import_module("dj_dagster.compat.cli").cli
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


install_modules()
