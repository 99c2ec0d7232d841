"""Changes to schemas when programs are deployed, with the names that DataJoint gives them."""

from __future__ import annotations

from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.migrate import add_hidden_columns, schema_or_table
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import Tier
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table


def add_prov_column(target: Schema | type[Table] | Table, dry_run: bool = True) -> dict[str, Any]:
    """Add the hidden attribute ``_prov`` to manual tables that lack it.

    Existing rows have null in it. Inserts fill it as long as the setting ``provenance.capture`` is
    on.

    Parameters
    ----------
    target
        A table, or a schema for all of its manual tables.
    dry_run
        Whether the statements are only returned, not run.

    Returns
    -------
    dict
        As DataJoint's: ``tables_analyzed``, ``tables_modified``, ``columns_added``, the statements
        as ``ddl``, and ``details`` of each table.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    report = add_hidden_columns(
        target, [PROVENANCE], frozenset({Tier.MANUAL}), dry_run=dry_run, present="already_present"
    )
    done = 0 if dry_run else len(report["ddl"])
    return {**report, "tables_modified": done, "columns_added": done}


def set_replica_identity(target: Any, mode: str = "full", dry_run: bool = True) -> dict[str, Any]:
    """Raise an error: only tables of PostgreSQL have a replica identity.

    Parameters
    ----------
    target
        A schema or a table.
    mode
        ``"default"`` or ``"full"``.
    dry_run
        Has no effect.

    Raises
    ------
    DataJointError
        In any case.
    """
    del dry_run
    if mode.lower() not in ("default", "full"):
        raise DataJointError(f"The mode must be 'default' or 'full', not {mode!r}.")
    url = schema_or_table(target).connection.url
    raise DataJointError(
        f"set_replica_identity is PostgreSQL-only, and this is {url}: servers of "
        "MySQL and MariaDB replicate whole rows where binlog_row_image is FULL, as by default."
    )
