"""The launcher's settings, as `dagster.yaml` has them, and Celery's where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dagster import DagsterInvalidConfigError, Field, IntSource, Permissive, StringSource

from dj_dagster.celery._dagster import (
    BrokerConnection,
    DisabledBackend,
    ImproperlyConfigured,
    RPCBackend,
    backend_by_url,
)
from dj_dagster.celery.destination import GREATEST

SETTINGS: Mapping[str, Any] = {
    # A worker takes a run from the queue when one of its processes is free, and not before.
    "worker_disable_prefetch": True,
    # Long runs would be forgotten: a record is written when a run begins and when it ends.
    "result_expires": 30 * 24 * 3600,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        "priority_steps": list(range(GREATEST + 1)),
        # Of a message whose worker died before it began.
        "visibility_timeout": 300,
        "socket_connect_timeout": 5,
    },
    "result_backend_transport_options": {"retry_policy": {"max_retries": 5}},
}
"""Celery's settings where `config_source` has none of its own."""


def config_type() -> dict[str, Any]:
    """Return the schema of the launcher's part of `dagster.yaml`."""
    return {
        "broker": Field(StringSource, description="The broker's URL, such as redis://…/0."),
        "backend": Field(
            StringSource,
            description="The URL of the records of tasks, such as redis://…/1. It must not be "
            "rpc://, which can't be read twice.",
        ),
        "default_queue": Field(
            StringSource,
            default_value="dagster",
            description="The queue of runs without the tag dagster-celery/queue.",
        ),
        "include": Field([str], is_required=False, description="Modules that workers import."),
        "config_source": Field(
            Permissive(), is_required=False, description="More settings of Celery."
        ),
        "lost_after": Field(
            IntSource,
            default_value=60,
            description="Seconds without an answer after which a worker is taken to be gone.",
        ),
    }


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a lab's settings of Celery with ours where it has none."""
    both = {**SETTINGS, **settings}
    for name, ours in SETTINGS.items():
        if isinstance(ours, Mapping):
            both[name] = {**ours, **both[name]}
    return both


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse settings with which runs could not be sent or watched.

    Raises
    ------
    DagsterInvalidConfigError
        If there is one. The message does not have URLs, which hold passwords.
    """
    celerys = config.get("config_source") or {}
    words = "a URL such as redis://server:6379/"
    wrong = {
        "broker": (_fault(_check_broker, config["broker"]), f"{words}0"),
        "backend": (_fault(_check_backend, config["backend"]), f"{words}1"),
        "default_queue": ("" if config["default_queue"].strip() else "is empty", "its name"),
        "lost_after": (
            "" if config["lost_after"] >= 1 else f"is {config['lost_after']}",
            "seconds, 1 or more",
        ),
    }
    for name, ours in SETTINGS.items():
        if isinstance(ours, Mapping) and not isinstance(celerys.get(name, ours), Mapping):
            wrong[f"config_source.{name}"] = f"is {celerys[name]!r}", "names with their values"
    for name, (said, instead) in wrong.items():
        if said:
            message = f"The setting {name} of the run launcher {said}: write {instead}."
            raise DagsterInvalidConfigError(message, [], config)


def _fault(check: Callable[[str], None], url: str) -> str:
    """Return what is wrong with a URL, empty if nothing is."""
    if not url.strip():
        return "is empty"
    try:
        check(url)
    except (ImproperlyConfigured, ImportError, RuntimeError, LookupError, ValueError) as error:
        return f"cannot be used ({error.args[0]})"
    return ""


def _check_broker(url: str) -> None:
    if "://" not in url:
        # Celery takes it for the name of a server of RabbitMQ.
        raise ImproperlyConfigured("it does not name a kind of broker")
    BrokerConnection(url).get_transport_cls()


def _check_backend(url: str) -> None:
    kind, _ = backend_by_url(url)
    if issubclass(kind, RPCBackend | DisabledBackend):
        raise ImproperlyConfigured("it keeps no records that can be read twice")
