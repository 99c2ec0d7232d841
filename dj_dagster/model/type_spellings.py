"""Spellings of types from earlier years, and what to write instead of types that do not exist."""

from __future__ import annotations

import re
from difflib import get_close_matches

ALIASES = {
    "boolean": "bool",
    "jsonb": "json",
    "char": "char(1)",
    "double precision": "double",
    "tinyblob": "<blob>",
    "blob": "<blob>",
    "mediumblob": "<blob>",
    "longblob": "<blob>",
    "attach": "<attach>",
    "external": "<blob@>",
}
"""Whole types that are read as another."""

_STORED = re.compile(
    r"(?P<codec>blob|attach|filepath|external)[@-](?P<store>[\w.-]*)", re.ASCII | re.I
)

_REPLACEMENTS = {
    "uint8": "int16, or the native 'tinyint unsigned'",
    "uint16": "int32, or the native 'smallint unsigned'",
    "uint32": "int64, or the native 'int unsigned'",
    "uint64": "decimal(20,0), or the native 'bigint unsigned'",
    "float16": "float32",
    "string": "varchar(255)",
    "str": "varchar(255)",
    "varchar": "varchar(255)",
    "enum": "enum('left', 'right')",
    "number": "decimal(10,2), int64 or float64",
    "dec": "decimal(10,2)",
    "binary": "bytes, or uuid for a 16-byte identifier",
    "varbinary": "bytes",
    "bit": "bool, or an integer type such as int64",
    "set": "json for a list of words, or a part table with one row for each",
    "geometry": "json, or <blob> for any Python object",
    "point": "two float64 attributes, or <blob> for any Python object",
    "polygon": "json, or <blob> for any Python object",
    "array": "<blob>",
    "ndarray": "<blob>",
    "list": "json or <blob>",
    "dict": "json or <blob>",
    "file": "<attach>, or <filepath@store> for a file that stays where it is",
    "filepath": "<filepath@store>, naming the store that the file is in",
    "hash": "<hash@store>",
    "npy": "<npy@store>",
    "object": "<object@store>",
    "timestamptz": "datetime, in UTC",
}


def modernise(written: str) -> str:
    """Return today's spelling of a type as it was written; most come back as they are.

    Examples
    --------
    >>> modernise("LONGBLOB"), modernise("blob@raw"), modernise("int  unsigned")
    ('<blob>', '<blob@raw>', 'int unsigned')
    """
    text = written.strip()
    if text.startswith("<"):
        return text
    if stored := _STORED.fullmatch(text):
        codec = stored["codec"].lower()
        return f"<{'blob' if codec == 'external' else codec}@{stored['store']}>"
    if values := re.match(r"enum\s*\(", text, re.IGNORECASE):
        return "enum(" + text[values.end() :]
    text = " ".join(text.lower().split())
    return ALIASES.get(text, text)


def advice(text: str, known: list[str]) -> str:
    """Return what to write instead of a type that is none of the `known` ones."""
    word = re.match(r"\w*", text.lower())
    name = word[0] if word else ""
    if "unsigned" in text:
        # Core integers are all signed.
        name = f"u{name}" if f"u{name}" in _REPLACEMENTS else name
    close = get_close_matches(name, [*_REPLACEMENTS, *known], n=1)
    if close:
        return f"write {_REPLACEMENTS.get(close[0], close[0])}"
    return (
        "write a core type (int64, float64, varchar(255), datetime, ...) or a codec (<blob>, ...)"
    )
