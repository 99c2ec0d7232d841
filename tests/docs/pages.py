"""Runs the snippets of pages as a reader would: ``python -m tests.docs.pages PAGE …``.

Each page has an empty folder and a process of its own. Its fenced blocks are run from top to
bottom:

- a block with a caption is written to the file that the caption names;
- other blocks of ``python`` are run one after another, with the names of those before;
- a block of ``pycon`` is a session, whose output must be the one that is shown;
- a block of ``console`` has commands after ``$``, and the output that they must print;
- a block of ``yaml`` is a config for the launchpad, of the job that enters the rows of a table.

An ellipsis stands for any text in an output. Blocks of other kinds are not run. A comment
``% not run: why`` stands before a block that needs more than a test has, for example a network. A
config is checked nonetheless: after the last block, its job must take it.

``% run: command`` is a command that readers do not see, where what they do is done in a browser.
``dagster dev`` stands for its daemon: the sensor is evaluated in this process, and the
runs that it asks for are executed, until there is nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import importlib
import io
import linecache
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import dagster as dg
import yaml

from dj_dagster import default_connection
from dj_dagster.cli import cli
from dj_dagster.errors import DataJointError
from dj_dagster.orchestration.headless import run_assets, run_until_idle

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
FOLDERS = ("start", "tutorials", "how-to")
"""The parts of the documentation whose snippets are run."""

PAGES = ("reference/queries.md",)
"""Pages of other parts whose snippets are run, too."""

NEEDY = {"move-014"}
"""Pages that need what a test of their own prepares."""

_FENCE = re.compile(
    r"^% run: (?P<hidden>[^\n]*\n)"
    r"|^(?P<not_run>% not run:[^\n]*\n\n?)?"
    r"^(?P<fence>```+)(?P<kind>\{?[a-z-]+\}?)(?P<argument>[^\n]*)\n(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_CAPTION = re.compile(r":caption: (\S+)\n")
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_SECONDS = 120
"""Time that a command of the shell may take."""


class SnippetError(Exception):
    """A snippet that failed, or printed something else than the page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    line
        The number of its first line in the page.
    file
        The name that its caption gives; empty without one.
    """

    kind: str
    text: str
    line: int
    file: str = ""


def pages() -> list[Path]:
    """Return the pages whose snippets are run."""
    found = [page for folder in FOLDERS for page in sorted((DOCS / folder).glob("*.md"))]
    return [REPOSITORY / "README.md", *found, *(DOCS / page for page in PAGES)]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are to be run or written."""
    text = page.read_text(encoding="utf-8")
    found = list[Block]()
    for match in _FENCE.finditer(text):
        if match["not_run"] and match["kind"] != "yaml":
            continue
        if hidden := match["hidden"]:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block("console", f"$ {hidden}", line))
            continue
        kind, body = match["kind"], match["body"]
        line = text.count("\n", 0, match.start("body")) + 1
        file = ""
        if kind == "{code-block}":
            kind = match["argument"].strip()
            if caption := _CAPTION.search(body):
                file = caption[1]
            head = re.match(r"(?::[^\n]*\n)*\n?", body)
            skipped = head[0] if head else ""
            body, line = body[len(skipped) :], line + skipped.count("\n")
        if match["not_run"]:
            kind = "config"
        found.append(Block(kind, body, line, file))
    return found


