"""A pipeline of two schemas for tests of diagrams."""

from __future__ import annotations

import types

import dj_dagster as dj


def make_lab(schema):
    """A schema of every tier and every kind of foreign key."""
    module = types.ModuleType("lab")
    module.schema = schema

    @schema
    class Subject(dj.Manual):
        definition = "# who\nsubject_id : int64  # the <number>\n---\nname = null : varchar(20)"

    @schema
    class Method(dj.Lookup):
        definition = "method : varchar(8)"
        contents = (("fast",), ("slow",))

    @schema
    class Session(dj.Manual):
        definition = (
            "-> Subject\nsession : int64\n---\n-> [nullable] Subject.proj(helper='subject_id')"
        )

        class Trial(dj.Part):
            definition = "-> master\ntrial : int64"

    @schema
    class Recording(dj.Imported):
        definition = "-> Session\n---\n-> Method"

    @schema
    class Spikes(dj.Computed):
        definition = "-> Recording\n-> Method"

    for cls in (Subject, Method, Session, Recording, Spikes):
        setattr(module, cls.__name__, cls)
    return module


def make_paper(lab, connection, schema_prefix):
    """A second schema that depends on the first."""
    other = dj.Schema(f"{schema_prefix}paper", connection=connection)
    module = types.ModuleType("paper")

    @other
    class Figure(dj.Computed):
        definition = "-> lab.Spikes"

    module.schema, module.Figure = other, Figure
    return module
