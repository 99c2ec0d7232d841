"""The check of the built documentation site: ``python -m tools.site build/docs``.

Every link within the site has its page and place, and each page has a link to another one. Nothing
is loaded from elsewhere, so that the site and its search work without a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")}
_NOT_LOADED = {"canonical", "index", "search", "next", "prev", "author", "copyright"}
"""Relations of a page to others; a browser does not load these."""


class Page(HTMLParser):
    """A page's links, what it loads, and the places in it that links may name."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links = list[str]()
        self.loaded = list[str]()
        self.places = set[str]()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        for element, attribute in _LOADED:
            relation = given.get("rel", "")
            if tag == element and attribute in given and relation not in _NOT_LOADED:
                self.loaded.append(given[attribute])


def problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the site in a folder, one line each."""
    folder = folder.resolve()
    pages = {
        file: Page(file) for file in sorted(folder.rglob("*.html")) if "_static" not in file.parts
    }
    if not pages:
        yield f"{folder} has no pages"
    for file, page in pages.items():
        name = file.relative_to(folder)
        yield from (f"{name} loads {url}" for url in page.loaded if "//" in url)
        inside = [link for link in page.links if not urlsplit(link).scheme]
        yield from (
            f"{name} links to {link}, which is not there"
            for link in [*inside, *(url for url in page.loaded if "//" not in url)]
            if not _is_there(file, link, pages)
        )
        if all(link.startswith("#") for link in inside):
            yield f"{name} has no way on"
    if not (folder / "llms.txt").exists():
        yield "There is no llms.txt"
    index = folder / "searchindex.js"
    terms = index.read_text(encoding="utf-8") if index.exists() else ""
    words = json.loads(terms.removeprefix("Search.setIndex(").removesuffix(")") or "{}")
    if not words.get("terms"):
        yield "The search has no words"


def _is_there(file: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if parts.fragment and target in pages:
        return unquote(parts.fragment) in pages[target].places
    return target.exists()


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    print("\n".join(found) or "All links of the site are good.")
    sys.exit(1 if found else 0)
