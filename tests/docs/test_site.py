"""The check of the built site names what is wrong with it, and nothing else."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

from tools import site_browser
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


def test_a_browser_shows_what_is_too_wide_or_does_not_load(page: Page, tmp_path: Path) -> None:
    style = '<meta name="viewport" content="width=device-width"><p>a</p>'
    (tmp_path / "a.html").write_text(f'{style}<div class="wide" style="width: 500px">b</div>')
    (tmp_path / "b.html").write_text(f'{style}<img src="gone.png">')
    (tmp_path / "search.html").write_text(f"{style}<ul></ul>")
    found = list(site_browser.problems(page, tmp_path, patience=0.1))
    assert found == [
        "a.html is 508 pixels wide on a phone, by div.wide",
        f"b.html does not show {(tmp_path / 'gone.png').as_uri()}",
        "The search finds nothing for the word populate",
    ]
    (tmp_path / "a.html").unlink()
    (tmp_path / "b.html").write_text(style)
    (tmp_path / "search.html").write_text('<ul id="search-results"><li><a href="b.html">b</a></ul>')
    assert list(site_browser.problems(page, tmp_path)) == []
