"""The definitions for `dagster dev`: the lab's tables, the report, the acquisition button."""

from __future__ import annotations

from dj_dagster.orchestration import build_definitions
from pipelines import lab
from pipelines.acquisition import record_session
from pipelines.report import heart_rate_report, subject

defs = build_definitions(
    [lab.schema],
    assets=[subject, heart_rate_report],
    jobs=[record_session],
)
