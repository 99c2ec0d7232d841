from __future__ import annotations

import sys
from typing import Any

import pytest

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores.stores import Stores

FILE = {"protocol": "file", "location": "/data/lab"}
S3 = {
    "protocol": "s3",
    "endpoint": "s3.example.org",
    "bucket": "lab",
    "location": "dj",
    "access_key": "an-access-key",
    "secret_key": "a-secret-key",
}


def test_the_default_store_is_meant_by_none_and_by_no_name():
    stores = Stores({"default": "main", "main": FILE, "raw": S3})
    assert stores.get().name == stores.get("").name == stores.get("main").name == "main"
    assert stores.get("main") is stores.get()
    assert stores.names == ["main", "raw"]
    assert "raw" in stores
    assert "cold" not in stores


def test_no_settings_are_no_stores():
    with pytest.raises(ConfigurationError, match="known are none at all"):
        Stores().get("main")
    with pytest.raises(ConfigurationError, match="There is no store: set one in the settings"):
        Stores().get()


def test_an_unknown_store_names_the_known():
    with pytest.raises(ConfigurationError, match="no store 'rwa'; known are 'main', 'raw'"):
        Stores({"main": FILE, "raw": S3}).get("rwa")


def test_without_a_default_a_name_is_asked_for():
    with pytest.raises(ConfigurationError, match=r"No default store.*'main'.*stores\.default"):
        Stores({"main": FILE}).get()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"main": {"location": "/data"}}, "Store 'main': protocol 'missing' is not available"),
        ({"main": {**FILE, "protocol": "ftp"}}, "protocol 'ftp' is not available; use one of file"),
        ({"main": {"protocol": "file"}}, "Store 'main': the setting 'location' is missing"),
        ({"main": {**FILE, "locaton": 1}}, "'locaton' is not a setting; known are .*location"),
        ({"main": {**FILE, "bucket": "lab"}}, "'bucket' is not a setting"),
        ({"main": {**S3, "bucket": "no"}}, "the setting 'bucket'"),
        ({"raw": {"protocol": "s3"}}, "'endpoint' is missing; the setting 'bucket' is missing"),
        ({"main": {**FILE, "subfolding": [2, 0]}}, r"subfolding\.1"),
        ({"main": {**FILE, "hash_prefix": "_schema"}}, "choose separate folders"),
        ({"main": {**FILE, "filepath_prefix": "_hash/files"}}, "filepath_prefix lies within hash_"),
        ({"main": "/data"}, "must be a mapping"),
        ({"default": "mian", "main": FILE}, r"stores\.default names the store 'mian'.*'main'"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Stores(settings)


def test_errors_and_representations_show_no_secrets():
    with pytest.raises(ConfigurationError) as refused:
        Stores({"raw": {**S3, "bucket": ["a-secret-key"], "secret": "a-secret-key"}})
    assert "a-secret-key" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    stores = Stores({"raw": S3})
    assert "a-secret-key" not in f"{stores!r} {stores.get('raw').settings!r}"


CLOUDS = {
    "gcs": {"protocol": "gcs", "bucket": "lab", "location": "dj", "token": "a-secret"},
    "azure": {
        "protocol": "azure", "container": "lab", "location": "dj",
        "account_name": "me", "account_key": "a-secret",
    },
}  # fmt: skip


@pytest.mark.parametrize(("protocol", "package"), [("gcs", "gcsfs"), ("azure", "adlfs")])
def test_a_cloud_without_its_package_leaves_the_others_usable(
    protocol: str, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    stores = Stores({"default": "main", "main": FILE, "cloud": CLOUDS[protocol]})
    assert stores.get().name == "main"
    with pytest.raises(
        ConfigurationError, match=rf"{package}: pip install 'dj-dagster\[{protocol}"
    ):
        stores.get("cloud")


@pytest.mark.parametrize(
    ("protocol", "wrong", "message"),
    [
        ("gcs", {"bucket": "x"}, "the setting 'bucket'"),
        ("gcs", {"account_key": "a-secret"}, "'account_key' is not a setting"),
        ("azure", {"container": None}, "the setting 'container'"),
    ],
)
def test_settings_of_clouds_are_checked(protocol: str, wrong: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message) as refused:
        Stores({"cloud": {**CLOUDS[protocol], **wrong}})
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"endpoint": "localhost:9000", "secure": False}, "http://localhost:9000"),
        ({"endpoint": "s3.example.org"}, "https://s3.example.org"),
        ({"endpoint": "http://localhost:9000"}, "http://localhost:9000"),
    ],
)
def test_an_endpoint_is_a_host_or_a_url(given: dict[str, Any], url: str):
    settings = Stores({"raw": {**S3, **given}}).get("raw").settings
    assert settings.endpoint_url == url


@pytest.mark.parametrize(("given", "used"), [(1, 4), (8, 8), (99, 16)])
def test_the_token_length_is_clamped_as_in_datajoint(given: int, used: int):
    assert (
        Stores({"main": {**FILE, "token_length": given}}).get("main").settings.token_length == used
    )
