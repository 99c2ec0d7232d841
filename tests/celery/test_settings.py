"""The launcher's settings: those with which runs could not be sent or watched are refused."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import DagsterInvalidConfigError

from dj_dagster.celery import CeleryRunLauncher

PLAIN = {
    "broker": "redis://server:6379/0",
    "backend": "redis://server:6379/1",
    "default_queue": "dagster",
    "lost_after": 60,
}


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"broker": "sentinel://a:1;sentinel://b:1", "backend": "db+sqlite:////x"},
        {"broker": "sqla+sqlite:////x", "config_source": {"broker_transport_options": {"a": 1}}},
    ],
)
def test_settings_of_any_broker_are_taken(right: dict[str, Any]) -> None:
    launcher = CeleryRunLauncher.from_config_value(None, {**PLAIN, **right})
    assert launcher.celery.conf.broker_transport_options["priority_steps"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"broker": ""}, "broker of the run launcher is empty: write a URL"),
        ({"broker": "nonsense"}, "broker .* does not name a kind"),
        ({"broker": "reddis://:secret@x"}, "broker .*Did you mean redis.*: write a URL"),
        ({"broker": "redis://x:port/0"}, "broker .* cannot be used"),
        ({"backend": " "}, "backend of the run launcher is empty"),
        ({"backend": "nonsense"}, "backend .*No module named 'nonsense'"),
        ({"backend": "rpc://"}, "backend .* keeps no records"),
        ({"backend": "disabled"}, "backend .* keeps no records"),
        ({"default_queue": ""}, "default_queue of the run launcher is empty: write its name"),
        ({"lost_after": 0}, "lost_after of the run launcher is 0: write seconds, 1 or more"),
        (
            {"config_source": {"broker_transport_options": 5}},
            "config_source.broker_transport_options of the run launcher is 5: write names",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_they_are_read(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(DagsterInvalidConfigError, match=said) as caught:
        CeleryRunLauncher.from_config_value(None, {**PLAIN, **wrong})
    assert "secret" not in str(caught.value)
