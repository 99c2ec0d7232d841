"""All modules of packages, imported one by one: ``python -m … PACKAGE…``."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.pipelines.client import connect, import_all, modules_in


def _stand_in_for_one() -> None:
    """Let IBL's modules log in to nothing, as they do when they are imported."""
    if find_spec("oneibl") is not None:
        one: Any = importlib.import_module("oneibl.one")
        one.ONE = lambda *arguments, **options: SimpleNamespace()


def main(packages: list[str]) -> None:
    """Import all that there is."""
    data = Path(os.environ["PIPELINE_FOLDER"])
    custom = {"database.prefix": "wf_", "ephys_root_data_dir": str(data)}
    connect(custom={**custom, "imaging_root_data_dir": str(data)})
    _stand_in_for_one()
    for package in packages:
        spec = find_spec(package)
        if spec is None:
            sys.exit(f"{package} is not installed")
        folder = Path(next(iter(spec.submodule_search_locations or ())))
        import_all(modules_in(folder, package))


if __name__ == "__main__":
    main(sys.argv[1:])
