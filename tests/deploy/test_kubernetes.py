"""The files for Kubernetes are what its API, Dagster's launcher and our settings understand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s import K8sRunLauncher
from kubernetes.client import ApiClient

from dj_dagster import settings_mapping
from dj_dagster.settings import Config
from tests.deploy.units import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.30"
"""A version of the API that clusters of today have."""

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
users: [{name: none, user: {}}]
"""

MANIFESTS = {
    f"{file.name}:{manifest['kind']}:{manifest['metadata']['name']}": manifest
    for file in sorted(KUBERNETES.glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
    if "metadata" in manifest
}


@dg.job
def work() -> None:
    pass


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """The values for the chart."""
    return yaml.safe_load((KUBERNETES / "values.yaml").read_text())


def manifest(name: str, kind: str) -> dict[str, Any]:
    """Return one manifest."""
    (found,) = (
        each
        for each in MANIFESTS.values()
        if each["metadata"]["name"] == name and each["kind"] == kind
    )
    return found


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_api_understands_a_manifest(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)


def test_secrets_are_empty() -> None:
    for each in MANIFESTS.values():
        if each["kind"] == "Secret":
            assert not any(value for key, value in each["stringData"].items() if key != "LAB_USER")


def test_a_lab_finds_its_settings_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kubernetes mounts each key as a file.
    settings, secrets = tmp_path / "settings", tmp_path / "secrets"
    for folder in (settings, secrets):
        folder.mkdir()
    for name, text in manifest("lab-settings", "ConfigMap")["data"].items():
        (settings / name).write_text(text)
    for name in manifest("lab-secrets", "Secret")["stringData"]:
        (secrets / name).write_text(f"the {name}")
    monkeypatch.setenv("DJ_CONFIG_FILE", str(settings / "datajoint.json"))
    monkeypatch.setattr(settings_mapping, "SYSTEM_SECRETS_DIR", secrets)
    config = Config.found()
    assert config.url().password == "the database.password"
    store = config.get_store_spec("lab")
    assert store["access_key"] == "the stores.lab.access_key"
    assert store["secret_key"] == "the stores.lab.secret_key"
    assert store["protocol"] == "s3"


def launcher_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the launcher's config in the dagster.yaml that the chart makes of the values."""
    given = values["runLauncher"]["config"]["k8sRunLauncher"]
    return {
        "job_namespace": "lab",
        "image_pull_policy": given["imagePullPolicy"],
        "service_account_name": "dagster",
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "resources": given["resources"],
        # The chart spells the parts as the launcher does.
        "run_k8s_config": {
            re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name): part
            for name, part in given["runK8sConfig"].items()
        },
    }


def origin(values: Mapping[str, Any]) -> JobPythonOrigin:
    """Return the origin of a job in a code server that the chart has started."""
    (location,) = values["dagster-user-deployments"]["deployments"]
    passed_on = {"env": "env", "volumes": "volumes", "volume_mounts": "volumeMounts"}
    return JobPythonOrigin(
        "work",
        RepositoryPythonOrigin(
            executable_path="python",
            code_pointer=ModuleCodePointer("definitions", "defs"),
            container_image="{repository}:{tag}".format(**location["image"]),
            container_context={
                "k8s": {
                    "image_pull_policy": location["image"]["pullPolicy"],
                    "namespace": "lab",
                    **{name: location[key] for name, key in passed_on.items()},
                }
            },
        ),
    )


class Cluster:
    """Takes jobs, in place of the API of a cluster."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def create_namespaced_job(self, body: Any, namespace: str, **_: Any) -> None:
        """Take a job."""
        assert namespace == "lab"
        self.jobs.append(ApiClient().sanitize_for_serialization(body))


def test_the_launcher_makes_a_job_of_a_run(values: dict[str, Any], tmp_path: Path) -> None:
    schema = resolve_to_config_type(dg.Shape(K8sRunLauncher.config_type()))
    processed = process_config(schema, launcher_config(values))
    assert processed.success, processed.errors
    cluster = Cluster()
    (tmp_path / "config").write_text(KUBECONFIG)
    own = {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "config")}
    launcher = K8sRunLauncher(**{**processed.value, **own}, k8s_client_batch_api=cluster)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        launcher.register_instance(instance)
        run = instance.create_run_for_job(work, job_code_origin=origin(values))
        launcher.launch_run(LaunchRunContext(run, workspace=None))
    (job,) = cluster.jobs
    kubernetes_validate.validate(job, VERSION, strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.org/lab:1"
    assert {"name": "DJ_CONFIG_FILE", "value": "/etc/lab/datajoint.json"} in container["env"]
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert {"/etc/lab", "/run/secrets/datajoint"} == mounted
    assert container["resources"]["limits"] == {"memory": "4Gi"}
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400


def test_all_agree_on_names(values: dict[str, Any]) -> None:
    (location,) = values["dagster-user-deployments"]["deployments"]
    job = manifest("lab-garbage", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = job["containers"]
    assert location["volumes"] == job["volumes"]
    assert location["volumeMounts"] == container["volumeMounts"]
    assert location["env"] == container["env"]
    for volume in location["volumes"]:
        if "configMap" in volume:
            manifest(volume["configMap"]["name"], "ConfigMap")
        else:
            manifest(volume["secret"]["secretName"], "Secret")
    secret = manifest(values["global"]["postgresqlSecretName"], "Secret")
    assert list(secret["stringData"]) == ["postgresql-password"]
    images = [values["dagsterWebserver"]["image"], values["dagsterDaemon"]["image"]]
    assert images == [location["image"]] * 2
    assert container["image"] == f"{images[0]['repository']}:{images[0]['tag']}"


def test_the_proxy_is_that_of_the_other_deployments() -> None:
    text = manifest("lab-proxy", "ConfigMap")["data"]["Caddyfile"]
    assert text == (DEPLOY / "Caddyfile").read_text()
    (container,) = manifest("lab-proxy", "Deployment")["spec"]["template"]["spec"]["containers"]
    (login,) = container["envFrom"]
    given = {each["name"] for each in container["env"]}
    given |= manifest(login["secretRef"]["name"], "Secret")["stringData"].keys()
    assert {"LAB_ADDRESS", "LAB_USER", "LAB_PASSWORD_HASH", "LAB_WEBSERVER"} == given


def test_everything_is_applied_but_the_secrets() -> None:
    applied = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    files = {name.split(":")[0] for name in MANIFESTS}
    assert set(applied) == files - {"secrets.yaml"}
    assert json.loads(manifest("lab-settings", "ConfigMap")["data"]["datajoint.json"])
