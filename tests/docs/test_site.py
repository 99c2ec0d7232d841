"""The check of the built site names what is wrong with it, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tools.site import problems


def test_the_check_names_each_fault_of_a_site(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#here">b</a><a href="b.html#gone">b</a>'
        '<a href="c.html">c</a><a href="https://dagster.io">elsewhere</a>'
        '<script src="https://cdn.example.org/x.js"></script><img src="x.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><a href="#here">here</a>')
    assert list(problems(tmp_path)) == [
        "b.html has no way on",
        "index.html loads https://cdn.example.org/x.js",
        "index.html links to b.html#gone, which is not there",
        "index.html links to c.html, which is not there",
        "index.html links to x.png, which is not there",
        "There is no llms.txt",
        "The search has no words",
    ]


def test_a_good_site_has_no_faults(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<a href="b.html">b</a>')
    (tmp_path / "b.html").write_text('<a href="index.html">a</a>')
    (tmp_path / "llms.txt").write_text("# a")
    (tmp_path / "searchindex.js").write_text('Search.setIndex({"terms": {"sensor": 0}})')
    assert list(problems(tmp_path)) == []
