"""Settings, from the environment and from a `datajoint.json` file.

==================  ===============================================================================
environment         meaning
==================  ===============================================================================
``DJ_DATABASE_URL`` a SQLAlchemy URL; ``sqlite:///.dj/lab.sqlite`` without it and without a host
``DJ_HOST`` …       ``DJ_HOST``, ``DJ_PORT``, ``DJ_USER``, ``DJ_PASS``: a MySQL server, as DataJoint
``DJ_STORES``       the stores as JSON, spelled as in ``datajoint.json``
``DJ_SAFEMODE``     whether deleting asks first
==================  ===============================================================================

The file is looked for in the working directory and in those above it; the environment wins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy.exc import ArgumentError

from dj_dagster.errors import ConfigurationError
from dj_dagster.objects.stores import Stores
from dj_dagster.relational.connection import Connection

FILE_NAME = "datajoint.json"
FOLDER = ".dj"
"""Where the embedded defaults live, below the working directory."""


def _from(name: str, default: Any = None) -> Any:
    return Field(default=default, validation_alias=name)


class Config(BaseSettings):
    """The settings; attributes, or items by DataJoint's dotted names (``config["database.host"]``).

    Attributes
    ----------
    stores
        By name, as DataJoint spells them. A store `local` in the folder ``.dj/store`` is always
        there, and is the default unless another is named.
    """

    model_config = SettingsConfigDict(
        validate_assignment=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = _from("DJ_DATABASE_URL")
    database_host: str | None = _from("DJ_HOST")
    database_port: int | None = _from("DJ_PORT")
    database_user: str | None = _from("DJ_USER")
    database_password: SecretStr | None = _from("DJ_PASS")
    safemode: bool = _from("DJ_SAFEMODE", default=True)
    stores: dict[str, Any] = Field(default_factory=dict, validation_alias="DJ_STORES", repr=False)

    @classmethod
    def load(cls) -> Config:
        """Read the settings.

        Raises
        ------
        ConfigurationError
            If one cannot be used; the message names it.
        """
        try:
            return cls()
        except ValidationError as error:
            raise _refused(error) from None
        except SettingsError as error:
            raise ConfigurationError(f"Settings: {error}; write valid JSON.") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the environment before the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _JsonFile(settings_cls)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, self._field(name))

    def __setitem__(self, name: str, value: Any) -> None:
        try:
            setattr(self, self._field(name), value)
        except ValidationError as error:
            raise _refused(error) from None

    def url(self) -> sa.URL:
        """Return the database URL, its password in it."""
        if self.database_url is not None:
            return _parsed_url(self.database_url.get_secret_value())
        if self.database_host is not None:
            password = self.database_password
            return sa.URL.create(
                "mysql+pymysql",
                username=self.database_user,
                password=password.get_secret_value() if password else None,
                host=self.database_host,
                port=self.database_port or 3306,
            )
        return sa.URL.create("sqlite", database=str(Path(FOLDER, "lab.sqlite").resolve()))

    def connect(self) -> Connection:
        """Return a new connection to the configured database; nothing is dialled yet.

        It follows later changes of `safemode`, but not of where the database and the stores are.
        """
        local = {"protocol": "file", "location": str(Path(FOLDER, "store").resolve())}
        stores = Stores({"default": "local", "local": local, **self.stores})
        return Connection(self.url(), stores=stores, safemode=lambda: self.safemode)

    def _field(self, name: str) -> str:
        field = name.replace(".", "_")
        if field not in type(self).model_fields:
            known = ", ".join(sorted(type(self).model_fields))
            raise ConfigurationError(f"There is no setting {name!r}. Known settings: {known}.")
        return field


class _JsonFile(PydanticBaseSettingsSource):
    """The nearest `datajoint.json`, its sections flattened: ``database.host``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(str(field.validation_alias)), field_name, False

    def __call__(self) -> dict[str, Any]:
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / FILE_NAME).is_file():
                settings = _flattened(folder / FILE_NAME)
                fields = self.settings_cls.model_fields.items()
                return {
                    str(field.validation_alias): settings[name]
                    for name, field in fields
                    if settings.get(name) is not None
                }
        return {}


def _flattened(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is no valid JSON: {error}") from error
    database = content.get("database", {}) if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise ConfigurationError(
            f'{file} must hold an object, such as {{"database": {{"host": "db.lab.org"}}}}.'
        )
    return {**content, **{f"database_{name}": value for name, value in database.items()}}


def _refused(error: ValidationError) -> ConfigurationError:
    """Say which settings cannot be used, without their values, which may be secret."""
    problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return ConfigurationError(f"Settings: {'; '.join(problems)}.")


def _parsed_url(text: str) -> sa.URL:
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):
        # The text is not shown: it may hold a password.
        raise ConfigurationError(
            "DJ_DATABASE_URL is no database URL. Write sqlite:///path/to/file.sqlite or "
            "mysql+pymysql://user:password@host:port/."
        ) from None
