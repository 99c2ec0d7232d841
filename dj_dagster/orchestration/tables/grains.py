"""Grains, which are tables with the same entities as keys, their partition keys and outcomes.

Primary keys are encoded as texts and decoded again only here. ``subject_id=1/day=2026-01-31``: the
attributes in order, values percent-encoded where they hold what Dagster or the encoding itself
forbids (``/``, ``=``, ``%``, ``|``, ``...``, commas, quotes, control characters). Equal keys have
equal texts, whatever their Python types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from urllib.parse import quote, unquote
from uuid import UUID

from dagster import DynamicPartitionsDefinition

from dj_dagster.errors import InvalidValueError, PopulateError, counted
from dj_dagster.model.heading import Attribute, Key, Value
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.backends.common import as_time, date_or_zero, datetime_or_zero, time_text
from dj_dagster.relational.values import with_scale
from dj_dagster.workflow.populate import KeyOutcome, Status

# Beyond letters, digits and `_.-~`, which are never encoded: readable in dates and names, and
# without a meaning in Dagster's partition selections.
_PLAIN = ":+@ "

_NEEDS_NOTHING = re.compile(r"[A-Za-z0-9_.~:+@-]*").fullmatch


def encode_key(attributes: Iterable[Attribute], key: Mapping[str, Value]) -> str:
    """Return the partition key of a primary key; other attributes of `key` are left out.

    Raises
    ------
    InvalidValueError
        When an attribute is missing from `key` or its value does not fit the attribute's type.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> heading = [Attribute("subject", parse_type("varchar(9)")), Attribute("n", None)]
    >>> encode_key(heading, {"n": 3, "subject": "a/b"})
    'subject=a%2Fb/n=3'
    """
    attributes = tuple(attributes)
    return row_encoder(attributes)(values_of(key, [attribute.name for attribute in attributes]))


def values_of(key: Mapping[str, Value], names: Sequence[str]) -> list[Value]:
    """Return the values of named attributes.

    Raises
    ------
    InvalidValueError
        When an attribute is missing from `key`.
    """
    try:
        return [key[name] for name in names]
    except KeyError as error:
        raise InvalidValueError(
            f"the key {dict(key)} lacks {error.args[0]}; name all attributes of the primary key"
        ) from None


def row_encoder(attributes: Iterable[Attribute]) -> Callable[[Sequence[Value]], str]:
    """Return an encoder for many keys, given as the attributes' values in order; see `encode_key`.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> heading = [Attribute("subject", parse_type("varchar(9)")), Attribute("n", None)]
    >>> list(map(row_encoder(heading), [("a", 1), ("b", 2)]))
    ['subject=a/n=1', 'subject=b/n=2']
    """
    spellings = [_spelling(attribute) for attribute in attributes]
    if len(spellings) == 1:
        (only,) = spellings
        return lambda row: only(row[0])
    return lambda row: "/".join(
        [spelled(value) for spelled, value in zip(spellings, row, strict=True)]
    )


def decode_key(attributes: Iterable[Attribute], text: str) -> Key:
    """Return the primary key of a partition key, with values in their attributes' types.

    Raises
    ------
    InvalidValueError
        When `text` is not a partition key of these attributes.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> decode_key([Attribute("session_id", parse_type("int32"))], "session_id=12")
    {'session_id': 12}
    """
    expected = {attribute.name: attribute for attribute in attributes}
    pairs = [part.partition("=") for part in text.split("/")] if text else []
    if [name for name, _, _ in pairs] != list(expected):
        form = "/".join(f"{name}=..." for name in expected)
        raise InvalidValueError(f"{text!r} is not a partition key here; write {form!r}")
    return {name: _decode(expected[name], value) for name, _, value in pairs}


def decode_shared(attributes: Mapping[str, Attribute], text: str) -> Key:
    """Return the values of `attributes` in a partition key; other attributes are left out.

    The partition of one table thereby restricts another that shares some of its key. The result is
    empty for a text that is not a key, such as the date of a daily partition. In a partition of two
    dimensions, both are read.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> subject = {"subject_id": Attribute("subject_id", parse_type("int32"))}
    >>> decode_shared(subject, "subject_id=7/session_id=12")
    {'subject_id': 7}
    """
    # Dagster joins dimensions by ``|``, which is encoded in our keys.
    pairs = [part.partition("=") for part in text.replace("|", "/").split("/")]
    return {
        name: _decode(attributes[name], value)
        for name, separator, value in pairs
        if separator and name in attributes
    }


def _spelling(attribute: Attribute) -> Callable[[Value], str]:
    """Return the encoder of an attribute's values, which is looked up once for many values."""
    kind = attribute.type
    family = _family(kind)
    write, has_text, prefix = _WRITERS[family], _WRITERS[family] is _text, f"{attribute.name}="

    def spelled(value: Value) -> str:
        try:
            text = write(value, kind)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InvalidValueError(
                f"{attribute.name} = {value!r} is not a value of {_type_text(attribute)}: {error}"
            ) from error
        return prefix + (_quoted(text) if has_text else text)

    return spelled


