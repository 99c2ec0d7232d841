"""What every SQL backend does, on each database."""

from __future__ import annotations

import pytest

from dj_dagster.relational.database.connection import Connection
from dj_dagster.testing import BackendConformance


class TestBackend(BackendConformance):
    @pytest.fixture(autouse=True)
    def database(self, database_url: str, schema_prefix: str) -> None:
        self.url, self.prefix = database_url, schema_prefix

    def connect(self) -> Connection:
        return Connection(self.url, safemode=False)
