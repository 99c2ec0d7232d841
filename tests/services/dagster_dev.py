"""`dagster dev` in a folder, as a user starts it, and questions to it in GraphQL."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.process import PATIENCE, free_port, server, tail


@dataclass(frozen=True)
class DagsterDev:
    """A running `dagster dev`.

    Attributes
    ----------
    url
        Where its UI answers, without a slash at the end.
    log
        File that receives the output of all its processes.
    pid
        Process id of the command itself, which is also the id of the process group.
    """

    url: str
    log: Path
    pid: int

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the `data` of a GraphQL answer.

        Raises
        ------
        AssertionError
            If the answer has errors.
        """
        return graphql(self.url, query, **variables)

    def log_tail(self) -> str:
        """Return the last lines of the output."""
        return tail(self.log)


@contextlib.contextmanager
def dagster_dev(
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    arguments: Sequence[str] = (),
    log: Path | None = None,
    timeout: float = PATIENCE,
) -> Generator[DagsterDev]:
    """Run `dagster dev` on a free port until the block ends; it is entered when the UI answers.

    Parameters
    ----------
    folder
        Working directory: the one with `workspace.yaml` and `dagster.yaml`.
    env
        Variables beside our own environment, from which DAGSTER_HOME is left out.
    without
        Further variables of our own environment to leave out.
    arguments
        Further words of the command line.
    log
        File for the output; `dagster-dev.log` in the folder when left out.
    timeout
        Seconds to wait for the UI.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = log or folder / "dagster-dev.log"
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    left_out = {"DAGSTER_HOME", *without}
    ours = {name: value for name, value in os.environ.items() if name not in left_out}
    with server(
        [*command, *arguments],
        log=log,
        ready=lambda: _answers(url),
        timeout=timeout,
        cwd=folder,
        env={**ours, **(env or {})},
    ) as process:
        yield DagsterDev(url, log, process.pid)


def graphql(url: str, query: str, **variables: Any) -> dict[str, Any]:
    """Ask a Dagster webserver at `url`; see `DagsterDev.graphql`."""
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as refusal:
        # The webserver says what is wrong with a query in the body of a 400.
        answer = json.load(refusal)
    assert not answer.get("errors"), answer["errors"]
    return answer["data"]


def _answers(url: str) -> bool:
    try:
        return bool(graphql(url, "{ version }")["version"])
    except (OSError, ValueError):
        return False
