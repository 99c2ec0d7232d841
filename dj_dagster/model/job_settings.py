"""Settings of job queues, and the hidden columns that record how a row was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dj_dagster.model.heading import AttributeDeclaration, Default, TableDefinition
from dj_dagster.model.types import parse_type


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The settings that DataJoint calls ``jobs.*``; times in seconds.

    Attributes
    ----------
    auto_refresh
        Whether a reserving populate adds pending keys to the queue before it begins.
    keep_completed
        Whether finished jobs stay in the queue as `success`, with their durations.
    stale_timeout
        Age in seconds from which a job is removed once its key is not in the key source any more; 0
        for never.
    default_priority
        The priority of new jobs; a lower number is sooner.
    version_method
        ``"git"`` records the commit of the working directory with each job; None records nothing.
    add_job_metadata
        Whether computed tables that are declared from now on get `JOB_METADATA`.
    lease
        Seconds for which a claimed key stays claimed without being renewed. A living worker renews
        its claim after a quarter of this time, and at least every 15 seconds.
    packages
        Packages whose versions are noted with each run of Dagster, besides the main ones.
    on_other_code
        The action of a run whose process has another version of a `make` than the code location
        that planned it: ``"warn"`` says so and goes on, ``"refuse"`` fails the run.
    """

    auto_refresh: bool = True
    keep_completed: bool = False
    stale_timeout: float = 3600.0
    default_priority: int = 5
    version_method: str | None = None
    add_job_metadata: bool = False
    lease: float = 300.0
    packages: tuple[str, ...] = ()
    on_other_code: Literal["warn", "refuse"] = "warn"


JOB_METADATA = (
    AttributeDeclaration(
        "_job_start_time",
        parse_type("datetime(3)"),
        nullable=True,
        comment="when computation began",
    ),
    AttributeDeclaration(
        "_job_duration",
        parse_type("float32"),
        nullable=True,
        comment="computation duration in seconds",
    ),
    AttributeDeclaration(
        "_job_version", parse_type("varchar(64)"), Default(""), comment="code version"
    ),
)
"""The hidden columns of a computed table, as DataJoint 2.3.5 declares them."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Settings of the provenance of rows: the facts that are recorded and checked.

    Attributes
    ----------
    capture
        Whether manual tables that are declared from now on have ``_prov``, and inserts fill it.
    source
        Facts of the outside system that are recorded, as a mapping of JSON values.
    strict
        Whether a `make` may only read tables that its own refers to, and only write rows of its
        own key.
    """

    capture: bool = False
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    strict: bool = False


PROVENANCE = AttributeDeclaration(
    "_prov",
    parse_type("json"),
    nullable=True,
    comment="extrinsic provenance for a row that entered from outside",
)
"""The hidden column of a manual table, as DataJoint 2.3.5 declares it."""


def with_provenance(definition: TableDefinition) -> TableDefinition:
    """Return a definition with `PROVENANCE` at its end."""
    return replace(definition, secondary=(*definition.secondary, PROVENANCE))


def with_job_metadata(definition: TableDefinition) -> TableDefinition:
    """Return a definition with `JOB_METADATA` at its end."""
    return replace(definition, secondary=(*definition.secondary, *JOB_METADATA))
