"""Pictures of all sessions together, for the pages of whole tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.ephys.paramset import ParamSet
from pipelines.ephys.quality import GOOD_ACCURACY, GroundTruthComparison
from pipelines.ephys.sorting import SpikeSorting
from pipelines.ephys.verdict import judged, waiting

VERDICTS = {"accepted": "tab:green", "rejected": "tab:red", "waiting": "tab:gray"}


def accuracy_by_sorter() -> Figure:
    """Draw the part of the true neurons that each parameter set found, and their mean accuracy."""
    rows = ParamSet.aggr(
        GroundTruthComparison.Neuron,
        "sorter",
        neurons="COUNT(neuron)",
        found=f"SUM(accuracy >= {GOOD_ACCURACY})",
        mean="AVG(accuracy)",
        exclude_nonmatching=True,
    ).to_dicts(order_by="paramset_idx")
    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    found = [float(row["found"]) / row["neurons"] for row in rows]
    axes.bar(places - 0.2, found, 0.4, label=f"found (accuracy ≥ {GOOD_ACCURACY})")
    axes.bar(places + 0.2, [float(row["mean"]) for row in rows], 0.4, label="mean accuracy")
    labels = [f"{_title(row)}\n{row['neurons']} neurons" for row in rows]
    axes.set_xticks(places, labels)
    axes.set(ylim=(0, 1.25))
    axes.legend(loc="upper center", ncols=2, frameon=False)
    return figure


def verdict_counts() -> dict[str, dict[str, int]]:
    """Return the numbers of accepted, rejected and waiting sortings, by parameter set."""
    sortings = {
        "accepted": judged() & "accepted",
        "rejected": judged() & "NOT accepted",
        "waiting": waiting(),
    }
    found: dict[str, dict[str, int]] = {}
    for row in (ParamSet & SpikeSorting).to_dicts(order_by="KEY"):
        own = {"paramset_idx": row["paramset_idx"]}
        found[_title(row)] = {name: len(query & own) for name, query in sortings.items()}
    return found


def verdicts() -> Figure:
    """Draw the numbers of accepted, rejected and waiting sortings, by parameter set."""
    counts = verdict_counts()
    figure = Figure(figsize=(6, 1 + 0.4 * len(counts)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(counts))
    for name, colour in VERDICTS.items():
        widths = np.array([row[name] for row in counts.values()])
        axes.barh(list(counts), widths, left=left, color=colour, label=name)
        left = left + widths
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="sortings")
    figure.legend(loc="outside upper center", ncols=len(VERDICTS), frameon=False)
    return figure


def _title(row: dict[str, Any]) -> str:
    return f"{row['paramset_idx']} {row['sorter']}"
