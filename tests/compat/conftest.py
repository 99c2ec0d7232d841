"""Fixtures: a connection and a schema, as for tables of today."""

from tests.lab import connection, schema

__all__ = ["connection", "schema"]

# It is run as a script of its own, with packages that are not installed here.
collect_ignore = ["elements_pipeline.py"]
