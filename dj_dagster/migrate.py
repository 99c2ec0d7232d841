"""Steps that bring older schemas up to date, with the names that DataJoint gives them.

``dj-dagster migrate`` gives today's layout to a schema that DataJoint 0.14 declared, see
`dj_dagster.workflow.migration`.
"""

from __future__ import annotations

from typing import Any

from dj_dagster.hidden_columns import add_hidden_columns
from dj_dagster.model.job_settings import JOB_METADATA
from dj_dagster.model.names import Tier
from dj_dagster.relational.schemas.schema import Schema
from dj_dagster.relational.table import Table


def add_job_metadata_columns(
    target: Schema | type[Table] | Table, dry_run: bool = True
) -> dict[str, Any]:
    """Add the hidden attributes ``_job_start_time`` and so on to computed tables that lack them.

    Existing rows have null in them. `populate` fills them from now on, whatever the setting
    ``jobs.add_job_metadata`` is.

    Parameters
    ----------
    target
        A table, or a schema for all of its computed and imported tables.
    dry_run
        Whether the statements are only returned, not run.

    Returns
    -------
    dict
        As DataJoint's: ``tables_analyzed``; ``tables_modified`` and ``columns_added``, which count
        planned changes in a dry run; the statements as ``ddl``; and ``details`` of each table.

    Raises
    ------
    DataJointError
        If `target` is neither a schema nor a table.
    """
    tiers = frozenset({Tier.COMPUTED, Tier.IMPORTED})
    report = add_hidden_columns(
        target, JOB_METADATA, tiers, dry_run=dry_run, present="already_migrated"
    )
    modified = sum(table["columns"] > 0 for table in report["details"])
    return {**report, "tables_modified": modified, "columns_added": len(report["ddl"])}


def rebuild_lineage(schema: Schema, dry_run: bool = True) -> dict[str, Any]:
    """Write the table ``~lineage`` of a schema anew; see `Schema.rebuild_lineage`.

    Parameters
    ----------
    dry_run
        Whether nothing is written.

    Returns
    -------
    dict
        The number of attributes with a lineage, as ``lineage_entries``.
    """
    if not dry_run:
        schema.rebuild_lineage()
    return {"lineage_entries": len(schema.lineage)}
