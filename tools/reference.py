"""Pages of the reference that are written from the code: settings, commands, errors.

The documentation site calls these functions when it is built, so that the pages are as the code is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dj_dagster import errors
from dj_dagster.cli import cli
from dj_dagster.model.job_settings import JobSettings
from dj_dagster.objects.blob.format import ReadLimits
from dj_dagster.objects.stores import store_settings
from dj_dagster.objects.stores.store_settings import StoreSettings
from dj_dagster.orchestration.runs.work import MakeTimeoutError, WorkerDiedError
from dj_dagster.settings_mapping import ENVIRONMENT, MissingSettingsError, UnknownSettingError
from dj_dagster.settings_model import JobsSettings, ReadLimitSettings, Section, Settings

_DESCRIBED_ELSEWHERE = {JobsSettings: JobSettings, ReadLimitSettings: ReadLimits}
"""Sections whose settings are those of another class, which says what they mean."""

OTHER_ERRORS = (MissingSettingsError, UnknownSettingError, MakeTimeoutError, WorkerDiedError)
"""Errors that are defined beside what raises them."""

_HEADING = re.compile(r"\n\n([A-Z][A-Za-z ]+)\n-{3,}\n")


def settings() -> str:
    """Return all settings as Markdown: a heading and a table for each section."""
    parts = [_setting_table(Settings, "", skip=_sections())]
    for name, section in _sections().items():
        about = _plain(_description(section))
        parts.append(f"## `{name}`\n\n{about}\n\n{_setting_table(section, f'{name}.')}")
    return "\n\n".join(parts)


def stores() -> str:
    """Return the settings of the kinds of stores as Markdown."""
    found = [each for each in vars(store_settings).values() if _is_store(each)]
    own = set(StoreSettings.model_fields)
    parts = ["## All stores\n\n" + _field_table(StoreSettings, "", StoreSettings.model_fields)]
    for kind in found:
        protocol = kind.model_fields["protocol"].annotation.__args__[0]
        fields = {name: field for name, field in kind.model_fields.items() if name not in own}
        head = f"## `{protocol}`\n\n{_plain(_description(kind))}"
        parts.append(f"{head}\n\n{_field_table(kind, '', fields)}")
    return "\n\n".join(parts)


def commands() -> str:
    """Return all commands as Markdown: usage, description and options of each."""
    parts = [_command(name, command) for name, command in sorted(cli.commands.items())]
    return "\n\n".join(parts)


def error_pages() -> str:
    """Return all errors as Markdown: what each means, and what to do about it."""
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in error_texts().items())


def error_texts() -> dict[str, str]:
    """Return the description of each error by its name, in the order in which they are defined."""
    return {error.__name__: _error_text(error) for error in _all_errors()}


def _all_errors() -> list[type[errors.DataJointError]]:
    return [*_errors(), *OTHER_ERRORS]


def _errors() -> Iterator[type[errors.DataJointError]]:
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, errors.DataJointError):
            yield each


def _error_text(error: type[errors.DataJointError]) -> str:
    bases = [base.__name__ for base in error.__bases__ if base is not Exception]
    kinds = " and ".join(_link(base) for base in bases)
    facts = [f"A kind of {kinds}."] if kinds else []
    if below := ", ".join(
        _link(each.__name__) for each in _all_errors() if error in each.__bases__
    ):
        facts.append(f"Kinds of it: {below}.")
    if error.transient:
        facts.append("Transient: the same call may succeed when it is made again.")
    return "\n\n".join([_plain(inspect.getdoc(error) or ""), *facts])


def _link(name: str) -> str:
    is_here = any(each.__name__ == name for each in _all_errors())
    return f"[{name}](#{name.lower()})" if is_here else f"`{name}`"


def _sections() -> dict[str, type[Section]]:
    fields = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: kind
        for name, kind in fields.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def _is_store(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, StoreSettings) and each is not StoreSettings


def _setting_table(section: type[Section], prefix: str, skip: Any = ()) -> str:
    fields = {name: field for name, field in section.model_fields.items() if name not in skip}
    return _field_table(section, prefix, fields, environment=True)


def _field_table(
    of: type[Any], prefix: str, fields: dict[str, FieldInfo], *, environment: bool = False
) -> str:
    meanings = attribute_texts(_DESCRIBED_ELSEWHERE.get(of, of)) | attribute_texts(of)
    lines = ["| setting | type | default |" + (" environment |" if environment else "") + " |"]
    lines.append("|---|---|---|" + ("---|" if environment else "") + "---|")
    for name, field in fields.items():
        cells = [f"`{prefix}{name}`", f"`{_type_name(field.annotation)}`", _default(field)]
        if environment:
            variable = ENVIRONMENT.get(f"{prefix}{name}")
            cells.append(f"`{variable}`" if variable else "")
        cells.append(_plain(meanings.get(name, "")))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def attribute_texts(of: type[Any]) -> dict[str, str]:
    """Return what the section "Attributes" of a class's docstring says of each attribute.

    Examples
    --------
    >>> attribute_texts(StoreSettings)["stage"]
    'A local folder for work in progress; kept for DataJoint, not used.'
    """
    doc = inspect.getdoc(of) or ""
    _, _, rest = doc.partition("\nAttributes\n----------\n")
    section = _HEADING.split(rest)[0]
    found = dict[str, str]()
    names = list[str]()
    for line in section.splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(",")]
            found |= dict.fromkeys(names, "")
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def _description(of: type[Any]) -> str:
    """Return a class's docstring without its sections."""
    doc = inspect.getdoc(of) or ""
    return _HEADING.split(f"{doc}\n\n")[0].strip()


def _plain(text: str) -> str:
    """Return the text of a docstring as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if getattr(annotation, "__args__", None):
        text = str(annotation)
    text = re.sub(r"\b(?:typing|pathlib|pydantic\.types)\.", "", text)
    return re.sub(r"Annotated\[(\w+), .*?\](?=, \.\.\.|$|\])", r"\1", text)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return ""
    return f"`{value!r}`" if isinstance(value, str) else f"`{value}`"


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"dj-dagster {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## {name}", f"```\n{' '.join(usage.split())}\n```"]
    parts.append(_plain(inspect.cleandoc(command.help or "").replace("\b\n", "")))
    options = [each.get_help_record(context) for each in command.params]
    rows = [f"| `{record[0]}` | {_cell(record[1])} |" for record in options if record]
    if rows:
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[")
