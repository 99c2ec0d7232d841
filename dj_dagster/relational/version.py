"""The version of the code that computes."""

from __future__ import annotations

import subprocess

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.job_settings import JobSettings


def code_version(settings: JobSettings) -> str:
    """Return the version that jobs and rows are marked with, ``""`` for none.

    With ``"git"`` it is the short hash of the commit that is checked out in the working directory.

    Raises
    ------
    ConfigurationError
        If the setting `version_method` is none that is known.
    """
    if settings.version_method in (None, "none"):
        return ""
    if settings.version_method != "git":
        raise ConfigurationError(
            f"jobs.version_method is {settings.version_method!r}: write 'git', 'none' or None."
        )
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()[:64] if found.returncode == 0 else ""
