"""Drawings of diagrams: what they show of the tables, and in which formats.

They are made of what the catalog says, so that one database is enough.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import dj_dagster as dj
from dj_dagster.relational.diagrams.diagram import Diagram
from tests.relational.diagram_lab import make_lab, make_paper


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'lab.sqlite'}"


@pytest.fixture
def lab(schema):
    return make_lab(schema)


@pytest.fixture
def paper(lab, connection, schema_prefix):
    return make_paper(lab, connection, schema_prefix)


def boxes(svg):
    """Return the labels in an SVG image."""
    return {
        "".join(text.itertext()) for text in ET.fromstring(svg).iter() if text.tag.endswith("text")
    }


def test_the_names_in_a_drawing_are_those_of_the_context(lab, paper):
    context = {"lab": lab, "Figure": paper.Figure}
    labels = boxes(Diagram([lab, paper], context).svg_string())
    assert {"lab.Session", "lab.Session.Trial", "Figure"} <= labels
    assert {lab.schema.name, paper.schema.name} <= labels
    assert {"Session", "Session.Trial", "Spikes"} <= boxes(Diagram(lab, {}).make_svg())
    Trial = lab.Session.Trial
    assert "Trial" in boxes(Diagram(Trial).make_svg())


def test_tooltips_say_what_a_table_holds(lab):
    svg = Diagram(lab.Subject).make_svg()
    titles = [
        value.replace("\xa0", " ")
        for node in ET.fromstring(svg).iter()
        for name, value in node.items()
        if name.endswith("title")
    ]
    assert "# who\nsubject_id : int64  # the <number>\n---\nname = null : varchar(20)" in titles


def looks(lab, *tables):
    return Diagram(list(tables), vars(lab)).make_dot()


def edges(dot):
    return {
        (
            edge.get_source().strip('"').rpartition(".")[2],
            edge.get_destination().strip('"').rpartition(".")[2],
        ): (edge.get("style"), float(edge.get("penwidth")))
        for edge in dot.get_edges()
    }


def test_lines_tell_how_strong_a_dependency_is(lab, paper):
    drawn = edges(Diagram([lab, paper]).make_dot())
    whole, part = drawn["__spikes", "__figure"], drawn["session", "session__trial"]
    assert whole[0] == part[0] == "solid"
    assert whole[1] > part[1]
    assert drawn["#method", "_recording"][0] == "dashed"
    assert drawn["#method", "__spikes"] == part
    assert drawn["session", "_recording"] == whole


def test_a_renamed_foreign_key_has_an_orange_dot(lab):
    dot = looks(lab, lab.Subject, lab.Session)
    assert edges(dot)["subject", "session"][0] == "solid"
    (knot,) = [node for node in dot.get_nodes() if node.get("fixedsize")]
    assert "helper = subject_id" in knot.get("tooltip")
    name = knot.get_name().strip('"')
    assert edges(dot)["subject", name][0] == edges(dot)[name, "session"][0] == "dashed"


def test_tiers_have_the_colours_that_people_know(lab):
    nodes = {
        node.get_name().rpartition(".")[2].strip('"'): node
        for node in looks(lab, lab.schema).get_nodes()
    }

    def channels(table):
        code = nodes[table].get("fillcolor").strip('"#')
        return [int(code[at : at + 2], 16) for at in (0, 2, 4)]

    red, green, blue = range(3)
    assert max(range(3), key=channels("subject").__getitem__) == green
    assert max(range(3), key=channels("_recording").__getitem__) == blue
    assert max(range(3), key=channels("__spikes").__getitem__) == red
    assert len(set(channels("#method"))) == 1
    assert nodes["session__trial"].get("shape").strip('"') == "plaintext"


def test_a_table_with_a_key_of_its_own_is_underlined(lab):
    nodes = {
        node.get_name().rpartition(".")[2].strip('"'): node
        for node in looks(lab, lab.schema).get_nodes()
    }
    assert "<u>" in nodes["session"].get("label")
    assert "<u>" not in nodes["_recording"].get("label")


def test_a_collapsed_schema_is_one_box(lab, paper):
    diagram = Diagram(lab, {}).collapse() + Diagram(paper, {})
    labels = boxes(diagram.make_svg())
    assert {lab.schema.name, "(6 tables)", "Figure"} <= labels
    assert "Session" not in labels
    assert {"Session", "(5 tables)"} <= boxes((diagram + lab.Session).make_svg())
    assert diagram.make_dot().get_edges()


def test_mermaid_text(lab, paper):
    text = Diagram([lab, paper], {}).make_mermaid(direction="LR")
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "flowchart LR"
    assert f's0["{lab.schema.name}"]' in text
    assert lines.count("end") == 2
    ids = {line.split('"')[1]: line.split("(")[0].split("[")[0] for line in lines if ":::" in line}
    assert f"{ids['Session']} --- {ids['Session.Trial']}" in lines
    assert f"{ids['Spikes']} === {ids['Figure']}" in lines
    assert f"{ids['Method']} -.- {ids['Recording']}" in lines
    assert f'{ids["Subject"]} -.-|"helper = subject_id"| {ids["Session"]}' in lines
    assert any(line.endswith(":::computed") for line in lines)
    assert "(6 tables)" in Diagram(lab).collapse().make_mermaid()


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("d.svg", b"<?xml"),
        ("d.PNG", b"\x89PNG"),
        ("d.dot", b"digraph"),
        ("d.mmd", b"flowchart TB"),
        ("d.mermaid", b"flowchart"),
    ],
)
def test_saving_by_suffix(connection, schema, tmp_path, name, begins):
    @schema
    class Rig(dj.Manual):
        definition = "rig : int64"

    Diagram(Rig).save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_saving_as_something_else(lab, tmp_path):
    Diagram(lab.Subject).save(str(tmp_path / "d"), format="mermaid")
    assert (tmp_path / "d").read_text().startswith("flowchart")
    with pytest.raises(dj.DataJointError, match=r"'gif'.*\.svg"):
        Diagram(lab.Subject).save(tmp_path / "d.gif")


def test_drawing_by_matplotlib(lab, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    images = []
    monkeypatch.setattr(pyplot, "show", lambda: images.append(pyplot.gca().get_images()[0]))
    Diagram(lab.Subject).draw()
    assert images[0].get_array().ndim == 3
    pyplot.close("all")


def test_drawing_without_matplotlib(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(dj.DataJointError, match=r"matplotlib.*save\('diagram.svg'\)"):
        Diagram(lab.Subject).draw()


def test_the_direction_is_a_setting(lab):
    with dj.config.override(display__diagram_direction="LR"):
        assert dj.Diagram(lab).make_mermaid().startswith("flowchart LR")
        assert dj.Diagram(lab).make_mermaid("TB").startswith("flowchart TB")
    with dj.config.override(display__diagram_direction="TB"):
        assert dj.Diagram(lab).make_mermaid().startswith("flowchart TB")
        assert dj.Diagram(lab).make_dot().get("rankdir") == "TB"


def test_notebooks_show_the_image(lab):
    diagram = Diagram(lab)
    svg = diagram._repr_svg_()
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert "<svg" in diagram._repr_html_()
    assert diagram.make_svg()._repr_svg_() == diagram.make_svg().data
    assert "Session.Trial" in repr(diagram)


def test_without_graphviz_mermaid_is_left(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    diagram = Diagram(lab)
    with pytest.raises(dj.DataJointError, match=r"program dot.*pip install.*graphviz.*mermaid"):
        diagram.make_svg()
    assert diagram._repr_svg_() is None
    assert diagram._repr_html_().startswith("<pre class='mermaid'>\nflowchart")


def test_without_pydot_mermaid_is_left(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(dj.DataJointError, match=r"package pydot.*pip install.*graphviz.*mermaid"):
        Diagram(lab).make_dot()
    assert "flowchart" in Diagram(lab)._repr_html_()


def test_names_with_markup_are_drawn_as_they_are(connection, schema):
    @schema
    class Rig(dj.Manual):
        definition = 'rig : int64  # "a" \\ <b> & {c}\n---\nkind : enum("<x>", "|")'

    diagram = Diagram(Rig, {'<Rig & "co">': Rig})
    assert '<Rig & "co">' in boxes(diagram.make_svg())
    assert "&lt;Rig &amp; &quot;co&quot;&gt;" in diagram.make_mermaid()


def test_importing_the_package_leaves_pydot_alone(tmp_path):
    script = "import sys, dj_dagster.relational.diagrams.diagram; print('pydot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_drawing_as_an_array(lab):
    image = Diagram(lab).make_image()
    assert image.ndim == 3
    assert image.shape[2] in (3, 4)
    assert image.min() < image.max()