def _quoted(text: str) -> str:
    if _NEEDS_NOTHING(text) and "..." not in text:
        return text
    # Blanks at the ends of a typed partition are lost, so they are encoded.
    plain = _PLAIN if text == text.strip() else _PLAIN.replace(" ", "")
    quoted = quote(text, safe=plain, errors="surrogatepass")
    return quoted.replace("...", "%2E%2E%2E")


def _decode(attribute: Attribute, text: str) -> Value:
    value = unquote(text, errors="surrogatepass")
    try:
        return _READERS[_family(attribute.type)](value)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InvalidValueError(
            f"{attribute.name} = {value!r} is not a value of {_type_text(attribute)}: {error}"
        ) from error


def _family(kind: AttributeType | None) -> Family:
    return kind.family if kind else Family.STRING


def _type_text(attribute: Attribute) -> str:
    return attribute.type.text if attribute.type else "text"


def _integer(value: Value, _: AttributeType | None) -> str:
    number = int(value)
    if number != value and not isinstance(value, str):
        raise ValueError("a key has to be a whole number")
    return str(number)


def _float(value: Value, _: AttributeType | None) -> str:
    number = float(value)
    if math.isnan(number):
        raise ValueError("a key has to be a number")
    # Floating-point zero has two representations, and is one key.
    return repr(number + 0.0)


def _decimal(value: Value, kind: AttributeType | None) -> str:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if kind is not None and kind.scale is not None:
        number = with_scale(number, kind.scale)
    return format(abs(number) if number == 0 else number, "f")


def _date(value: Value, _: AttributeType | None) -> str:
    if isinstance(value, datetime):
        value = value.date()
    found = date_or_zero(value)
    return found.isoformat() if isinstance(found, date) else found


def _datetime(value: Value, _: AttributeType | None) -> str:
    found = datetime_or_zero(value)
    return found.isoformat() if isinstance(found, datetime) else found


def _time(value: Value, _: AttributeType | None) -> str:
    found = as_time(value)
    return time_text(found, 6 if found.microseconds else 0)


def _uuid(value: Value, _: AttributeType | None) -> str:
    return str(value if isinstance(value, UUID) else UUID(str(value)))


def _hex(value: Value, _: AttributeType | None) -> str:
    return bytes(value).hex()


def _text(value: Value, _: AttributeType | None) -> str:
    return str(value)


_WRITERS: Mapping[Family, Callable[[Value, AttributeType | None], str]] = {
    **dict.fromkeys(Family, _text),
    Family.INTEGER: _integer,
    Family.BOOL: _integer,
    Family.FLOAT: _float,
    Family.DECIMAL: _decimal,
    Family.DATE: _date,
    Family.DATETIME: _datetime,
    Family.TIME: _time,
    Family.UUID: _uuid,
    Family.BYTES: _hex,
}

_READERS: Mapping[Family, Callable[[str], Value]] = {
    **dict.fromkeys(Family, str),
    Family.INTEGER: int,
    Family.BOOL: lambda text: bool(int(text)),
    Family.FLOAT: float,
    Family.DECIMAL: Decimal,
    Family.DATE: date_or_zero,
    Family.DATETIME: datetime_or_zero,
    Family.TIME: as_time,
    Family.UUID: UUID,
    Family.BYTES: bytes.fromhex,
}

