"""Preferences of a connection: fixed values, or functions that return settings as they are now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast

from dj_dagster.local_files import DOWNLOADS, FOLDER
from dj_dagster.model.job_settings import JobSettings, Provenance
from dj_dagster.objects.blob.format import DEFAULT_LIMITS, ReadLimits
from dj_dagster.relational.database.catalog import Era

T = TypeVar("T")
FetchFormat = Literal["array", "frame"]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Choices of a connection, each a value or a function that is called each time."""

    safemode: bool | Callable[[], bool] = True
    jobs: JobSettings | Callable[[], JobSettings] = field(default_factory=JobSettings)
    download_path: Path | Callable[[], Path] = Path(FOLDER, DOWNLOADS)
    semantic_check: bool | Callable[[], bool] = True
    fetch_format: FetchFormat | Callable[[], FetchFormat] = "array"
    read_limits: ReadLimits | Callable[[], ReadLimits] = DEFAULT_LIMITS
    provenance: Provenance | Callable[[], Provenance] = field(default_factory=Provenance)
    era: Era | Callable[[], Era] = "2.3"


class Preferring:
    """The preferences of a connection, as they are now."""

    _preferences: Preferences

    @property
    def safemode(self) -> bool:
        """Whether `delete` and `drop` ask before they act."""
        return _now(self._preferences.safemode)

    @property
    def semantic_check(self) -> bool:
        """Whether attributes of one name match only if foreign keys relate them."""
        return self.era != "0.14" and _now(self._preferences.semantic_check)

    @property
    def era(self) -> Era:
        """The era of DataJoint of the calling code, where the meaning differs."""
        return _now(self._preferences.era)

    @property
    def job_settings(self) -> JobSettings:
        """The settings for the jobs of computed tables."""
        return _now(self._preferences.jobs)

    @property
    def fetch_format(self) -> FetchFormat:
        """The default format in which the old ``fetch()`` returns whole rows."""
        return _now(self._preferences.fetch_format)

    @property
    def read_limits(self) -> ReadLimits:
        """The limits on reading one packed value."""
        return _now(self._preferences.read_limits)

    @property
    def provenance(self) -> Provenance:
        """The settings for recording and checking the provenance of rows."""
        return _now(self._preferences.provenance)

    @property
    def _download_path(self) -> Path:
        return _now(self._preferences.download_path)


def _now(preference: T | Callable[[], T]) -> T:
    return cast(Callable[[], T], preference)() if callable(preference) else preference


@dataclass(slots=True)
class Display:
    """The settings of previews; DataJoint names them ``display.limit`` and so on.

    Attributes
    ----------
    limit
        Rows that are shown.
    width
        Characters that a value may take in a text preview.
    show_tuple_count
        Whether the number of all rows is counted and shown.
    """

    limit: int = 12
    width: int = 24
    show_tuple_count: bool = True
