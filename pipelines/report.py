"""Ordinary Dagster assets beside the tables, which read and write rows."""

from typing import Any

import dagster as dg
import pandas as pd
from matplotlib.figure import Figure

from dj_dagster.orchestration import figure_metadata
from pipelines.acquisition import subject_rows


@dg.asset(
    key=["lab", "subject"],
    io_manager_key="table_io_manager",
    description="The roster: one subject for each recording, written into the table.",
)
def subject() -> pd.DataFrame:
    """Return the subjects as a frame; the IO manager inserts its rows."""
    return pd.DataFrame(subject_rows())


@dg.asset(
    ins={"heart_rate": dg.AssetIn(key=["lab", "heart_rate"])},
    group_name="reports",
    kinds={"matplotlib"},
)
def heart_rate_report(context: dg.AssetExecutionContext, heart_rate: pd.DataFrame) -> pd.DataFrame:
    """Plot the heart rates of all sessions, and return their mean and spread by filter."""
    if heart_rate.empty:
        raise dg.Failure("lab/heart_rate has no rows yet: record a session, then try again.")
    rates: Any = heart_rate  # pandas' own annotations do not know what a column is
    summary = rates.groupby("filter_id")["bpm"].agg(["count", "mean", "std"])
    context.add_output_metadata(
        {
            "plot": figure_metadata(_plot(heart_rate), "heart rates"),
            "sessions": int(rates["session_id"].nunique()),
            "mean_bpm": float(rates["bpm"].mean()),
        }
    )
    return summary


def _plot(heart_rate: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.4, 3), dpi=80, layout="constrained")
    axes = figure.subplots()
    for number, rows in heart_rate.reset_index().groupby("filter_id"):
        axes.plot(rows["session_id"], rows["bpm"], ".", label=f"filter {number}")
    axes.set(xlabel="session", ylabel="heart rate (beats/min)")
    axes.legend()
    return figure
