"""The settings of object stores, as DataJoint spells them, checked as they are read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from dj_dagster.errors import ConfigurationError

PLAIN_SETTINGS = frozenset(
    {
        *("default", "filepath_default", "protocol", "endpoint", "bucket", "container"),
        *("location", "subfolding", "partition_pattern", "hash_prefix", "schema_prefix"),
        *("filepath_prefix", "proxy_server", "project", "account_name", "stage"),
    }
)
"""Settings of stores that are not secret; any others, such as adapters' own, may be."""

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|connection_string", re.IGNORECASE)
_SECRET_URL = re.compile(r"://[^/]*@|://.*\?")
"""An account in a URL, or a query that may hold one."""

T = TypeVar("T")


class SecretText(str):
    """A text that `repr` masks, alone or in a dict or list; `str` and formats show it.

    Examples
    --------
    >>> {"password": SecretText("sesame")}, f"{SecretText('sesame')}"
    ({'password': '***'}, 'sesame')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def with_hidden_secrets(name: str, value: T, *, in_store: bool = False) -> T:
    """Return a setting with its secret texts as `SecretText`; dicts and lists stay the same object.

    Parameters
    ----------
    in_store
        Whether the setting belongs to a store, where all texts but those named in `PLAIN_SETTINGS`
        are secret.

    Examples
    --------
    >>> with_hidden_secrets("custom", {"user": "ada", "api_key": "sesame"})
    {'user': 'ada', 'api_key': '***'}
    """
    if isinstance(value, SecretText):
        return value
    if isinstance(value, str):
        is_secret = name not in PLAIN_SETTINGS if in_store else bool(_SECRET_NAME.search(name))
        is_secret = is_secret or bool(_SECRET_URL.search(value))
        return cast("T", SecretText(value)) if is_secret else value
    if isinstance(value, dict):
        fields = cast("dict[Any, Any]", value)
        for key, inner in list(fields.items()):
            hidden = with_hidden_secrets(str(key), inner, in_store=in_store)
            if hidden is not inner:
                fields[key] = hidden
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        items[:] = [with_hidden_secrets(name, inner, in_store=in_store) for inner in items]
    return value


def _at_home(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{folder!r} is in the home of a user who is not there: write its path"
        ) from None


class StoreSettings(BaseModel):
    """The settings that all stores have.

    Attributes
    ----------
    location
        The folder that holds everything; for a bucket, the path of a folder in it.
    subfolding
        Lengths of the folder names made of the first letters of a hash, to keep folders small:
        ``[2, 2]`` puts ``abcdef…`` into ``ab/cd/abcdef…``.
    partition_pattern
        Key attributes that come first in the path of an object named by its row,
        ``"{subject_id}/{session_id}"``.
    token_length
        Random characters that end the name of an object named by its row; less than 4 means 4,
        more than 16 means 16.
    hash_prefix
        Folder below `location` for objects named by their content.
    schema_prefix
        Folder below `location` for objects named by their row.
    filepath_prefix
        Folder below `location` for files that users put there themselves. The three folders must
        not overlap.
    stage
        A local folder from which files of ``<filepath@>`` go into the store and into which they are
        copied, where a schema has the layout of DataJoint 0.14.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, str_strip_whitespace=True
    )

    location: str
    subfolding: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    partition_pattern: str | None = None
    token_length: Annotated[int, AfterValidator(lambda length: min(max(length, 4), 16))] = 8
    hash_prefix: str = "_hash"
    schema_prefix: str = "_schema"
    filepath_prefix: str | None = None
    stage: str | None = None

    @field_validator("stage")
    @classmethod
    def _stage_at_home(cls, stage: str | None) -> str | None:
        return str(_at_home(stage)) if stage else None

    @model_validator(mode="after")
    def _prefixes_apart(self) -> Self:
        names = ("hash_prefix", "schema_prefix", "filepath_prefix")
        folders = {name: f"{value.strip('/')}/" for name in names if (value := getattr(self, name))}
        for name, folder in folders.items():
            for other, other_folder in folders.items():
                if name != other and folder.startswith(other_folder):
                    raise ValueError(
                        f"{name} lies within {other}: they overlap, and must be mutually "
                        "exclusive; choose separate folders"
                    )
        return self


