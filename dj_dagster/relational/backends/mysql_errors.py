"""The errors of MySQL and MariaDB in our words."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from dj_dagster.errors import (
    AccessError,
    ConnectionFailedError,
    DataJointError,
    DuplicateError,
    IntegrityError,
    InvalidValueError,
    LostConnectionError,
    MissingAttributeError,
    MissingTableError,
    QueryError,
    QuerySyntaxError,
    TransientError,
    UnknownAttributeError,
)

_PACKET_TOO_LARGE = 1153
_ERRORS: dict[int, type[DataJointError]] = {
    1044: AccessError,
    1045: AccessError,
    1142: AccessError,
    1143: AccessError,
    1370: AccessError,
    1040: ConnectionFailedError,
    1203: ConnectionFailedError,
    1048: MissingAttributeError,
    1364: MissingAttributeError,
    1054: UnknownAttributeError,
    1062: DuplicateError,
    1064: QuerySyntaxError,
    1146: MissingTableError,
    1205: TransientError,
    1213: TransientError,
    1412: TransientError,
    1216: IntegrityError,
    1217: IntegrityError,
    1451: IntegrityError,
    1452: IntegrityError,
    1264: InvalidValueError,
    1265: InvalidValueError,
    1292: InvalidValueError,
    1366: InvalidValueError,
    1406: InvalidValueError,
    1690: InvalidValueError,
    4025: InvalidValueError,
    2002: ConnectionFailedError,
    2003: ConnectionFailedError,
    2005: ConnectionFailedError,
    0: LostConnectionError,
    1053: LostConnectionError,
    1927: LostConnectionError,
    2006: LostConnectionError,
    2013: LostConnectionError,
    4031: LostConnectionError,
}


def translate(error: DBAPIError) -> DataJointError | None:
    """Return our error for a driver's, by the server's number; None for one without."""
    cause = error.orig
    number = cause.args[0] if cause is not None and cause.args else None
    if not isinstance(number, int):
        return None
    if number == _PACKET_TOO_LARGE:
        return InvalidValueError(
            "A row is larger than the server takes: keep large objects in a store, as "
            f"<blob@>, or raise the server's max_allowed_packet ({number})"
        )
    text = str(cause.args[1]) if cause is not None and len(cause.args) > 1 else ""
    text = text or "the connection was closed"
    return _ERRORS.get(number, QueryError)(f"{text} ({number})")
