"""300 tables in six schemas: one finds one's way from the schemas to a table, and across."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page, expect

from tests.ui.conftest import Keep
from tests.ui.institute.institute import Institute
from tests.ui.pages import node

SCHEMAS = ("lab", "behavior", "ephys", "imaging", "histology", "analysis")
OPENS = 20.0
"""Seconds until the graph of all is drawn, at most; a quiet machine takes one or two."""


def test_the_graph_of_all_tables_opens_soon_and_shows_their_schemas(
    institute: Institute, page: Page, keep: Keep
) -> None:
    began = time.monotonic()
    institute.open(page, "/asset-groups")
    for schema in SCHEMAS:
        expect(node(page, schema)).to_be_visible()
    assert time.monotonic() - began < OPENS
    expect(page.get_by_role("button", name="Materialize all (286)")).to_be_visible()
    # Then each schema counts what became of its tables.
    expect(page.get_by_text("fetching statuses")).to_have_count(0)
    keep("schemas")


def test_a_schema_is_opened(institute: Institute, page: Page) -> None:
    page.set_viewport_size({"width": 2500, "height": 1250})
    institute.open(page, "/asset-groups")
    node(page, "ephys").click()
    for table, tier in (("burst_raw", "imported"), ("burst_clean", "computed")):
        expect(node(page, table)).to_be_visible()
        expect(node(page, table).get_by_text(tier, exact=True)).to_be_visible()


def test_a_table_is_found_by_its_name(institute: Institute, page: Page) -> None:
    institute.open(page, "/asset-groups")
    page.get_by_placeholder("Jump to…").fill("unit_fit")
    # The same name is in each schema.
    page.get_by_role("menuitem").filter(has_text="histology").click()
    expect(page.get_by_text("histology / unit_fit")).to_be_visible()
    expect(page.get_by_text("UnitFit of a session").first).to_be_visible()
    expect(node(page, "unit_fit")).to_be_visible()


def test_tables_are_selected_with_what_follows_from_them(institute: Institute, page: Page) -> None:
    institute.open(page, "/asset-groups")
    search = page.locator(".CodeMirror").first
    search.click()
    page.keyboard.insert_text('key:"imaging/signal_fit"+')
    page.keyboard.press("Enter")
    # The fit and its summary, and the branches of the analysis, which need it.
    for schema, tables in (("imaging", "2"), ("analysis", "48")):
        count = node(page, schema).get_by_text(re.compile(rf"^{tables}\b"))
        expect(count).to_be_visible()
    expect(node(page, "histology")).to_have_count(0)


def test_lineage_goes_across_schemas(institute: Institute, page: Page) -> None:
    institute.open(page, "/assets/analysis/signal_raw?view=lineage")
    for schema, table in (("ephys", "unit_summary"), ("imaging", "signal_summary")):
        expect(node(page, table)).to_be_visible()
        expect(page.get_by_text(schema, exact=True).last).to_be_visible()
    expect(node(page, "signal_clean")).to_be_visible()
