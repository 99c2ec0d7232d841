"""SpikeInterface, loaded so that new processes are quick and equal inputs give equal results.

Its compiled functions are cached on disk, which saves each new process 20 to 50 s. It is imported
only when it is first used: without the extra ``ephys`` the tables can still be declared and
displayed, and their rows be read.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dj_dagster.errors import ConfigurationError

EXTRA = "ephys"

_COMPILED = (
    "spikeinterface.full",
    "spikeinterface.generation",
    "spikeinterface.sortingcomponents.clustering.isosplit_isocut",
    "spikeinterface.sortingcomponents.clustering.itersplit_tools",
    "spikeinterface.sortingcomponents.matching.tdc_peeler",
    "spikeinterface.sortingcomponents.peak_detection.locally_exclusive",
    "spikeinterface.sortingcomponents.peak_detection.matched_filtering",
)
"""Modules to import while numba is set to cache: they have functions that it compiles."""


def needed(module: str, extra: str = EXTRA) -> Any:
    """Return a module that an extra of dj-dagster installs.

    Raises
    ------
    ConfigurationError
        If the module, or one that it needs, is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The ephys pipeline needs the package {error.name}: "
            f"pip install 'dj-dagster[{extra}]', or uv run --extra {extra}."
        ) from error


@cache
def spikeinterface() -> Any:
    """Return SpikeInterface with all of its names, set to work in this process alone.

    A pool of processes, the default for large recordings, cannot be opened in workers of Dagster,
    and gives different results in each run.
    """
    os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_folder()))
    numba = needed("numba")
    with _cached_compilation(numba):
        si, *_ = [needed(module) for module in _COMPILED]
    si.set_global_job_kwargs(n_jobs=1, chunk_duration="1s", progress_bar=False)
    # It warns about short recordings at each step; their results are in the tables.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"spikeinterface\.")
    # It collects garbage after each chunk, in half the time if lasting objects are left out.
    gc.collect()
    gc.freeze()
    return si


@contextmanager
def repeatable(base: int = 0) -> Generator[None]:
    """Make results inside the block depend only on their input and on `base`, a seed.

    Otherwise sorters draw from generators without a seed, and sums over several threads differ in
    their last digits each time. Generators and threads are as before after the block.
    """
    threadpoolctl = needed("threadpoolctl")
    make_rng, state = np.random.default_rng, np.random.get_state()

    # Callers give the seed by its name.
    def seeded(seed: Any = None) -> np.random.Generator:
        return make_rng(base if seed is None else seed)

    np.random.seed(base)
    np.random.default_rng = seeded
    try:
        with threadpoolctl.threadpool_limits(limits=1):
            yield
    finally:
        np.random.default_rng = make_rng
        np.random.set_state(state)


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "dj_dagster" / "numba"


@contextmanager
def _cached_compilation(numba: Any) -> Generator[None]:
    """Cache the compiled code of functions that are decorated inside the block on disk."""
    jit, njit = numba.jit, numba.njit
    numba.jit, numba.njit = _caching(jit), _caching(njit)
    try:
        yield
    finally:
        numba.jit, numba.njit = jit, njit


def _caching(decorator: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(decorator)
    def cached(*args: Any, **options: Any) -> Any:
        return decorator(*args, **{**options, "cache": True})

    return cached
