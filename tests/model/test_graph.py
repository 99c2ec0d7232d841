import pytest
from hypothesis import given
from hypothesis import strategies as st

from dj_dagster.errors import DefinitionError
from dj_dagster.model.graph import DependencyGraph
from dj_dagster.model.names import TableName

SUBJECT, SESSION, RAW, PARAMS, FILTERED = (
    TableName("lab", name) for name in ("subject", "session", "_raw", "#params", "__filtered")
)


@pytest.fixture
def graph():
    graph = DependencyGraph()
    graph.add_table(FILTERED)
    graph.add_edge(RAW, FILTERED)
    graph.add_edge(PARAMS, FILTERED)
    graph.add_edge(SESSION, RAW)
    graph.add_edge(SUBJECT, SESSION)
    return graph


def test_every_table_comes_after_its_parents(graph):
    order = graph.topological_order()
    assert sorted(order) == sorted([SUBJECT, SESSION, RAW, PARAMS, FILTERED])
    assert order.index(SUBJECT) < order.index(SESSION) < order.index(RAW) < order.index(FILTERED)
    assert order.index(PARAMS) < order.index(FILTERED)


def test_neighbours_and_all_beyond(graph):
    assert graph.parents(FILTERED) == [RAW, PARAMS]
    assert graph.children(SUBJECT) == [SESSION]
    assert graph.ancestors(RAW) == [SUBJECT, SESSION]
    assert graph.descendants(SUBJECT) == [SESSION, RAW, FILTERED]
    assert graph.children(FILTERED) == []


def test_adding_a_table_again_changes_nothing(graph):
    graph.add_table(SESSION)
    graph.add_edge(SUBJECT, SESSION)
    assert len(graph) == 5
    assert graph.parents(SESSION) == [SUBJECT]


CYCLE = ["lab.subject", "lab.session", "lab._raw"]


def test_a_cycle_is_named_where_it_is_in_the_way(graph):
    graph.add_edge(RAW, SUBJECT)
    for call in (graph.descendants, graph.ancestors):
        with pytest.raises(DefinitionError) as caught:
            call(SESSION)
        turns = [[*CYCLE[n:], *CYCLE[:n], CYCLE[n]] for n in range(3)]
        assert any(" -> ".join(turn) in str(caught.value) for turn in turns)
    assert graph.descendants(PARAMS) == [FILTERED]
    with pytest.raises(DefinitionError, match="cycle"):
        graph.ancestors(FILTERED)
    graph.check_acyclic([PARAMS, FILTERED])


def test_tables_of_a_cycle_come_together(graph):
    before = TableName("lab", "before")
    graph.add_edge(before, SUBJECT)
    graph.add_edge(RAW, SUBJECT)
    order = graph.topological_order()
    assert sorted(order) == sorted([before, SUBJECT, SESSION, RAW, PARAMS, FILTERED])
    assert [name for name in order if name != PARAMS] == [before, RAW, SESSION, SUBJECT, FILTERED]
    assert sorted(graph.order_with_parts(master_of)) == sorted(order)


def test_a_table_may_refer_to_itself(graph):
    graph.add_edge(SUBJECT, SUBJECT)
    assert graph.parents(SUBJECT) == []
    assert graph.topological_order().count(SUBJECT) == 1


def test_an_unknown_table_is_told_the_nearest(graph):
    with pytest.raises(DefinitionError, match=r"(?s)no table lab\.sesion.*lab\.session"):
        graph.descendants(TableName("lab", "sesion"))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40))
def test_whatever_is_added_there_is_an_order(edges):
    graph, tables = DependencyGraph(), set()
    for edge in edges:
        parent, child = (TableName("s", f"t{number}") for number in edge)
        graph.add_edge(parent, child)
        tables |= {parent, child}
    order = graph.topological_order()
    assert len(order) == len(set(order)) == len(graph)
    above = {table: _above(graph, table) for table in tables}
    for table, others in above.items():
        if table in others:
            with pytest.raises(DefinitionError, match="cycle"):
                graph.check_acyclic([table])
        else:
            graph.check_acyclic([table])
            assert all(order.index(other) < order.index(table) for other in others)


def _above(graph, table):
    found = graph.parents(table)
    # The list grows while it is walked.
    for each in found:
        found += [other for other in graph.parents(each) if other not in found]
    return set(found)


def test_parts_come_right_behind_their_masters():
    graph = DependencyGraph()
    a, b, c, part, late = (TableName("x", name) for name in ("a", "b", "c", "a__p", "a__late"))
    graph.add_edge(a, b)
    graph.add_edge(a, part)
    graph.add_edge(c, part)
    graph.add_edge(a, late)
    graph.add_edge(b, late)
    assert graph.order_with_parts(master_of) == [c, a, part, b, late]


def master_of(table):
    master, inner, _ = table.table.partition("__")
    return TableName(table.schema, master) if inner else None


FAMILIES = [TableName("s", name + part) for name in "abcdef" for part in ("", "__p")]


@given(st.permutations(FAMILIES), st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11))))
def test_an_order_with_parts_is_an_order(names, edges):
    graph = DependencyGraph()
    for one, other in edges:
        graph.add_edge(names[min(one, other)], names[max(one, other)])
    order = graph.order_with_parts(master_of)
    assert sorted(order) == sorted(graph.topological_order())
    for table in order:
        assert all(order.index(parent) < order.index(table) for parent in graph.parents(table))
