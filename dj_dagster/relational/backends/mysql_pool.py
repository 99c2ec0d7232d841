"""Connections of the pool: closed ones are found before use, unencrypted ones refused."""

from __future__ import annotations

import select
import ssl
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from dj_dagster.errors import ConnectionFailedError

IDLE = 5.0
"""Seconds after which a connection is asked for an answer before it is used again."""


def watch(engine: sa.Engine) -> None:
    """Replace closed connections as they are taken from the pool.

    Asking the server each time would double the time of each query; a closed socket shows by
    itself, unless a network in between has swallowed the news.
    """
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _check)


def share_tls_context(engine: sa.Engine) -> None:
    """Encrypt where the server can, with one context for all connections.

    PyMySQL makes a context for each, into which it reads the system's certificates, which it does
    not check: 20 ms of CPU a connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def connect(dialect: Any, record: object, args: Any, options: dict[str, Any]) -> Any:
        del record
        options = {**options, "ssl_disabled": True, "defer_connect": True}
        connection = dialect.loaded_dbapi.connect(*args, **options)
        connection.ssl, connection.ctx = True, context
        connection.connect()
        return connection

    event.listen(engine, "do_connect", connect)


def refuse_plain_text(engine: sa.Engine) -> None:
    """Refuse each new connection that is not encrypted.

    PyMySQL before 1.2 goes on in plain text where a server offers no TLS.
    """
    event.listen(engine, "connect", _check_tls)


def _check_tls(connection: Any, record: object) -> None:
    del record
    with connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        found = cursor.fetchone()
    if not found or not found[1]:
        connection.close()
        raise ConnectionFailedError(
            f"The connection to {connection.host}:{connection.port} is not encrypted, although "
            "use_tls asks for TLS: the server offers none. Switch it on there, or set "
            "database.use_tls (DJ_USE_TLS) to False."
        )


def _note_use(connection: Any, record: Any) -> None:
    del connection
    record.info["used"] = time.monotonic()


def _check(connection: Any, record: Any, proxy: object) -> None:
    del proxy
    used = record.info.get("used")
    if used is None:
        return
    is_idle = time.monotonic() - used > IDLE
    if is_closed(connection) or (is_idle and not _answers(connection)):
        raise DisconnectionError("closed by the server")


def is_closed(connection: Any) -> bool:
    """Whether a driver's socket has something to read although nothing was asked: its end."""
    socket = connection._sock
    if socket is None:
        return True
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    if not poll.poll(0):
        return False
    # TLS sends messages of its own, which the answer to a question comes behind.
    return not isinstance(socket, ssl.SSLSocket) or not _answers(connection)


def _answers(connection: Any) -> bool:
    try:
        connection.ping(reconnect=False)
    except Exception:
        return False
    return True
