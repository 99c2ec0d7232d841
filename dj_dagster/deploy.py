"""Steps that programs take on their schemas when they are deployed, as DataJoint names them."""

from __future__ import annotations

from typing import Any

from dj_dagster.errors import DataJointError
from dj_dagster.hidden_columns import add_hidden_columns, schema_or_table
from dj_dagster.model.job_settings import PROVENANCE
from dj_dagster.model.names import Tier
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table


def add_prov_column(target: Schema | type[Table] | Table, dry_run: bool = True) -> dict[str, Any]:
    """Add the hidden attribute ``_prov`` to manual tables that lack it.

    Rows that are there keep null in it. New ones are noted as long as the setting
    ``provenance.capture`` is on.

    Parameters
    ----------
    target
        A table, or a schema for all of its manual tables.
    dry_run
        Whether it is only told what would be done.

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
    """Refuse: the replica identity of tables is a thing of PostgreSQL.

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
        In any case, saying why.
    """
    del dry_run
    if mode.lower() not in ("default", "full"):
        raise DataJointError(f"The mode must be 'default' or 'full', not {mode!r}.")
    url = schema_or_table(target).connection.url
    raise DataJointError(
        f"set_replica_identity is PostgreSQL-only, and this is {url}: servers of "
        "MySQL and MariaDB replicate whole rows where binlog_row_image is FULL, as by default."
    )
