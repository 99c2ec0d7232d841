from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from dj_dagster.errors import ConfigurationError, MissingExternalFile, TransientError
from dj_dagster.objects.stores.s3_store import AT_MOST
from dj_dagster.objects.stores.store import Store
from dj_dagster.objects.stores.stores import Stores
from tests.services.faults import faulty_proxy
from tests.services.process import PATIENCE, free_port


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
    monkeypatch.delitem(sys.modules, "dj_dagster.objects.stores.s3_store", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    stores = Stores({"raw": s3_store_settings})
    with pytest.raises(ConfigurationError, match=r"pip install 'dj-dagster\[s3\]'"):
        stores.get("raw")


@pytest.mark.parametrize(
    "name", ["a%2Fb/x", "a b[1]*?#~.tif", "ünï=+&@:;,'\"<>|^`{}", "k=1/v_y-z.npy"]
)
def test_all_ways_to_an_object_spell_its_name_alike(s3_store_settings: dict[str, Any], name: str):
    store = Stores({"raw": s3_store_settings}).get("raw")
    store.put(name, b"x")
    assert list(store.list()) == [name]
    assert store.filesystem.cat_file(store.full_path(name)) == b"x"
    store.filesystem.pipe_file(store.full_path(name), b"12")
    assert (store.get(name), store.size(name)) == (b"12", 2)


@pytest.mark.parametrize("size", [0, AT_MOST, AT_MOST + 1])
def test_objects_of_all_sizes_come_back(
    s3_store_settings: dict[str, Any], tmp_path: Path, size: int
):
    store = Stores({"raw": s3_store_settings}).get("raw")
    (tmp_path / "file").write_bytes(b"y" * size)
    store.put("a", b"x" * size)
    store.put_file("b", tmp_path / "file")
    assert (store.get("a"), store.get("b")) == (b"x" * size, b"y" * size)
    assert (store.size("a"), store.size("b")) == (size, size)


@pytest.mark.parametrize("ask", ["get", "stat"])
def test_an_object_takes_one_request(s3_store_settings: dict[str, Any], ask: str):
    with faulty_proxy(s3_store_settings["endpoint"]) as proxy:
        store = _through(proxy.port, s3_store_settings)
        store.put("a", b"x")
        requests: list[bytes] = []
        proxy.choose = requests.append
        getattr(store, ask)("a")
        with pytest.raises(MissingExternalFile):
            getattr(store, ask)("b")
    assert len(requests) == 2


def test_a_store_goes_on_in_a_forked_process(s3_store_settings: dict[str, Any]):
    store = Stores({"raw": s3_store_settings}).get("raw")
    store.put("a", b"x")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_use, args=(store, theirs))
    process.start()
    try:
        assert ours.poll(PATIENCE)
        assert ours.recv() == (b"x", 1, "no 'b'", ["a", "c"])
    finally:
        process.kill()
        process.join()
    assert store.get("c") == b"y"


def _use(store: Store, pipe: Connection) -> None:
    try:
        store.stat("b")
    except MissingExternalFile:
        missing = "no 'b'"
    else:
        missing = ""
    store.put("c", b"y")
    pipe.send((store.get("a"), store.size("a"), missing, sorted(store.list())))


def test_amazons_credentials_are_found(
    s3_store_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key, secret = s3_store_settings["access_key"], s3_store_settings["secret_key"]
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    without = {**s3_store_settings, "access_key": None, "secret_key": None}
    store = Stores({"raw": without}).get("raw")
    store.put("a", b"x")
    assert store.get("a") == b"x"


def test_the_environment_does_not_overrule_the_settings(
    s3_store_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    elsewhere = f"http://127.0.0.1:{free_port()}"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, elsewhere)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "another")
    for name in ("AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        monkeypatch.setenv(name, "true")
    store = Stores({"raw": s3_store_settings}).get("raw")
    store.put("a", b"x")
    assert store.get("a") == b"x"


@pytest.mark.parametrize("lacking", [("access_key", "secret_key"), ("access_key",)])
def test_lacking_credentials_are_named(
    s3_store_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: tuple[str, ...],
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = Stores({"raw": {**s3_store_settings, **dict.fromkeys(lacking)}}).get("raw")
    with pytest.raises(ConfigurationError, match="check access_key and secret_key"):
        store.put("a", b"x")


def test_a_forward_proxy_is_used(s3_store_settings: dict[str, Any]):
    with faulty_proxy(s3_store_settings["endpoint"]) as proxy:
        requests: list[bytes] = []
        proxy.choose = requests.append
        address = f"http://127.0.0.1:{proxy.port}"
        store = Stores({"raw": {**s3_store_settings, "proxy_server": address}}).get("raw")
        store.put("a", b"x")
    # The whole URL is what one tells a proxy.
    assert requests[0].startswith(f"PUT http://{s3_store_settings['endpoint']}/".encode())


def _through(port: int, settings: dict[str, Any]) -> Store:
    return Stores({"raw": {**settings, "endpoint": f"127.0.0.1:{port}"}}).get("raw")


@pytest.mark.parametrize("fault", ["500", "503", "refuse", "cut request", "truncate"])
@pytest.mark.parametrize("call", ["put", "get", "stat"])
def test_a_fault_is_tried_over(s3_store_settings: dict[str, Any], fault: str, call: str):
    with faulty_proxy(s3_store_settings["endpoint"]) as proxy:
        store = _through(proxy.port, s3_store_settings)
        store.put("a", bytes(range(256)) * 100)
        # What cuts an answer of nothing but headers short does so after the first of them.
        faults = iter([fault])
        proxy.choose = lambda request: next(faults, None)
        found = {
            "put": lambda: store.put("a", b"new") or store.get("a"),
            "get": lambda: store.get("a"),
            "stat": lambda: store.size("a"),
        }[call]()
    assert found == {"put": b"new", "get": bytes(range(256)) * 100, "stat": 25600}[call]
    assert proxy.happened == {fault: 1}


def test_large_objects_are_read_whole_through_faults(s3_store_settings: dict[str, Any]):
    data = os.urandom(3 * 2**20)
    with faulty_proxy(s3_store_settings["endpoint"]) as proxy:
        store = _through(proxy.port, s3_store_settings)
        store.put("a", data)
        faults = iter(["truncate", None, "cut response"])
        proxy.choose = lambda request: next(faults, None)
        assert [store.get("a") == data for _ in range(3)] == [True, True, True]
    assert proxy.happened == {"truncate": 1, "cut response": 1}
