"""Runs of any Dagster project as jobs of Slurm; tables are not needed."""

from __future__ import annotations

from dj_dagster.slurm.launcher import SlurmRunLauncher

__all__ = ["SlurmRunLauncher"]