class FileStoreSettings(StoreSettings):
    """A folder of this machine, or one that is mounted on it.

    Attributes
    ----------
    location
        The folder. A relative one in a file of settings is below the folder of that file; any other
        is below the working directory of the moment at which the settings are read, and stays there
        when a program changes its directory later.
    shared
        Whether all machines that work with the store have the folder under this path.
    """

    protocol: Literal["file"]
    location: Annotated[str, Field(min_length=1)]
    shared: bool = False

    @field_validator("location")
    @classmethod
    def _absolute(cls, location: str) -> str:
        return str(_at_home(location).absolute())


class S3StoreSettings(StoreSettings):
    """A bucket of Amazon S3 or of any server that speaks its protocol.

    Attributes
    ----------
    endpoint
        Host and port, ``"s3.amazonaws.com"`` or ``"localhost:9000"``, or a whole URL.
    access_key
        The name of the key; without it the client looks where Amazon's tools do: environment,
        profile, machine role.
    secret_key
        The secret part of the key.
    secure
        Whether an `endpoint` without ``http://`` or ``https://`` is reached by https.
    proxy_server
        URL of an HTTP proxy.
    """

    protocol: Literal["s3"]
    endpoint: Annotated[str, Field(min_length=1)]
    bucket: Annotated[str, Field(min_length=3)]
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    secure: bool = True
    proxy_server: str | None = None

    @property
    def endpoint_url(self) -> str:
        """The address of the server as a URL."""
        if "://" in self.endpoint:
            return self.endpoint
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


class GcsStoreSettings(StoreSettings):
    """A bucket of Google Cloud Storage.

    Attributes
    ----------
    token
        A token as gcsfs takes it, most often the path of a service account's JSON file; without it
        the client looks where Google's tools do.
    project
        The project that the bucket belongs to.
    """

    protocol: Literal["gcs"]
    bucket: Annotated[str, Field(min_length=3)]
    token: SecretStr | None = None
    project: str | None = None


class AzureStoreSettings(StoreSettings):
    """A container of Azure Blob Storage.

    Attributes
    ----------
    account_name
        The storage account.
    account_key
        Its key; without one the client looks where Azure's tools do.
    connection_string
        A text that replaces both name and key.
    """

    protocol: Literal["azure"]
    container: Annotated[str, Field(min_length=3)]
    account_name: str | None = None
    account_key: SecretStr | None = None
    connection_string: SecretStr | None = None


AnyStoreSettings = FileStoreSettings | S3StoreSettings | GcsStoreSettings | AzureStoreSettings

M = TypeVar("M", bound=StoreSettings)

_MODELS: dict[str, type[AnyStoreSettings]] = {
    "file": FileStoreSettings,
    "s3": S3StoreSettings,
    "gcs": GcsStoreSettings,
    "azure": AzureStoreSettings,
}

PROTOCOLS = frozenset(_MODELS)
"""Protocols that work without an adapter; see `dj_dagster.objects.stores.stores` for others."""


def read_store_settings(name: str, settings: object) -> AnyStoreSettings:
    """Check the settings of one store.

    Raises
    ------
    ConfigurationError
        Naming the store and each setting that is missing, unknown or wrong, never their values.
    """
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f"Store '{name}': its settings must be a mapping such as "
            '{"protocol": "file", "location": "/data"}.'
        )
    protocol = settings.get("protocol", "missing")
    model = _MODELS.get(str(protocol))
    if model is None:
        raise ConfigurationError(
            f"Store '{name}': protocol '{protocol}' is not available; use one of "
            f"{', '.join(_MODELS)}. Install a plugin for others, or subclass dj.StorageAdapter."
        )
    return checked_settings(name, plain_paths(settings), model)


def plain_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with paths as texts."""
    return {
        key: os.fspath(value) if isinstance(value, os.PathLike) else value
        for key, value in settings.items()
    }


def checked_settings(name: str, given: dict[str, Any], model: type[M]) -> M:
    """Return the settings of a store as its model has them.

    Raises
    ------
    ConfigurationError
        As `read_store_settings` does.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [_fault(fault, model) for fault in error.errors(include_input=False)]
    # Outside of the except block: pydantic's error would show the values, secrets among them.
    raise ConfigurationError(f"Store '{name}': {'; '.join(faults)}.")


def _fault(fault: ErrorDetails, model: type[StoreSettings]) -> str:
    setting = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"the setting '{setting}' is missing"
    if fault["type"] == "extra_forbidden":
        return f"'{setting}' is not a setting; known are {', '.join(sorted(model.model_fields))}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"the setting '{setting}': {message}" if setting else message
