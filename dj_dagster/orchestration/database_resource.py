"""The database and its stores as a Dagster resource, for credentials that Dagster keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from dagster import ConfigurableResource, EnvVar
from pydantic import ConfigDict, Field

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores.store import without_account
from dj_dagster.objects.stores.store_settings import PLAIN_SETTINGS
from dj_dagster.objects.stores.stores import Stores
from dj_dagster.relational.backends.common import MASK, parsed_url, shown_url
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.schemas.schema import Schema


class DatabaseResource(ConfigurableResource[Any]):
    """A database and object stores; values may be `dagster.EnvVar`, also those inside `stores`.

    Give passwords as variables: Dagster's UI shows the name of a variable, but other values as
    they are.

    Attributes
    ----------
    url
        A SQLAlchemy URL, as in ``DJ_DATABASE_URL``.
    stores
        Object stores by name, as in DataJoint's settings.
    shared
        Whether all machines that make keys have the file of an embedded database under its path.

    Examples
    --------
    >>> database = DatabaseResource(url="sqlite:///:memory:")
    >>> schema = database.open_schema("lab")
    >>> schema.database
    'lab'

    In assets and ops of yours it is a resource like any other:

    >>> import dagster as dg
    >>> @dg.asset
    ... def subjects(database: DatabaseResource) -> int:
    ...     return len(database.open_schema("lab")["Subject"])
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(description="A SQLAlchemy URL, such as mysql+pymysql://me:secret@host/")
    stores: dict[str, Any] = Field(
        default_factory=dict, description="Object stores by name, as DataJoint spells them"
    )

    shared: bool = Field(
        default=False, description="Whether all machines have the file of an embedded database"
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Yield the values to display: the URL without its password, stores without their keys."""
        yield "url", _shown(self.url)
        yield "stores", {name: _shown(value, name) for name, value in self.stores.items()}

    def connect(self) -> Connection:
        """Return a new connection; the caller closes it, unless definitions go on using it.

        Raises
        ------
        ConfigurationError
            When a variable of the environment is not set, or the URL or a store is invalid.
        """
        url: str = _resolved(self.url, "url")
        stores = Stores(_resolved(self.stores, "stores"))
        return Connection(url, stores=stores, shared=self.shared)

    def open_schema(self, name: str, **options: Any) -> Schema:
        """Return a schema over a connection of its own; `options` are those of `Schema`.

        ``schema["Session"]`` is a table of it, and ``@schema`` declares one.

        Raises
        ------
        ConfigurationError
            See `connect`.
        """
        return Schema(name, connection=self.connect(), **options)


def _shown(value: object, name: str = "url") -> object:
    """Return a value for people to read: names of variables as they are, secrets masked."""
    if isinstance(value, EnvVar):
        return value
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return {str(key): _shown(each, str(key)) for key, each in fields.items()}
    if isinstance(value, list):
        return [_shown(each, name) for each in cast("list[object]", value)]
    if not isinstance(value, str):
        return value
    if name == "url":
        try:
            return shown_url(parsed_url(value))
        except ConfigurationError:
            return MASK
    return MASK if name not in PLAIN_SETTINGS else without_account(value)


def _resolved(value: Any, place: str) -> Any:
    """Return settings in which the names of variables are replaced by their values."""
    if isinstance(value, EnvVar):
        found = value.get_value()
        if found is None:
            raise ConfigurationError(
                f"DatabaseResource.{place} is the variable {value.env_var_name} of the "
                "environment, which is not set"
            )
        return found
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        # In the config of a run, Dagster writes a variable as ``{"env": name}``.
        if set(fields) == {"env"}:
            return _resolved(EnvVar(str(fields["env"])), place)
        return {name: _resolved(each, f"{place}.{name}") for name, each in fields.items()}
    if isinstance(value, list):
        return [_resolved(each, place) for each in cast("list[object]", value)]
    return value