@dataclass
class Reader:
    """A reader who does what one page says, in the working directory."""

    page: Path
    names: ModuleType = field(default_factory=lambda: ModuleType("__main__"))
    instance: dg.DagsterInstance | None = None

    def follow(self) -> None:
        """Run all blocks.

        Raises
        ------
        SnippetError
            At the first that fails; it names the line of the page.
        """
        sys.modules["__main__"] = self.names
        sys.path.insert(0, "")
        found = blocks(self.page)
        for block in found:
            with self._named(block):
                self._do(block)
        for block in found:
            if block.kind == "config":
                with self._named(block):
                    dg.validate_run_config(*self._entry_job(block))

    @contextlib.contextmanager
    def _named(self, block: Block) -> Generator[None]:
        """Add the line of a block to its errors."""
        try:
            yield
        except BaseException as error:
            what = f"{self.page.name}, line {block.line}"
            told = str(error) if isinstance(error, SnippetError) else traceback.format_exc()
            raise SnippetError(f"{what}: {told}") from error

    def _do(self, block: Block) -> None:
        if block.file:
            file = Path(block.file)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            exec(self._compiled(block), vars(self.names))
        elif block.kind == "pycon":
            self._session(block)
        elif block.kind == "console":
            self._console(block)
        elif block.kind == "yaml":
            job, config = self._entry_job(block)
            self.instance = self.instance or dg.DagsterInstance.ephemeral()
            job.execute_in_process(run_config=config, instance=self.instance)

    def _entry_job(self, block: Block) -> tuple[dg.JobDefinition, dict[str, Any]]:
        """Return the job that a config for the launchpad is for, and the config."""
        config = yaml.load(block.text, _Launchpad)
        if Path("definitions.py").exists():
            _forget_modules()
            defs = importlib.import_module("definitions").defs
        else:
            defs = vars(self.names)["defs"]
        (op,) = config["ops"]
        return defs.resolve_job_def(op.removesuffix("__rows")), config

    def _compiled(self, block: Block) -> Any:
        name = f"{self.page.name}:{block.line}"
        # Tracebacks, and the versions of the code of `make`, read the source from here.
        linecache.cache[name] = (len(block.text), None, block.text.splitlines(True), name)
        return compile(block.text, name, "exec")

    def _session(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(
            block.text, vars(self.names), self.page.name, str(self.page), block.line
        )
        told = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=_FLAGS)
        runner.run(test, out=told.write, clear_globs=False)
        vars(self.names).update(test.globs)
        if runner.failures:
            raise SnippetError(told.getvalue())

    def _console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            commands = [lines.pop(0)]
            while commands[-1].endswith("\\"):
                commands.append(lines.pop(0))
            command = "\n".join(commands)
            expected = "\n".join(lines).strip()
            printed, code = self._run(command.replace("\\\n", " "))
            checker = doctest.OutputChecker()
            if expected and not checker.check_output(
                f"{expected}\n", f"{printed.strip()}\n", _FLAGS
            ):
                raise SnippetError(f"$ {command}\nexpected:\n{expected}\nprinted:\n{printed}")
            if code and not expected:
                raise SnippetError(f"$ {command} ended with {code}:\n{printed}")

    def _run(self, command: str) -> tuple[str, int]:
        words = shlex.split(command)
        _forget_modules()
        if words[:2] == ["dagster", "dev"]:
            return self._daemon(words), 0
        if words[:3] == ["dagster", "asset", "materialize"]:
            return self._materialize(words)
        plain = not set(command) & set("|><&;")
        if plain and words[0] == "dj-dagster":
            return _in_process(lambda: _dj_dagster(words[1:]))
        if plain and words[0] == "python" and words[1].endswith(".py"):
            return _in_process(lambda: _script(words[1:]))
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        failed = done.returncode and done.stderr
        return done.stdout + (failed or ""), done.returncode

    def _daemon(self, words: list[str]) -> str:
        """Do what the daemon of `dagster dev` would do with the definitions of a file."""
        defs, instance = self._loaded(words)
        _watch(defs, instance)
        for _ in run_until_idle(defs, instance=instance):
            pass
        return ""

    def _materialize(self, words: list[str]) -> tuple[str, int]:
        """Do what `dagster asset materialize` does with one asset, without a process of its own."""
        defs, instance = self._loaded(words)
        asset = dg.AssetKey(words[words.index("--select") + 1].split("/"))
        run = run_assets(defs, [asset], instance=instance)
        return run.status.value, 0 if run.is_success else 1

    def _loaded(self, words: list[str]) -> tuple[dg.Definitions, dg.DagsterInstance]:
        self.instance = self.instance or dg.DagsterInstance.ephemeral()
        return importlib.import_module(Path(words[words.index("-f") + 1]).stem).defs, self.instance


class _Launchpad(yaml.SafeLoader):
    """Reads configs as the launchpad does, where a date is a text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [each for each in found if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _watch(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Evaluate the sensors that enter rows, twice: files are read once they do not change."""
    for sensor in defs.sensors or ():
        cursor = None
        for _ in range(2 if sensor.name == "folder_sensor" else 0):
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            cursor = sensor.evaluate_tick(context).cursor


def _forget_modules() -> None:
    """Have the modules of the working directory imported anew, as a command's new process does."""
    here = str(Path.cwd())
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(here):
            del sys.modules[name]
    linecache.checkcache()
    importlib.invalidate_caches()


def _script(arguments: list[str]) -> None:
    sys.argv = arguments
    exec(Path(arguments[0]).read_text(encoding="utf-8"), {"__name__": "__main__"})


def _dj_dagster(arguments: list[str]) -> None:
    """Do what the command does in a process of its own, which has a connection of its own."""
    before = default_connection._connection, default_connection._config
    default_connection._connection = default_connection._config = None
    try:
        cli.main(arguments, prog_name="dj-dagster")
    except DataJointError as error:
        print(f"Error: {error}")
        sys.exit(1)
    finally:
        default_connection._connection, default_connection._config = before


def _in_process(call: Callable[[], object]) -> tuple[str, int]:
    """Return what a call prints and the code that it ends with."""
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            call()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return printed.getvalue(), code


def run_apart(page: Path, prepared: Path | None = None) -> str:
    """Run a page in a process of its own, and in an empty folder; return what went wrong.

    Parameters
    ----------
    prepared
        A folder with what the reader of the page has.
    """
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as empty:
        folder = prepared or empty
        # What is imported here need not be imported for each page.
        child = os.fork()
        if child == 0:
            os.close(read)
            os.chdir(folder)
            told = ""
            try:
                Reader(page).follow()
            except BaseException as error:
                told = str(error) or repr(error)
            with open(write, "w", encoding="utf-8") as pipe:  # noqa: PTH123
                pipe.write(told)
            os._exit(0)
        os.close(write)
        with open(read, encoding="utf-8") as pipe:  # noqa: PTH123
            told = pipe.read()
        _, status = os.waitpid(child, 0)
    return told or (f"{page.name}: its process ended with {status}" if status else "")


def main(folder: Path | None, names: list[str]) -> int:
    """Run the pages that are named, without names all that need nothing; print what failed."""
    for name in [name for name in os.environ if name.startswith("DJ_")]:
        del os.environ[name]
    # The commands that readers run are those of this environment.
    here = Path(sys.executable).parent
    os.environ["PATH"] = f"{here}{os.pathsep}{os.environ['PATH']}"
    for module in ("pandas", "dj_dagster.orchestration"):
        importlib.import_module(module)
    # A page edits a module within the second in which it was compiled, which Python does not see
    # where the size stays the same.
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    # Readers would see it.
    warnings.filterwarnings("error", "Positional inserts", DeprecationWarning)
    chosen = [page for page in pages() if page.stem in (names or {page.stem} - NEEDY)]
    failed = 0
    for page in chosen:
        told = run_apart(page, folder)
        failed += bool(told)
        print(f"{page.relative_to(REPOSITORY)}: {told or 'good'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    sys.exit(main(given.folder, given.names))
