"""The libraries that the benchmarks compare, each on a server of their own that both share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from types import ModuleType
from typing import Any

import pymysql
import sqlalchemy as sa

import dj_dagster

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses a datajoint.json
    import datajoint


@dataclass(frozen=True)
class Peer:
    """A library with the names of DataJoint's public API, and its connection."""

    name: str
    dj: ModuleType
    connection: Any


def peers(url: sa.URL) -> tuple[Peer, Peer]:
    """Return dj_dagster and DataJoint on one server."""
    datajoint.config["safemode"] = False
    datajoint.logger.setLevel("ERROR")
    theirs = datajoint.Connection(
        url.host or "127.0.0.1", url.username or "root", url.password or "", url.port
    )
    ours = dj_dagster.Connection(url, safemode=False)
    return Peer("dj_dagster", dj_dagster, ours), Peer("datajoint", datajoint, theirs)


def driver(url: sa.URL) -> pymysql.Connection:
    """Return a bare connection of the driver that both libraries use."""
    return pymysql.connect(
        host=url.host or "127.0.0.1",
        user=url.username,
        password=url.password or "",
        port=url.port or 3306,
        autocommit=False,
        charset="utf8mb4",
    )


def alternate(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each measure; they take turns, so that noise hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    return {name: median(values) for name, values in seconds.items()}