Identity = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Grain:
    """The kind of entity that a partition is: a session, a session with a set of parameters, ...

    Attributes
    ----------
    name
        The name of the partitions definition: the table where the grain begins, ``"lab.Session"``.
    attributes
        The attributes of the key, in the order of that table.

    Examples
    --------
    >>> from dj_dagster.model.types import parse_type
    >>> grain = Grain("lab.Subject", (Attribute("subject_id", parse_type("int32")),))
    >>> grain.encode({"subject_id": 7, "sex": "F"}), grain.decode("subject_id=7")
    ('subject_id=7', {'subject_id': 7})
    """

    name: str
    attributes: tuple[Attribute, ...]

    @cached_property
    def partitions_def(self) -> DynamicPartitionsDefinition:
        """The dynamic partitions that all tables of the grain share."""
        return DynamicPartitionsDefinition(name=self.name)

    @cached_property
    def names(self) -> list[str]:
        """The names of the attributes, in order."""
        return [attribute.name for attribute in self.attributes]

    @cached_property
    def _encode_row(self) -> Callable[[Sequence[Value]], str]:
        return row_encoder(self.attributes)

    def encode(self, key: Mapping[str, Value]) -> str:
        """Return the partition of a row; see `encode_key`."""
        return self._encode_row(values_of(key, self.names))

    def encode_all(self, keys: Iterable[Mapping[str, Value]]) -> list[str]:
        """Return the partitions of rows in their order, each once."""
        return list(dict.fromkeys(map(self.encode, keys)))

    def encode_rows(self, rows: Iterable[Sequence[Value]]) -> list[str]:
        """Return the partitions of rows, given as the attributes' values in order, each once."""
        return list(dict.fromkeys(map(self._encode_row, rows)))

    def decode(self, partition: str) -> Key:
        """Return the key that a partition stands for; see `decode_key`."""
        return decode_key(self.attributes, partition)


class GrainBook:
    """The grains found so far, by the attributes of their keys."""

    def __init__(self) -> None:
        self._grains: dict[Identity, Grain] = {}

    def grain(self, begins_at: str, attributes: Iterable[Attribute]) -> Grain | None:
        """Return the grain of a key, None for an empty key; a new grain is named `begins_at`.

        Two keys are the same grain when they have the same attributes by name and by lineage,
        in any order.
        """
        attributes = tuple(attributes)
        if not attributes:
            return None
        identity = frozenset((a.name, a.lineage or f"{begins_at}.{a.name}") for a in attributes)
        return self._grains.setdefault(identity, Grain(begins_at, attributes))


ERRORS_SHOWN = 5
"""Failed keys of a partition whose errors are shown, at most; the table's jobs have them all."""

_PRECEDENCE: Sequence[Status] = ("failed", "left", "made", "present", "reserved", "missing")


def by_partition(
    outcomes: Iterable[KeyOutcome], grain: Grain, sizes: Mapping[str, int]
) -> Iterator[KeyOutcome]:
    """Yield one outcome a partition, as soon as all its keys have theirs.

    Parameters
    ----------
    sizes
        The number of keys to try, by partition.
    """
    waiting: dict[str, list[KeyOutcome]] = {}
    for outcome in outcomes:
        partition = grain.encode(outcome.key)
        waiting.setdefault(partition, []).append(outcome)
        if len(waiting[partition]) >= sizes.get(partition, 0):
            yield merged(waiting.pop(partition), grain.names)
    for rest in waiting.values():
        yield merged(rest, grain.names)


def merged(outcomes: Sequence[KeyOutcome], names: Sequence[str]) -> KeyOutcome:
    """Return the outcome of one partition, which has failed if one of its keys has.

    Parameters
    ----------
    outcomes
        The outcomes of its keys that were tried, one at least.
    names
        The attributes of the partition.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    met = {outcome.status for outcome in outcomes}
    status: Status = next(each for each in _PRECEDENCE if each in met)
    told = failed[:ERRORS_SHOWN]
    return KeyOutcome(
        key={name: outcomes[0].key[name] for name in names},
        status=status,
        seconds=sum(outcome.seconds for outcome in outcomes),
        rows=sum(outcome.rows for outcome in outcomes),
        bytes=sum(outcome.bytes for outcome in outcomes),
        error=_error(len(outcomes), failed, told) if failed else None,
        traceback="\n".join(f"{outcome.key}\n{outcome.traceback}" for outcome in told),
    )


def _error(tried: int, failed: Sequence[KeyOutcome], told: Sequence[KeyOutcome]) -> PopulateError:
    texts = "; ".join(f"{outcome.key}: {outcome.message}" for outcome in told)
    more = ", ..." if len(failed) > len(told) else ""
    return PopulateError(f"{len(failed)} of {counted(tried, 'key')} failed: {texts}{more}")
