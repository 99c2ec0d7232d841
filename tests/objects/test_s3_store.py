from __future__ import annotations

import sys
from typing import Any

import pytest

from dj_dagster.errors import ConfigurationError, TransientError
from dj_dagster.objects.stores import Stores
from tests.services.process import free_port


def test_a_missing_bucket_is_named_when_it_is_written(s3_store_settings: dict[str, Any]):
    stores = Stores({"raw": {**s3_store_settings, "bucket": "not-there"}})
    with pytest.raises(ConfigurationError, match="bucket 'not-there' does not exist"):
        stores.get("raw").put("a", b"x")


def test_wrong_credentials_are_refused_without_being_shown(s3_store_settings: dict[str, Any]):
    stores = Stores({"raw": {**s3_store_settings, "secret_key": "wrong-secret"}})
    with pytest.raises(ConfigurationError, match="check access_key and secret_key") as refused:
        stores.get("raw").put("a", b"x")
    assert "wrong-secret" not in str(refused.value)


def test_an_unreachable_server_fails_on_use_and_may_be_tried_again(
    s3_store_settings: dict[str, Any],
):
    endpoint = f"127.0.0.1:{free_port()}"
    stores = Stores({"raw": {**s3_store_settings, "endpoint": endpoint}})
    store = stores.get("raw")
    with pytest.raises(TransientError, match=f"Store 'raw' at http://{endpoint}") as failure:
        store.get("a")
    assert failure.value.transient


def test_a_store_without_location_uses_the_whole_bucket(s3_store_settings: dict[str, Any]):
    store = Stores({"raw": {**s3_store_settings, "location": ""}}).get("raw")
    store.put("a/b", b"x")
    assert list(store.list()) == ["a/b"]
    assert store.url("a/b") == f"s3://{s3_store_settings['bucket']}/a/b"


def test_without_s3fs_the_package_to_install_is_named(
    s3_store_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "dj_dagster.objects.s3_store", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    stores = Stores({"raw": s3_store_settings})
    with pytest.raises(ConfigurationError, match=r"pip install 'dj-dagster\[s3\]'"):
        stores.get("raw")
