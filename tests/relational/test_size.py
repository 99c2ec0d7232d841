"""How much room tables take."""

from __future__ import annotations

import os

import dj_dagster as dj


def test_the_size_of_tables(schema: dj.Schema, connection: dj.Connection) -> None:
    @schema
    class Trace(dj.Manual):
        definition = """
        trace : int32
        ---
        data : <blob>
        index(trace)
        """

    before = schema.size_on_disk
    Trace.insert([(n, os.urandom(20_000)) for n in range(20)])
    if connection.backend.name == "mysql":
        connection.query(f"ANALYZE TABLE {Trace.full_table_name}")
    assert Trace.size_on_disk == Trace().size_on_disk
    assert schema.size_on_disk > before
    assert Trace.size_on_disk >= 400_000
