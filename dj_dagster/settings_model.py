"""What can be set: names, types and defaults, with DataJoint's names where it has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeGuard

from pydantic import Field, InstanceOf, field_validator

from dj_dagster.local_files import DOWNLOADS, FOLDER
from dj_dagster.objects.blob.format import DEFAULT_LIMITS
from dj_dagster.relational.database.catalog import Era
from dj_dagster.settings_database import DatabaseSettings, Section


class ConnectionSettings(Section):
    """Details of the connection to a server; kept for programs that read them."""

    charset: str = ""


class DisplaySettings(Section):
    """How previews and diagrams look: rows shown, characters a column."""

    limit: int = Field(default=12, ge=0)
    width: int = Field(default=24, ge=1)
    show_tuple_count: bool = True
    diagram_direction: Literal["LR", "TB"] = "LR"
    diagram_theme: str = "auto"


class JobsSettings(Section):
    """How computed tables keep their jobs; see `dj_dagster.model.job_settings`."""

    auto_refresh: bool = True
    keep_completed: bool = False
    stale_timeout: float = Field(default=3600, ge=0)
    default_priority: int = Field(default=5, ge=-128, le=127)
    version_method: str | None = None
    allow_new_pk_fields_in_computed_tables: bool = False
    add_job_metadata: bool = False
    lease: float = Field(default=300, gt=0)


class GarbageSettings(Section):
    """How ``dj-dagster gc`` collects, in seconds: see `dj_dagster.GarbageCollector`.

    Attributes
    ----------
    grace
        For how long objects without a row are left alone.
    keep
        For how long removed objects stay in the trash.
    """

    grace: float = Field(default=86_400, ge=0)
    keep: float = Field(default=30 * 86_400, ge=0)


class ReadLimitSettings(Section):
    """What reading one packed value may cost; see `dj_dagster.objects.blob.format.ReadLimits`."""

    unpacked_bytes: int = Field(default=DEFAULT_LIMITS.unpacked_bytes, ge=0)
    # Deeper ones would use up Python's stack.
    depth: int = Field(default=DEFAULT_LIMITS.depth, ge=1, le=200)
    equal_hashes: int = Field(default=DEFAULT_LIMITS.equal_hashes, ge=1)


class ProvenanceSettings(Section):
    """What is noted of where entered rows come from; see `dj_dagster.relational.provenance`.

    Attributes
    ----------
    capture
        Whether manual tables that are declared from now on get the hidden attribute ``_prov``, and
        inserts fill it. `dj_dagster.deploy.add_prov_column` adds it to tables that are there.
    source
        What is noted of the system outside.
    """

    capture: bool = False
    source: dict[str, Any] = Field(default_factory=dict)

    @field_validator("source")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, default=str)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it has to be JSON-serializable: {error}") from error
        return value


class Settings(Section):
    """All settings.

    Attributes
    ----------
    stores
        By name, as DataJoint spells them.
    download_path
        Folder that fetched attachments are written to.
    fetch_format
        What the old ``fetch()`` returns: ``"array"`` or ``"frame"``.
    enable_python_native_blobs
        Always the case here, whatever is set.
    semantic_check
        Whether queries refuse to match attributes of one name that no foreign key ties together.
        DataJoint 0.14 matched them by their names alone.
    era
        ``"0.14"`` for code of that era of DataJoint; see `dj_dagster.replace_datajoint`.
    strict_provenance
        Whether a `make` may only read tables that its own refers to, and only write rows of its
        key: for tests of pipelines. DataJoint had it in 2.3.0 to 2.3.2.
    custom
        Yours: nothing here reads it.
    """

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    connection: ConnectionSettings = Field(default_factory=ConnectionSettings)
    display: DisplaySettings = Field(default_factory=DisplaySettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    gc: GarbageSettings = Field(default_factory=GarbageSettings)
    read_limits: ReadLimitSettings = Field(default_factory=ReadLimitSettings)
    provenance: ProvenanceSettings = Field(default_factory=ProvenanceSettings)
    # The very dict that was given: programs go on filling it.
    stores: InstanceOf[dict[str, Any]] = Field(default_factory=dict, repr=False)
    custom: Any = Field(default_factory=dict)
    safemode: bool = True
    semantic_check: bool = True
    era: Era = "2.3"
    strict_provenance: bool = False
    download_path: str = f"{FOLDER}/{DOWNLOADS}"
    fetch_format: Literal["array", "frame"] = "array"
    loglevel: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    query_cache: Path | None = None
    enable_python_native_blobs: bool = True


def section_names() -> list[str]:
    """Return the names of the sections."""
    fields = Settings.model_fields.items()
    return [name for name, field in fields if _is_section(field.annotation)]


def setting_names() -> Iterator[str]:
    """Yield the dotted names of all settings, ``"database.host"``."""
    for name, field in Settings.model_fields.items():
        if _is_section(field.annotation):
            yield from (f"{name}.{inner}" for inner in field.annotation.model_fields)
        else:
            yield name


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)
