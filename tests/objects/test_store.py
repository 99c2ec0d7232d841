"""What every store does, on a folder, on a server of each protocol, and on one that is brought."""

from __future__ import annotations

from typing import Any

import pytest

from dj_dagster.objects.collection import Trash, claim, register, registrations
from dj_dagster.objects.stores.stores import Store, Stores
from dj_dagster.testing import StoreConformance
from tests.objects.test_storage_adapter import SETTINGS as BROUGHT


class TestStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def settings(self, store_settings: dict[str, Any]) -> None:
        self.given = store_settings

    def open(self, location: str) -> Store:
        whole = {**self.given, "location": f"{self.given['location']}/{location}"}
        return Stores({"default": "main", "main": whole}).get()


class TestBroughtStore(StoreConformance):
    def open(self, location: str) -> Store:
        return Stores({"default": "main", "main": {**BROUGHT, "location": location}}).get()


def test_representations_show_no_secrets(store: Store):
    shown = f"{store!r} {store.settings!r} {store.settings} {store.url('a')}"
    assert "dj-test-secret" not in shown
    assert "main" in shown


def test_a_trash_gives_back_what_it_took_and_nothing_sees_it(store: Store):
    trash = Trash(store, "lab")
    store.put("_hash/lab/one", b"1")
    store.put("_hash/lab/two", b"2")
    trash.take(["_hash/lab/one", "_hash/lab/two", "_hash/lab/gone"])
    assert list(store.list()) == []
    files = trash.files()
    assert sorted(map(trash.original, files)) == ["_hash/lab/one", "_hash/lab/two"]
    store.put("_hash/lab/two", b"anew")
    trash.put_back(files)
    assert (store.get("_hash/lab/one"), store.get("_hash/lab/two")) == (b"1", b"anew")
    trash.take(["_hash/lab/one"])
    trash.empty(trash.files())
    assert trash.files() == []


def test_what_was_there_before_its_first_database_is_noted(store: Store):
    store.put("_hash/old/" + "a" * 26, b"before")
    register(store, "old", "id0", "here")
    assert [one.found_objects for one in registrations(store, "old")] == [True]


def test_a_record_that_goes_while_records_are_read_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    register(store, "lab", "id0", "here")
    register(store, "lab", "id1", "here")
    before = list(store.list(".dj_dagster/databases/lab"))
    claim(store, "lab", "id1", "there")
    # As a process has it that listed before the claim, and servers that list late.
    monkeypatch.setattr(store, "list", lambda _prefix: iter(before))
    assert [one.identity for one in registrations(store, "lab")] == ["id1"]
