"""The pages about clusters and servers: their settings load, and their commands can be given."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from dagster._cli import create_dagster_cli
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.ref import InstanceRef
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster._serdes import ConfigurableClassData
from dagster_k8s.job import get_user_defined_k8s_config
from dagster_webserver.cli import dagster_webserver

from dj_dagster.celery.destination import destination
from dj_dagster.cli import cli
from dj_dagster.slurm.resources import requested
from tests.docs.pages import DOCS, REPOSITORY

PAGES = ("slurm", "celery", "kubernetes", "shared_deployment")

OURS: Mapping[str, click.Command] = {
    "celery": celery,
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": dagster_webserver,
    "dj-dagster": cli,
}
"""Programs that are in Python: their command lines are parsed."""

OTHERS = {"createdb", "createuser", "install", "journalctl", "pg_dump", "redis-cli", "systemctl"}
"""Others, whose options are looked for in what they say of themselves, where they are installed."""

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"`((?:{'|'.join(sorted({*OURS, *OTHERS, 'pip'}))}) [^`\n]+)`")


def blocks(page: str, kind: str) -> list[str]:
    """Return the fenced blocks of one kind, those inside of lists too."""
    found = _FENCE.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    return [
        re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        for indent, language, body in found
        if language == kind
    ]


def commands(page: str) -> Iterator[list[str]]:
    """Yield the commands of a page: of its shell blocks, and those inside of sentences."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    for line in (*shell.splitlines(), *_INLINE.findall(_FENCE.sub("", text))):
        # The output of a command inside of another's words is one word of these.
        words = shlex.split(re.sub(r'"\$\(.*?\)"', "value", line), comments=True)
        inner = [n for n, word in enumerate(words) if word.split("/")[-1] in ("dj-dagster", "pip")]
        words = words[inner[0] :] if inner else words
        if words:
            yield [words[0].split("/")[-1], *words[1:]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(*blocks("slurm", "yaml"), id="slurm"),
        pytest.param((REPOSITORY / "deploy/dagster.yaml").read_text(), id="shared"),
        pytest.param((REPOSITORY / "deploy/celery/dagster.yaml").read_text(), id="celery"),
    ],
)
def test_dagster_takes_the_settings_of_a_page(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in re.findall(r"\{env: (\w+)\}", text):
        monkeypatch.setenv(name, "5432")
    (tmp_path / "dagster.yaml").write_text(text)
    reference = InstanceRef.from_dir(str(tmp_path))
    parts = [each for each in reference if isinstance(each, ConfigurableClassData)]
    assert set(re.findall(r"class: (\w+)", text)) <= {part.class_name for part in parts}
    for part in parts:
        module = __import__(part.module_name, fromlist=[part.class_name])
        kind = resolve_to_config_type(getattr(module, part.class_name).config_type())
        done = process_config(kind, part.config_dict)
        assert done.success, (part.class_name, done.errors)


def test_launchers_take_the_tags_of_the_pages() -> None:
    tags = dict[str, dict[str, str]]()
    for page in ("slurm", "celery"):
        names = dict[str, Any]()
        exec("\n".join(blocks(page, "python")), names)
        translator = names["LabTranslator"]()
        assert translator.get_op_tags(SimpleNamespace(title="lab.Other")) == {}
        tags[page] = translator.get_op_tags(SimpleNamespace(title="lab.Sorting"))
    assert requested({}, {"sorting": tags["slurm"]}, {}) == {"gres": "gpu:1", "time": "8:00:00"}
    assert destination("dagster", {"sorting": tags["celery"]}, {}).queue == "gpu"
    names = {}
    exec("\n".join(blocks("kubernetes", "python")), names)
    asked = get_user_defined_k8s_config(names["sorting"].tags)
    assert asked.container_config["resources"]["limits"]["memory"] == "32Gi"
    assert asked.pod_spec_config["node_selector"] == {"gpu": "yes"}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_can_be_given(page: str) -> None:
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    found = list(commands(page))
    assert found
    for program, *words in found:
        for word in words:
            if word.startswith("deploy/"):
                assert list(REPOSITORY.glob(word)), word
        if program in OURS:
            parse(OURS[program], words)
        elif program == "pip":
            check_extras(words)
        elif program in OTHERS and shutil.which(program):
            check_options(program, words)


def parse(command: click.Command, words: Sequence[str], above: click.Context | None = None) -> None:
    """Parse the arguments of a command and of its commands, and run none."""
    settings = CLIContext(Celery(), no_color=True, workdir=None) if command is celery else None
    with command.make_context(command.name, list(words), parent=above, obj=settings) as context:
        if isinstance(command, click.Group):
            left = [*context._protected_args, *context.args]
            _, inner, rest = command.resolve_command(context, left)
            assert inner is not None, words
            parse(inner, rest, context)


def check_extras(words: Sequence[str]) -> None:
    """Check that the extras which pip is told to install are those of the package."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (named,) = re.findall(r"dj-dagster\[([\w,-]+)\]", " ".join(words))
    assert set(named.split(",")) <= project["optional-dependencies"].keys()


def check_options(program: str, words: Sequence[str]) -> None:
    """Check that a program, or the command of it that is given, names its options in its help."""
    options = [word for word in words if re.match(r"--?\w", word)]
    inner = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    told = ""
    for depth in range(min(len(inner), 2) + 1):
        done = subprocess.run(
            [program, *inner[:depth], "--help"], capture_output=True, text=True, check=False
        )
        told += done.stdout + done.stderr
    for option in options:
        spelled = [option.split("=")[0]] if option[1] == "-" else [f"-{c}" for c in option[1:]]
        for each in spelled:
            assert re.search(rf"(?<![\w-]){re.escape(each)}(?!\w)", told), (program, each)
