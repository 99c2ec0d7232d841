"""The kinds of object stores beside a local folder that tests can run on."""

from __future__ import annotations

from tests.services import azure

# Azurite comes from npm and not from PyPI: it is tried where somebody has installed it.
CLOUDS = ["s3", "gcs", *(["azure"] if azure.is_installed() else [])]
"""Of each there is a fixture ``{name}_store_settings``."""
