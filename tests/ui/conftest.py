"""The demo in a real `dagster dev`, and pictures of pages.

Each lab that several modules look at has a folder of its own here, so that it ends with them: while
it runs, its sensors take a tenth of a core.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.services.dagster_dev import dagster_dev
from tests.services.dagster_runs import STATISTICS
from tests.services.process import PATIENCE, eventually
from tests.ui.pages import RunningLab

REPOSITORY = Path(__file__).parents[2]
Keep = Callable[[str], None]

LAUNCH = """
mutation ($job: String!, $config: RunConfigData) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: "pipelines", repositoryName: "__repository__", jobName: $job
    }
    runConfigData: $config
    mode: "default"
  }) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""


class Demo(RunningLab):
    """A running demo: its UI and its folder."""

    def record(self, sessions: int) -> None:
        """Launch the acquisition job."""
        config = {"ops": {"record": {"config": {"sessions": sessions}}}}
        answer = self.dev.graphql(LAUNCH, job="record_session", config=config)
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer

    def partitions(self, table: str) -> dict[str, int]:
        """Return how many partitions a table has, and how many are materialised and failed."""
        answer = self.dev.graphql(STATISTICS, key={"path": ["lab", table]})
        return answer["assetNodeOrError"]["partitionStats"]

    def until(self, table: str, **expected: int) -> None:
        """Wait until a table's partition counts are as expected."""
        eventually(lambda: expected.items() <= self.partitions(table).items(), every=0.5)

    def sql(self, statement: str, *values: Any) -> None:
        """Run SQL on the demo's database, as a client that knows nothing of us."""
        with sqlite3.connect(self.folder / ".dj" / "lab.sqlite", timeout=PATIENCE) as connection:
            connection.execute(statement, values)

    def query(self, statement: str) -> tuple[Any, ...]:
        """Return the one row of a query on the demo's database."""
        with closing(sqlite3.connect(self.folder / ".dj" / "lab.sqlite")) as connection:
            return connection.execute(statement).fetchone()

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep all others from writing to the demo's database, who wait for up to 30 s."""
        database = sqlite3.connect(self.folder / ".dj" / "lab.sqlite", timeout=PATIENCE)
        with closing(database) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`dagster dev` in a copy of what the repository has for it, on an empty database."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(REPOSITORY / "pipelines", folder / "pipelines")
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    # The demo is on its own defaults, whatever the developer's settings are.
    with dagster_dev(folder, without=[n for n in os.environ if n.startswith("DJ_")]) as dev:
        yield Demo(dev, folder)


@pytest.fixture
def keep(request: pytest.FixtureRequest, page: Page) -> Any:
    """Save the page as a picture under docs/ when pytest is run with --save-screenshots."""

    def save(name: str) -> None:
        if request.config.getoption("save_screenshots"):
            (REPOSITORY / "docs").mkdir(exist_ok=True)
            page.wait_for_timeout(1000)  # dialogs fade in
            _save_small(page.screenshot(), REPOSITORY / "docs" / f"{name}.png")

    return save


def _save_small(png: bytes, path: Path) -> None:
    """Save a picture 1200 pixels wide, in as many colours as a screenshot needs."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.resize((1200, round(picture.height * 1200 / picture.width)))
    # Which takes colours that are rare too: the few red dots among much grey.
    small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
