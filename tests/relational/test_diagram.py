"""Diagrams: which tables they show, in which order, and with which rows."""

from __future__ import annotations

import types

import pytest
import sqlalchemy as sa

import dj_dagster as dj
from dj_dagster.model.names import TableName
from dj_dagster.relational.diagrams.diagram import Diagram
from tests.relational.diagram_lab import make_lab, make_paper


@pytest.fixture
def lab(schema):
    return make_lab(schema)


@pytest.fixture
def paper(lab, connection, schema_prefix):
    return make_paper(lab, connection, schema_prefix)


def bare(names):
    return [name.partition(".")[2].strip("`") for name in names]


def shown(diagram):
    """Return the names of the tables without their schemas."""
    return bare(diagram.topo_sort())


ORDER = ["subject", "#method", "session", "session__trial", "_recording", "__spikes"]


# What is shown


def test_a_schema_in_topological_order(lab):
    diagram = Diagram(lab.schema)
    order = shown(diagram)
    assert sorted(order) == sorted(ORDER)
    assert order.index("session__trial") == order.index("session") + 1
    assert order.index("subject") < order.index("session") < order.index("_recording")
    assert order[-1] == "__spikes"
    assert diagram.nodes_to_show == set(diagram.nodes())
    assert len(diagram) == 6


def test_sources(lab, paper):
    name = lab.Session.full_table_name
    assert Diagram(lab.Session).nodes() == [name]
    assert Diagram(lab.Session()).nodes() == [name]
    assert Diagram(lab.Session & "session = 1").nodes() == [name]
    assert Diagram(lab).nodes() == Diagram(lab.schema).nodes()
    assert set(shown(Diagram(lab.Subject * lab.Session))) == {"subject", "session"}
    assert shown(Diagram([lab.Subject, lab.Session])) == ["subject", "session"]
    assert len(Diagram([lab, paper])) == 7
    assert Diagram(Diagram(lab)).nodes() == Diagram(lab).nodes()
    assert len(Diagram.from_sequence([lab.Subject, lab.Method])) == 2


@pytest.mark.parametrize("source", [3, "lab", None, types.ModuleType("empty"), []])
def test_what_is_no_source(source):
    with pytest.raises(dj.DataJointError, match=r"schema"):
        Diagram(source)


def test_an_undeclared_table_is_no_source():
    class Loose(dj.Manual):
        definition = "id : int64"

    with pytest.raises(dj.DataJointError, match="Loose"):
        Diagram(Loose)


def test_a_table_that_another_process_declared_is_shown(lab, database_url, tmp_path, schema):
    before = Diagram(schema)
    other = dj.Connection(database_url)
    remote = dj.Schema(schema.name, connection=other)

    @remote
    class Rig(dj.Manual):
        definition = "rig : int64"

    assert shown(Diagram(schema) - before) == ["rig"]
    other.close()


def test_hidden_tables_are_left_out(lab):
    connection = lab.schema.connection
    hidden = connection.backend.sql_table(TableName(lab.schema.name, "~old"))
    quoted = str(sa.select(sa.text("1")).select_from(hidden).compile(connection.engine))
    with connection.cursor() as session:
        session.exec_driver_sql(f"CREATE TABLE {quoted.partition('FROM ')[2]} (a int)")
    assert not [name for name in Diagram(lab.schema).nodes() if "~" in name]


def test_growing_by_levels_across_schemas(lab, paper):
    assert shown(Diagram(lab.Session) + 1) == ["session", "session__trial", "_recording"]
    assert shown(Diagram(lab.Session) - 1) == ["subject", "session"]
    assert shown(Diagram(lab.Session) + 9)[-1] == "__figure"
    assert set(shown(Diagram(paper) - 1)) == {"__spikes", "__figure"}
    assert set(shown(Diagram(paper) - 9)) == {*ORDER, "__figure"} - {"session__trial"}
    assert shown(Diagram(lab.Session) + 0) == ["session"]
    around = Diagram(lab.Session) + 1 - 1
    assert set(shown(around)) == {"subject", "session", "session__trial", "_recording", "#method"}
    with pytest.raises(dj.DataJointError, match="diagram - 1"):
        Diagram(lab.Session) + -1


