"""From settings to stores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from dj_dagster.local_files import STORE, embedded_folder
from dj_dagster.objects.stores.stores import Stores


def embedded_store() -> dict[str, Any]:
    """Return the settings of the default store, a folder beside the embedded database."""
    local = {"protocol": "file", "location": str(embedded_folder() / STORE)}
    return {"default": "local", "local": local}


class FollowingStores(Stores):
    """Stores that are looked up again when their settings have changed."""

    def __init__(self, source: Callable[[], dict[str, Any]]) -> None:
        self._source = source
        seen = copy.deepcopy(source())
        super().__init__(seen)
        # Not before: settings that are refused are to be refused each time.
        self._seen = seen

    @property
    def names(self) -> list[str]:
        """Do as `Stores` does, with the settings as they are now."""
        self._follow()
        return super().names

    def resolve(self, name: str | None = None, default: str = "default") -> str:
        """Do as `Stores` does, with the settings as they are now."""
        self._follow()
        return super().resolve(name, default)

    def __contains__(self, name: object) -> bool:
        self._follow()
        return super().__contains__(name)

    def _follow(self) -> None:
        if self._source() != self._seen:
            self.__init__(self._source)
