"""What stores over an fsspec file system share: on fsspec's own in memory, and on each server."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dj_dagster.errors import ConfigurationError, MissingExternalFile, TransientError
from dj_dagster.objects.stores.bucket_store import BucketStore
from dj_dagster.objects.stores.store_settings import GcsStoreSettings
from dj_dagster.objects.stores.stores import Stores
from tests.services.clouds import CLOUDS


class MemoryStore(BucketStore):
    scheme = "memory"
    server = "this process"
    credentials = "nothing"

    def connect(self) -> Any:
        files = MemoryFileSystem(skip_instance_cache=True)
        files.store, files.pseudo_dirs = {}, [""]
        return files


@pytest.fixture
def store() -> MemoryStore:
    settings = GcsStoreSettings(protocol="gcs", bucket="lab", location="dj")
    return MemoryStore("cloud", settings, settings.bucket)


def test_objects_come_back_and_go(store: MemoryStore, tmp_path: Path):
    store.put("a/b/c", b"12")
    (tmp_path / "file").write_bytes(b"345")
    store.put_file("a/d", tmp_path / "file")
    assert (store.get("a/b/c"), store.get("a/d")) == (b"12", b"345")
    assert {found.path: found.size for found in store.scan("a")} == {"a/b/c": 2, "a/d": 3}
    assert store.folders("a") == ["b"]
    assert store.folders("nowhere") == []
    assert abs(store.stat("a/d").modified - time.time()) < 60
    assert store.url("a/d") == "memory://lab/dj/a/d"
    store.delete_many(["a/d", "a/b/c", "not/there"])
    assert list(store.list()) == []
    with pytest.raises(MissingExternalFile):
        store.get("a/d")


def test_renewing_makes_young(store: MemoryStore):
    store.put("a", b"12")
    before = store.stat("a").modified
    time.sleep(0.01)
    store.renew("a")
    assert store.stat("a").modified > before
    assert store.get("a") == b"12"
    with pytest.raises(MissingExternalFile):
        store.renew("b")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_bucket_that_is_not_there_is_named(request: pytest.FixtureRequest, cloud: str):
    settings = request.getfixturevalue(f"{cloud}_store_settings")
    name = "container" if cloud == "azure" else "bucket"
    store = Stores({"raw": {**settings, name: "nowhere"}}).get("raw")
    with pytest.raises(ConfigurationError, match="'nowhere' does not exist"):
        store.put("a", b"x")
    with pytest.raises(MissingExternalFile):
        store.get("a")


SECRET = "c2VjcmV0/c2VjcmV0"
AZURE = {"protocol": "azure", "container": "lab", "location": "dj"}
GCS = {"protocol": "gcs", "bucket": "lab", "location": "dj", "project": "lab"}


class Leaking(MemoryStore):
    """Fails as some clients do: with an address that holds what they were given."""

    failure: type[Exception] = OSError

    def connect(self) -> Any:
        raise self.failure(f"https://example.org/?access_token={quote(self.secrets[0], safe='')}")


@pytest.mark.parametrize(
    ("failure", "told"), [(OSError, "failed for"), (KeyError, "no connection")]
)
def test_what_a_client_says_is_shown_without_secrets(failure: type[Exception], told: str):
    settings = GcsStoreSettings.model_validate({**GCS, "token": SECRET})
    store = Leaking("cloud", settings, settings.bucket)
    store.failure = failure
    with pytest.raises((TransientError, ConfigurationError), match=told) as raised:
        store.get("a")
    shown = "".join(traceback.format_exception(raised.value))
    assert r"access_token=**********" in shown
    assert SECRET not in shown
    assert quote(SECRET, safe="") not in shown


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        ({**AZURE, "account_name": "lab", "account_key": SECRET}, [SECRET]),
        (
            {**AZURE, "connection_string": f"AccountName=lab;AccountKey={SECRET};Endpoint=x"},
            [f"AccountName=lab;AccountKey={SECRET};Endpoint=x", SECRET],
        ),
        ({**GCS, "token": SECRET}, [SECRET]),
        ({**GCS, "token": "/etc/lab/key.json"}, []),
        ({**GCS, "token": "anon"}, []),
    ],
)
def test_secrets_of_clouds_are_known(settings: dict[str, Any], hidden: list[str]):
    assert Stores({"raw": settings}).get("raw").secrets == hidden


def test_settings_that_a_client_refuses_are_told(tmp_path: Path):
    (tmp_path / "key.json").write_text("{broken")
    store = Stores({"raw": {**GCS, "token": str(tmp_path / "key.json")}}).get("raw")
    with pytest.raises(ConfigurationError, match=r"no connection to Google.*check token"):
        store.get("a")
    store = Stores({"raw": {**AZURE, "connection_string": "nonsense"}}).get("raw")
    with pytest.raises(ConfigurationError, match=r"no connection to Azure.*check account_name"):
        store.get("a")
