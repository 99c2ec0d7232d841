"""Judging in the UI: a button for verdicts, and a check that shows the sortings without one."""

import time
import zlib
from typing import Any

import dagster as dg
from pydantic import Field

from dj_dagster.orchestration import asset_key, decode_key, encode_key
from pipelines.ephys.delivery import NWBFile
from pipelines.ephys.sorting import SpikeSorting
from pipelines.ephys.verdict import judge, waiting
from pipelines.ephys.verdict import judged as judged_sortings

# Dagster reads annotations as objects, so that they are not postponed here.

SORTINGS, FILES = asset_key(SpikeSorting), asset_key(NWBFile)
SHOWN = 50
"""The largest number of sortings that a check names."""

OVER = 2.0
"""Seconds after a materialisation from which a check is later than it for Dagster, too."""


class JudgeConfig(dg.Config):
    """A verdict.

    Attributes
    ----------
    partitions
        Partitions of `spike_sorting`, as the UI spells them.
    where
        A restriction in SQL, instead of partitions: ``paramset_idx = 2``.
    refused_units, accepted_units
        Units with a verdict of their own; none of a rejected sorting can be accepted.
    """

    by: str
    accepted: bool
    reason: str = ""
    partitions: list[str] = Field(default_factory=list)
    where: str = ""
    refused_units: list[int] = Field(default_factory=list)
    accepted_units: list[int] = Field(default_factory=list)


@dg.op(description="Enter a verdict on sortings, in the place of an earlier one.")
def enter_verdict(context: dg.OpExecutionContext, config: JudgeConfig) -> None:
    """Enter a verdict; the sensor then makes the keys that wait for it."""
    attributes = [SpikeSorting().heading.attributes[name] for name in SpikeSorting.primary_key]
    chosen: Any = [decode_key(attributes, partition) for partition in config.partitions]
    if bool(chosen) == bool(config.where):
        raise dg.Failure("Name the sortings, either by partitions or by where.")
    if both := set(config.refused_units) & set(config.accepted_units):
        raise dg.Failure(f"Units {sorted(both)} are both refused and accepted: decide.")
    units = dict.fromkeys(config.refused_units, False) | dict.fromkeys(config.accepted_units, True)
    count = judge(
        chosen or config.where,
        accepted=config.accepted,
        by=config.by,
        reason=config.reason,
        units=units,
    )
    context.log.info(f"{count} sortings {'accepted' if config.accepted else 'rejected'}")


@dg.job(description="Accept or reject sortings: what is downstream waits for accepted ones.")
def judge_sortings() -> None:
    """Enter a verdict."""
    enter_verdict()


def judged_result() -> dg.AssetCheckEvaluation:
    """Return the result of the check that names sortings waiting for a verdict."""
    attributes = [SpikeSorting().heading.attributes[name] for name in SpikeSorting.primary_key]
    keys = [encode_key(attributes, key) for key in waiting().keys(order_by="KEY")]
    text = "\n".join(f"- `{key}`" for key in keys[:SHOWN]) or "None."
    return dg.AssetCheckEvaluation(
        asset_key=SORTINGS,
        check_name="judged",
        passed=not keys,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(keys)} sortings wait for a verdict." if keys else "All are judged.",
        metadata={
            "waiting": len(keys),
            "accepted": len(judged_sortings() & "accepted"),
            "rejected": len(judged_sortings() & "NOT accepted"),
            "sortings": dg.MetadataValue.md(text),
        },
    )


def valid_result() -> dg.AssetCheckEvaluation:
    """Return the result of the check that names files with serious findings."""
    serious = NWBFile.Finding & 'importance IN ("CRITICAL", "ERROR", "PYNWB_VALIDATION")'
    files = len(NWBFile & serious.proj())
    messages = sorted({row["message"] for row in serious.to_dicts()})
    return dg.AssetCheckEvaluation(
        asset_key=FILES,
        check_name="valid",
        passed=not files,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "files": len(NWBFile()),
            "with_serious_findings": files,
            "findings": dg.MetadataValue.md("\n".join(f"- {m}" for m in messages) or "None."),
        },
    )


def _as_result(found: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=found.passed,
        severity=found.severity,
        description=found.description,
        metadata=found.metadata,
    )


@dg.asset_check(asset=SORTINGS, description="Each sorting has a verdict on its units.")
def judged() -> dg.AssetCheckResult:
    """Name the sortings that wait for a verdict."""
    return _as_result(judged_result())


@dg.asset_check(asset=FILES, description="pynwb and nwbinspector find nothing serious.")
def valid() -> dg.AssetCheckResult:
    """Name the serious findings."""
    return _as_result(valid_result())


def _last_mark(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    """Return the time of the last materialisation, and whether it is over for long enough."""
    event = instance.get_latest_materialization_event(key)
    return f"{event.timestamp} {time.time() > event.timestamp + OVER}" if event else ""


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Shows which sortings wait for a verdict, and whether files are valid.",
)
def ask_for_verdicts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Report the checks when their results have changed, or their assets have new keys.

    Dagster shows a check as not evaluated when its asset was materialised after it, or within the
    same second.
    """
    found = [judged_result(), valid_result()]
    marks = [_last_mark(context.instance, one.asset_key) for one in found]
    told = "\n".join(
        f"{one.passed} {one.description} {one.metadata} {mark}"
        for one, mark in zip(found, marks, strict=True)
    )
    digest = f"{zlib.crc32(told.encode()):08x}"
    reason = found[0].description
    if digest == context.cursor:
        return dg.SensorResult(skip_reason=reason, cursor=digest)
    return dg.SensorResult(asset_events=found, skip_reason=reason, cursor=digest)
