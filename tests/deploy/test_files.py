"""What the files of a shared deployment name is there, and the proxy asks for a login."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dj_dagster.settings import Config
from dj_dagster.settings_mapping import ENVIRONMENT as SETTINGS
from tests.deploy.units import (
    DEPLOY,
    ENVIRONMENT,
    PROGRAMS,
    UNITS,
    Unit,
    read_environment,
    units,
)
from tests.services.process import accepts, free_port, server

COMPOSE = DEPLOY / "compose"
HERE = Path(sys.executable).parent
TULIP = "$2b$04$abcdefghijklmnopqrstuuIHufyw9sBMbCXCR45ynC8TiqXPZ9L1i"
"""The hash of a password, cheaper to check than those that Caddy makes."""

GIVEN = re.compile(r"\$\{(\w+)(:-|:\?)?")
"""A variable of compose.yaml, and what is done without it."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """What compose.yaml says, before variables are filled in."""
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def wanted() -> set[str]:
    """Return the variables that dagster.yaml and workspace.yaml read."""
    texts = [(DEPLOY / name).read_text() for name in ("dagster.yaml", "workspace.yaml")]
    return {name for text in texts for name in re.findall(r"\{env: (\w+)\}", text)}


def told(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """Return what a command prints, in order or not."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", units(), ids=lambda unit: unit.name)
def test_a_unit_names_what_is_there(unit: Unit, tmp_path: Path) -> None:
    environment = read_environment(UNITS / ENVIRONMENT)
    assert (
        unit.settings["EnvironmentFile"] == f"/etc/dagster/{ENVIRONMENT.removesuffix('.example')}"
    )
    assert unit.variables | wanted() <= environment.keys()
    for command in unit.commands:
        program = Path(shlex.split(command)[0])
        assert str(program.parent) == PROGRAMS
        assert os.access(HERE / program.name, os.X_OK)
    if shutil.which("systemd-analyze"):
        copy = tmp_path / f"{unit.name}.service"
        copy.write_text((UNITS / copy.name).read_text().replace(PROGRAMS, str(HERE)))
        assert told("systemd-analyze", "verify", "--recursive-errors=one", copy) == ""


def test_the_example_of_an_environment_is_a_lab_s_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in read_environment(UNITS / ENVIRONMENT).items():
        if name.startswith("DJ_"):
            monkeypatch.setenv(name, value)
    config = Config.found()
    assert config["database.host"] == "db.example.org"
    assert config["stores.lab.bucket"] == "lab"


def test_services_of_compose_get_all_that_they_read(compose: dict[str, Any]) -> None:
    services = compose["services"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for name in ("code-server", "daemon", "webserver"):
        in_image = {each for each in wanted() if f"{each}=" in dockerfile}
        assert wanted() <= services[name]["environment"].keys() | in_image
    ours = {each for each in services["code-server"]["environment"] if each.startswith("DJ_")}
    assert ours == {"DJ_HOST", "DJ_USER", "DJ_PASS", "DJ_STORES"}
    assert ours <= set(SETTINGS.values())
    # What a process listens to is what the others call.
    environment = services["daemon"]["environment"]
    assert environment["DAGSTER_CODE_HOST"] in services
    assert f"-p {environment['DAGSTER_CODE_PORT']}" in services["code-server"]["command"][-1]
    assert environment["DAGSTER_POSTGRES_HOST"] in services
    assert services["postgres"]["environment"]["POSTGRES_USER"] == "dagster"
    assert services["code-server"]["environment"]["DJ_HOST"] in services


def test_the_webserver_is_for_this_machine_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
    assert services["proxy"]["profiles"] == ["proxy"]
    (unit,) = (unit for unit in units() if unit.name == "dagster-webserver")
    assert "-h 127.0.0.1" in unit.settings["ExecStart"]


def test_compose_names_what_is_there(compose: dict[str, Any]) -> None:
    example = read_environment(COMPOSE / "env.example")
    uses = set(GIVEN.findall((COMPOSE / "compose.yaml").read_text()))
    assert {name for name, otherwise in uses if otherwise != ":-"} <= example.keys()
    assert not {name for name, otherwise in uses if not otherwise}
    assert not {name for name in example if name not in {each for each, _ in uses}}
    for service in compose["services"].values():
        assert service["restart"] == "unless-stopped"
        if build := service.get("build"):
            assert (COMPOSE / build["context"] / build["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (COMPOSE / source).is_file()
        command = service["command"][0] if isinstance(service.get("command"), list) else "sh"
        assert (
            service["image"] != "${LAB_IMAGE:-lab}" or command == "sh" or (HERE / command).exists()
        )


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (packages,) = re.findall(r'ARG DJ_DAGSTER="(.*)"', text)
    (extra,) = re.findall(r"dj-dagster\[(\w+)\]", packages)
    assert extra in extras
    for name in re.findall(r"deploy/[\w.]+\.yaml", text):
        assert (DEPLOY.parent / name).is_file()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {"**/.env", "**/.secrets"} <= set(ignored)


@contextlib.contextmanager
def page(text: bytes) -> Iterator[str]:
    """Serve a text on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{web.server_port}"
        web.shutdown()


def status_of(url: str, *account: str) -> tuple[int, bytes]:
    """Return what a browser gets, with an account or without."""
    request = urllib.request.Request(url)
    if account:
        login = base64.b64encode(":".join(account).encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, b""


def test_the_proxy_lets_in_who_has_the_password(tmp_path: Path) -> None:
    port = free_port()
    # This machine alone, and not a certificate's business.
    own = tmp_path / "Caddyfile"
    own.write_text(
        f"{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}}\nimport {DEPLOY / 'Caddyfile'}\n"
    )
    with page(b"the UI") as webserver:
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "LAB_ADDRESS": f"http://127.0.0.1:{port}",
            "LAB_USER": "ada",
            "LAB_PASSWORD_HASH": TULIP,
            "LAB_WEBSERVER": webserver,
        }
        command = [HERE / "caddy", "run", "--adapter", "caddyfile", "--config", own]
        with server(command, log=tmp_path / "log", ready=lambda: accepts(port), env=environment):
            url = f"http://127.0.0.1:{port}/"
            assert status_of(url) == (401, b"")
            assert status_of(url, "ada", "rose") == (401, b"")
            assert status_of(url, "ada", "tulip") == (200, b"the UI")
