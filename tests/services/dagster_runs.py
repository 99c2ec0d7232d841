"""Runs of a running `dagster dev`: launched, cancelled and looked at as its UI does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.services.dagster_dev import DagsterDev
from tests.services.process import eventually

LAUNCH = """
mutation ($job: String!, $location: String!, $config: RunConfigData, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {
      jobName: $job, repositoryLocationName: $location, repositoryName: "__repository__"
    }
    runConfigData: $config
    executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
RUN = """
query ($run: ID!) { runOrError(runId: $run) { ... on Run { status tags { key value } } } }
"""
LOG = """
query ($run: ID!) {
  logsForRun(runId: $run) {
    ... on EventConnection { events { __typename ... on MessageEvent { message } } }
  }
}
"""
STATISTICS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { partitionStats { numPartitions numMaterialized numFailed } }
  }
}
"""
TERMINATE = """
mutation ($run: String!, $policy: TerminateRunPolicy) {
  terminateRun(runId: $run, terminatePolicy: $policy) { __typename }
}
"""


@dataclass(frozen=True)
class DagsterRuns:
    """The runs of a `dagster dev`."""

    dev: DagsterDev

    def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        location: str = "plain",
    ) -> str:
        """Launch a job as the UI does, of the plain project by default, and return the run's id."""
        given = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        answer = self.dev.graphql(
            LAUNCH, job=job, location=location, config=config or {}, tags=given
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def terminate(self, run: str, policy: str = "SAFE_TERMINATE") -> None:
        """Cancel a run as the UI does."""
        answer = self.dev.graphql(TERMINATE, run=run, policy=policy)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def status(self, run: str) -> str:
        """Return the state of a run in Dagster."""
        return self.dev.graphql(RUN, run=run)["runOrError"]["status"]

    def tags(self, run: str) -> dict[str, str]:
        """Return a run's tags."""
        tags = self.dev.graphql(RUN, run=run)["runOrError"]["tags"]
        return {tag["key"]: tag["value"] for tag in tags}

    def log(self, run: str) -> str:
        """Return the messages in a run's log."""
        events = self.dev.graphql(LOG, run=run)["logsForRun"]["events"]
        return "\n".join(event.get("message", "") for event in events)

    def until(self, run: str, status: str) -> None:
        """Wait until a run is in a state."""
        ended = {"SUCCESS", "FAILURE", "CANCELED"} - {status}

        def there() -> bool:
            now = self.status(run)
            assert now not in ended, f"{now}:\n{self.log(run)}"
            return now == status

        eventually(there, every=0.5)

    def counts(self, *key: str) -> tuple[int, int, int]:
        """Return how many partitions a table has, and how many are materialised and failed."""
        found = self.dev.graphql(STATISTICS, key={"path": key})["assetNodeOrError"][
            "partitionStats"
        ]
        return found["numPartitions"], found["numMaterialized"], found["numFailed"]
