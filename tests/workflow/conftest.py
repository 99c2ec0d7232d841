from __future__ import annotations

from tests.lab import connection, schema

__all__ = ["connection", "schema"]
