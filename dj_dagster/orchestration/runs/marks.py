"""Marks of partitions as Dagster's events, and batches of them as the text that Dagster stores.

Dagster serialises an event in about 0.1 ms, and most of the text is alike in all marks of a table
or says that something is not there. Here one event of a batch is serialised by Dagster, without
what its reading fills in, and what varies is filled into its text for the others.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterEvent,
    DagsterEventType,
    EventLogEntry,
    MarkdownMetadataValue,
    TextMetadataValue,
)

from dj_dagster.orchestration._dagster import (
    RUNLESS_JOB_NAME,
    RUNLESS_RUN_ID,
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
    deserialize_value,
    serialize_value,
)

MADE, PLANNED, NOTED = range(3)
"""Kinds of marks."""


@dataclass(frozen=True)
class Origin:
    """The step that a mark belongs to; by default it is outside of runs, as for entered rows."""

    run_id: str = RUNLESS_RUN_ID
    job_name: str = RUNLESS_JOB_NAME
    step_key: str | None = None


OUTSIDE = Origin()
"""The origin of marks outside of runs."""


@dataclass(frozen=True)
class Mark:
    """One line of the event log: a table's partition has its rows, or is `planned` to have them.

    Dagster shows a partition as failed when its last plan is from a failed run and a
    materialisation does not follow. `partition` is None for tables without partitions.

    Attributes
    ----------
    again
        Whether the rows were there and marked before, so that the mark only repeats this.
    tags
        Dagster's tags of versions, see `Provenance`.
    note
        A text for the partition's page. The mark is then an observation in Dagster's terms, and
        does not tell of rows.
    time
        The time of the mark; written marks of a table differ in it by a millisecond at least.
    """

    key: AssetKey
    partition: str | None
    metadata: Mapping[str, Any] | None = None
    planned: bool = False
    again: bool = False
    tags: Mapping[str, str] | None = None
    note: str | None = None
    time: float = field(default_factory=time.time, compare=False)

    @property
    def kind(self) -> int:
        """`MADE` for rows that are there, `PLANNED` or `NOTED`."""
        return NOTED if self.note is not None else int(self.planned)


@dataclass(frozen=True)
class Batch:
    """Marks of one table, one kind and one step, in the order in which they are to be read.

    Attributes
    ----------
    times
        The times of the marks, in seconds.
    """

    marks: Sequence[Mark]
    times: Sequence[float]
    origin: Origin

    @property
    def key(self) -> AssetKey:
        """The table."""
        return self.marks[0].key

    @property
    def event_type(self) -> DagsterEventType:
        """The type of the events in Dagster."""
        return _TYPES[self.marks[0].kind]

    @property
    def last(self) -> EventLogEntry:
        """The last event."""
        return _entry(self.marks[-1], self.origin, self.times[-1])

    def entries(self) -> list[EventLogEntry]:
        """Return Dagster's own events."""
        timed = zip(self.marks, self.times, strict=True)
        return [_entry(mark, self.origin, at) for mark, at in timed]

    def texts(self) -> list[str]:
        """Return the texts of the events, which Dagster reads as `entries`."""
        templates: dict[tuple[bool, bool, bool], _Template | None] = {}
        found: list[str] = []
        for mark, at in zip(self.marks, self.times, strict=True):
            shape = (mark.partition is None, mark.tags is None, not mark.metadata)
            if shape not in templates:
                templates[shape] = _template(mark, self.origin, at)
            template = templates[shape]
            found.append(
                serialize_value(_entry(mark, self.origin, at))
                if template is None
                else template.filled(mark, at)
            )
        return found


def _entry(mark: Mark, origin: Origin, timestamp: float) -> EventLogEntry:
    event_type = _TYPES[mark.kind]
    data, message = _EVENTS[mark.kind](mark)
    return EventLogEntry(
        error_info=None,
        level=logging.INFO if mark.planned else logging.DEBUG,
        user_message="",
        run_id=origin.run_id,
        timestamp=timestamp,
        step_key=origin.step_key,
        job_name=origin.job_name,
        dagster_event=DagsterEvent(
            event_type_value=event_type.value,
            job_name=origin.job_name,
            step_key=origin.step_key,
            event_specific_data=data,
            message=message,
        ),
    )


def _materialized(mark: Mark) -> tuple[StepMaterializationData, str]:
    materialization = AssetMaterialization(
        mark.key, partition=mark.partition, metadata=mark.metadata, tags=mark.tags
    )
    return StepMaterializationData(materialization), f"Rows of {_title(mark)}"


def _planned(mark: Mark) -> tuple[AssetMaterializationPlannedData, str]:
    data = AssetMaterializationPlannedData(mark.key, partition=mark.partition)
    return data, f"Rows of {_title(mark)} are to come"


def _noted(mark: Mark) -> tuple[AssetObservationData, str]:
    observation = AssetObservation(
        mark.key,
        description=mark.note,
        partition=mark.partition,
        metadata=mark.metadata,
        tags=mark.tags,
    )
    return AssetObservationData(observation), f"{_title(mark)}: {mark.note}"


