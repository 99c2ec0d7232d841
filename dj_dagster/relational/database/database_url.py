"""URLs of databases: parsed, shown without their secrets, and split into the driver's options."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from dj_dagster.errors import ConfigurationError

_SECRET = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
"""Options in the query of a URL whose values are secret: ``password``, ``ssl_key_password``."""

MASK = "***"
"""The text that is shown in place of a secret."""

NO_TLS = "ssl_disabled"
"""The option in the query of a URL that declines encryption."""

_TLS = "ssl_"


def parsed_url(text: str | sa.URL, name: str = "This") -> sa.URL:
    """Parse the text of a URL.

    Parameters
    ----------
    name
        The place where the text was set, for the error.

    Raises
    ------
    ConfigurationError
        If it is not a URL. The text is not shown, for it may hold a password.
    """
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{name} is not a database URL. Write sqlite:///path/to/file.sqlite or "
            "mysql+pymysql://user:password@host:port/."
        ) from None


def shown_url(url: sa.URL) -> str:
    """Return a URL for people to read: its password is masked, in its query as well.

    Examples
    --------
    >>> shown_url(sa.make_url("mysql+pymysql://me:secret@db/?passwd=secret"))
    'mysql+pymysql://me:***@db/?passwd=%2A%2A%2A'
    """
    masked = {name: MASK for name in url.query if _SECRET.search(name)}
    return url.update_query_dict(masked).render_as_string(hide_password=True)


def without_secrets(url: sa.URL) -> tuple[sa.URL, dict[str, str]]:
    """Return a URL without the secrets in its query, and the secrets as options of the driver.

    SQLAlchemy masks the password of a URL wherever it shows one, but not secrets in its query.
    """
    secrets = {n: v for n, v in url.query.items() if _SECRET.search(n) and isinstance(v, str)}
    return url.difference_update_query(list(secrets)), secrets


def demands_tls(url: sa.URL) -> bool:
    """Return whether the query of a URL asks for an encrypted connection."""
    return any(name.startswith(_TLS) and name != NO_TLS for name in url.query)


def leaves_tls_open(url: sa.URL) -> bool:
    """Return whether the query of a URL names neither an option of TLS nor a file of options."""
    return not any(name.startswith(("ssl", "read_default")) for name in url.query)
