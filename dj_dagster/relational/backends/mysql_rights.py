"""The rights of a MySQL or MariaDB user, as the server spells the grants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.rights import Rights

_NAME = r"(`(?:[^`]|``)+`|\*)"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?{_NAME}\.{_NAME} (?:TO|FROM) ")
_PRIVILEGE = re.compile(r"([A-Z][A-Z _]*[A-Z])( \([^)]*\))?(?:, ?|$)")


def rights(connection: SAConnection) -> Rights:
    """Ask for the grants of the user and of the roles in force."""
    literal = _setting(connection, "partial_revokes") == "ON"
    return read_grants(_grants(connection), literal=literal)


def read_grants(grants: Iterable[str], *, literal: bool = False) -> Rights:
    r"""Return the rights that lines of ``SHOW GRANTS`` give; other lines count for nothing.

    Parameters
    ----------
    literal
        Whether ``%`` and ``_`` in a schema's name mean themselves.

    Examples
    --------
    >>> found = read_grants(["GRANT SELECT, INSERT (`a`) ON `lab\\_%`.* TO `me`@`%`"])
    >>> found.shows_tables("lab_x"), found.shows_tables("labs"), found.shows_schemas
    (True, False, False)
    """
    everywhere = set[str]()
    schemas: list[tuple[re.Pattern[str], frozenset[str]]] = []
    tables: dict[TableName, frozenset[str]] = {}
    revoked: dict[str, frozenset[str]] = {}
    for line in grants:
        found = _GRANT.match(line)
        if found is None:
            continue
        given = frozenset(_privileges(found[2]))
        schema, table = (None if name == "*" else _unquoted(name) for name in found.group(3, 4))
        if found[1] == "REVOKE":
            revoked[schema or ""] = given
        elif schema is None:
            everywhere |= given
        elif table is None:
            schemas.append((_pattern(schema, literal=literal), given))
        else:
            name = TableName(schema, table)
            tables[name] = tables.get(name, frozenset()) | given
    return Rights(frozenset(everywhere), tuple(schemas), tables, revoked)


def _grants(connection: SAConnection) -> Iterator[str]:
    role = connection.exec_driver_sql("SELECT CURRENT_ROLE()").scalar()
    maria = getattr(connection.dialect, "is_mariadb", False)
    if maria or role in (None, "NONE"):
        yield from connection.exec_driver_sql("SHOW GRANTS").scalars()
        if role is not None and maria:
            yield from connection.exec_driver_sql("SHOW GRANTS FOR CURRENT_ROLE").scalars()
        return
    # The server quotes the names itself, and per cent signs are placeholders to the driver.
    statement = f"SHOW GRANTS FOR CURRENT_USER() USING {role}".replace("%", "%%")
    yield from connection.exec_driver_sql(statement).scalars()


def _privileges(text: str) -> Iterator[str]:
    """Yield what is granted on a whole table, and not on some of its columns."""
    for name, columns in _PRIVILEGE.findall(text):
        if not columns:
            yield name


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`")


def _pattern(schema: str, *, literal: bool) -> re.Pattern[str]:
    if literal:
        return re.compile(re.escape(schema))
    parts = {"%": ".*", "_": "."}
    tokens = re.findall(r"\\.|.", schema, re.DOTALL)
    return re.compile("".join(parts.get(token) or re.escape(token[-1]) for token in tokens))


def _setting(connection: SAConnection, name: str) -> str | None:
    row = connection.exec_driver_sql("SHOW VARIABLES LIKE %s", (name,)).first()
    return None if row is None else str(row[1])