def _title(mark: Mark) -> str:
    # Dagster shows the table beside the message.
    return mark.key.to_user_string() if mark.partition is None else mark.partition


_EVENTS = (_materialized, _planned, _noted)
"""The functions that make an event's data and message of a mark, by its `kind`."""

_TYPES = (
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
)
"""The types of the events, by the `kind` of the mark."""

# Places in a template. Text does not have these characters, which Unicode leaves to programs.
_PARTITION, _NOTE, _TIME, _METADATA, _TAGS, _VALUE = map(chr, range(0xFDD0, 0xFDD6))

_NEEDED = ("error_info",)
"""Fields that Dagster does not fill in when it reads an event without them."""

_PLAIN = (int, float, str)

_TEXTS = (TextMetadataValue, MarkdownMetadataValue)
"""Dagster's metadata that are a text each."""


class _Template:
    """The text of an event in which a mark's own values are filled in."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        text = _dumps(event).replace("%", "%%")
        # Texts stand inside of the quotes of others, and other values in place of a text.
        for place, name in ((_PARTITION, "partition"), (_NOTE, "note")):
            text = text.replace(_inside(place), f"%({name})s")
        for place, name in ((_TIME, "time"), (_METADATA, "metadata"), (_TAGS, "tags")):
            text = text.replace(json.dumps(place), f"%({name})s")
        self._text = text
        self._metadata: dict[tuple[str, type], str] = {}
        self._tags: dict[tuple[tuple[str, str], ...], str] = {}

    def filled(self, mark: Mark, at: float) -> str:
        """Return the text of a mark's event."""
        return self._text % {
            "partition": _inside(mark.partition or ""),
            "note": _inside(mark.note or ""),
            "time": repr(at),
            "metadata": self._entries(mark.metadata or {}),
            "tags": self._tagging(mark.tags or {}),
        }

    def _entries(self, metadata: Mapping[str, Any]) -> str:
        return ",".join([self._entry(label, value) for label, value in metadata.items()])

    def _entry(self, label: str, value: Any) -> str:
        kind = type(value)
        if kind not in _PLAIN and kind not in _TEXTS:
            return _dumps(_packed(label, value))
        pattern = self._metadata.get((label, kind))
        if pattern is None:
            pattern = self._metadata[label, kind] = _pattern(label, value)
        return pattern % json.dumps(value if kind in _PLAIN else value.value)

    def _tagging(self, tags: Mapping[str, str]) -> str:
        given = tuple(tags.items())
        found = self._tags.get(given)
        if found is None:
            found = self._tags[given] = _dumps(tags)
        return found


def _template(mark: Mark, origin: Origin, at: float) -> _Template | None:
    """Return a template for marks like this one, or None if Dagster would not read it alike."""
    sample = replace(
        mark,
        partition=None if mark.partition is None else _PARTITION,
        note=None if mark.note is None else _NOTE,
        metadata=None,
    )
    packed = _shortened(json.loads(serialize_value(_entry(sample, origin, at))))
    packed["timestamp"] = _TIME
    # Older releases of Dagster wrote this field, and none reads it.
    packed.pop("message", None)
    data = packed["dagster_event"]["event_specific_data"]
    event = data.get("materialization") or data.get("asset_observation")
    if event is not None and mark.metadata:
        event["metadata_entries"] = [_METADATA]
    if event is not None and mark.tags is not None:
        event["tags"] = _TAGS
    template = _Template(packed)
    try:
        read = deserialize_value(template.filled(mark, at), EventLogEntry)
    except Exception:
        # Another release of Dagster may need a field that was left out; its own text is right.
        return None
    return template if read == _entry(mark, origin, at) else None


def _shortened(packed: Any) -> Any:
    """Return what Dagster packs, without the fields that are empty."""
    if isinstance(packed, list):
        return [_shortened(each) for each in packed]
    if not isinstance(packed, dict):
        return packed
    return {
        name: _shortened(value)
        for name, value in packed.items()
        if name in _NEEDED or value not in (None, [], {})
    }


def _packed(label: str, value: Any) -> dict[str, Any]:
    """Return one entry of metadata as Dagster packs it."""
    holder = AssetMaterialization("any", metadata={label: value})
    (entry,) = json.loads(serialize_value(holder))["metadata_entries"]
    return {name: each for name, each in entry.items() if name != "description"}


def _pattern(label: str, value: Any) -> str:
    """Return an entry of metadata with a place for a value of the same type."""
    entry = _packed(label, value)
    entry["entry_data"] = {
        name: each if name == "__class__" else _VALUE for name, each in entry["entry_data"].items()
    }
    return _dumps(entry).replace("%", "%%").replace(json.dumps(_VALUE), "%s")


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _inside(text: str) -> str:
    """Return a text as it is written between the quotes of JSON."""
    return json.dumps(text)[1:-1]