def test_sets(lab, paper):
    diagram = Diagram(lab)
    assert shown(diagram * Diagram([lab.Session, paper])) == ["session"]
    assert "__spikes" not in shown(diagram - lab.Spikes)
    assert len(diagram - lab) == 0
    assert len(diagram + paper) == 7
    assert len(diagram) == 6
    assert set(shown(diagram - paper)) == set(ORDER)


def test_membership_and_edges(lab):
    diagram = Diagram([lab.Subject, lab.Session])
    assert lab.Session in diagram
    assert lab.Session() in diagram
    assert lab.Session.full_table_name in diagram
    assert "Session" in diagram
    assert lab.Spikes not in diagram
    edge = (lab.Subject.full_table_name, lab.Session.full_table_name)
    assert diagram.edges() == [edge, edge]


def test_parts_can_be_added(lab):
    diagram = Diagram(lab.Session)
    assert shown(diagram.add_parts()) == ["session", "session__trial"]
    assert shown(diagram) == ["session"]


def test_the_order_of_tables_does_not_need_those_between(lab):
    assert shown(Diagram([lab.Spikes, lab.Subject])) == ["subject", "__spikes"]


def test_iteration_gives_tables(lab):
    lab.Subject.insert1((1, "ada"))
    tables = list(Diagram([lab.Session, lab.Subject]))
    assert [table.full_table_name for table in tables] == [
        lab.Subject.full_table_name,
        lab.Session.full_table_name,
    ]
    assert tables[0].to_dicts() == [{"subject_id": 1, "name": "ada"}]
    assert [len(table) for table in reversed(Diagram(lab.Subject))] == [1]
    assert Diagram(lab.Subject).counts() == {lab.Subject.full_table_name: 1}


# Rows


@pytest.fixture
def filled(lab, paper):
    lab.Subject.insert([(1, "ada"), (2, "bob"), (3, "cyd")])
    lab.Session.insert([(1, 1, None), (1, 2, 3), (2, 1, None)])
    lab.Session.Trial.insert([(1, 1, n) for n in range(4)])
    lab.Recording.insert([(1, 1, "fast"), (2, 1, "slow")], allow_direct_insert=True)
    lab.Spikes.insert([(1, 1, "slow")], allow_direct_insert=True)
    return lab


def counted(diagram):
    counts = diagram.counts()
    return {name: count for name, count in zip(bare(counts), counts.values(), strict=True) if count}


def test_a_cascade_counts_and_changes_nothing(filled, paper):
    diagram = Diagram.cascade(filled.Session & "subject_id = 1")
    assert counted(diagram) == {"session": 2, "session__trial": 4, "_recording": 1, "__spikes": 1}
    assert paper.Figure in diagram
    assert filled.Subject not in diagram
    assert len(filled.Session()) == 3
    assert len(diagram[filled.Session.Trial]) == 4
    assert len(diagram["Session"]) == 2
    assert sum(len(table) for table in diagram) == 8


def test_a_cascade_of_a_whole_table(filled):
    assert counted(Diagram.cascade(filled.Subject))["subject"] == 3
    assert counted(Diagram.cascade(filled.Subject & "subject_id = 3")) == {
        "subject": 1,
        "session": 1,
    }


def test_a_cascade_that_a_delete_would_refuse(filled):
    with pytest.raises(dj.DataJointError, match="part"):
        Diagram.cascade(filled.Session.Trial & "trial = 0").counts()
    found = counted(Diagram.cascade(filled.Session.Trial & "trial = 0", part_integrity="ignore"))
    assert found == {"session__trial": 1}


def test_a_trace_leads_to_what_rows_come_from(filled):
    trace = Diagram.trace(filled.Spikes)
    assert counted(trace) == {
        "subject": 1,
        "session": 1,
        "#method": 2,
        "_recording": 1,
        "__spikes": 1,
    }
    assert trace[filled.Subject].to_dicts() == [{"subject_id": 1, "name": "ada"}]
    assert filled.Session.Trial not in trace
    with pytest.raises(dj.DataJointError, match=r"trial is not in this trace, which shows:"):
        trace[filled.Session.Trial]


def test_a_trace_follows_secondary_and_renamed_foreign_keys(filled):
    trace = Diagram.trace(filled.Session & "session = 2")
    assert [row["subject_id"] for row in trace[filled.Subject].to_dicts()] == [1, 3]
    assert len(Diagram.trace(filled.Session & "session = 7")[filled.Subject]) == 0


def test_a_trace_follows_references_of_a_table_to_itself(schema):
    @schema
    class Person(dj.Manual):
        definition = "person : int32\n---\n-> [nullable] self.proj(boss='person')"

    @schema
    class Greeting(dj.Manual):
        definition = "-> Person"

    Person.insert([(5, None), (3, 5), (1, 3), (2, 5)])
    Greeting.insert1((1,))
    for rows in (Person & "person = 1", Person & dj.Top(1), Greeting):
        assert {row["person"] for row in Diagram.trace(rows)[Person].to_dicts()} == {1, 3, 5}
    assert Diagram.trace(Person & "person = 5").counts() == {Person.full_table_name: 1}
    # Circles are possible, and so are rows that refer to themselves.
    Person.update1({"person": 5, "boss": 1})
    assert len(Diagram.trace(Person & "person = 3")[Person]) == 3
    Person.update1({"person": 5, "boss": 5})
    assert len(Diagram.trace(Person & "person = 5")[Person]) == 1


def test_only_rows_of_one_table_cascade(filled):
    with pytest.raises(dj.DataJointError, match="one table"):
        Diagram.cascade(filled.Subject * filled.Session)


def test_a_restriction_reaches_what_depends_on_it(filled, paper):
    whole = Diagram([filled, paper])
    diagram = whole.restrict(filled.Subject & "subject_id = 1")
    assert diagram.nodes() == whole.nodes()
    # A session needs all its subjects to be left; one of several foreign keys to one is enough.
    assert counted(diagram) == {
        "subject": 1,
        "session": 2,
        "session__trial": 4,
        "_recording": 1,
        "__spikes": 1,
    }
    assert filled.Method.full_table_name not in diagram.counts()
    assert diagram[filled.Session].keys() == (filled.Session & "subject_id = 1").keys()
    assert len(diagram["Recording"]) == 1
    assert len(filled.Session()) == 3


def test_restrictions_of_several_tables_hold_together(filled):
    slow = Diagram(filled).restrict(filled.Method & "method = 'slow'")
    # The method of the spikes is left, their recording is not.
    assert counted(slow) == {"#method": 1, "_recording": 1}
    assert [len(slow[t]) for t in (filled.Recording, filled.Spikes)] == [1, 0]
    one = slow.restrict(filled.Subject & "subject_id = 2")
    assert counted(one)["_recording"] == 1
    assert counted(one.restrict(filled.Subject & "subject_id = 1")) == {"#method": 1}
    assert counted(slow) == {"#method": 1, "_recording": 1}


def test_pruning_leaves_tables_with_rows(filled, paper):
    whole = Diagram([filled, paper])
    assert set(shown(whole)) - set(shown(whole.prune())) == {"__figure"}
    left = Diagram(filled).restrict(filled.Session & {"subject_id": 2}).prune()
    assert set(shown(left)) == {"subject", "#method", "session", "_recording"}
    assert all(left.counts().values())
    assert left.prune().nodes() == left.nodes()
    assert counted(left.restrict(filled.Subject & "subject_id = 1")) == {"subject": 1}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda t: Diagram.cascade(t.Subject).prune(), r"prune\(\) cannot be used.*cascade"),
        (lambda t: Diagram.cascade(t.Subject).restrict(t.Subject), r"restrict\(\) cannot.*cascade"),
        (lambda t: Diagram.trace(t.Spikes).restrict(t.Subject), r"restrict\(\) cannot.*trace"),
        (lambda t: Diagram(t.Subject).restrict(t.Spikes), "does not show .*__spikes"),
        (lambda t: Diagram(t).restrict(t.Subject * t.Session), "Rows of one table"),
    ],
)
def test_diagrams_that_cannot_be_restricted(filled, act, words):
    with pytest.raises(dj.DataJointError, match=words):
        act(filled)
