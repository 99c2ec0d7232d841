"""Functions of MySQL's SQL in Python, by name."""

from __future__ import annotations

from collections.abc import Mapping

from dj_dagster.relational.user_sql import json_functions
from dj_dagster.relational.user_sql.date_functions import DATE_FUNCTIONS
from dj_dagster.relational.user_sql.number_functions import NUMBER_FUNCTIONS
from dj_dagster.relational.user_sql.signatures import Function
from dj_dagster.relational.user_sql.text_functions import TEXT_FUNCTIONS
from dj_dagster.relational.user_sql.values import BINARY, INT, JSON, Kind

_JSON: Mapping[str, Function] = {
    "JSON_EXTRACT": Function(json_functions.extract, "tt*", JSON),
    "JSON_UNQUOTE": Function(json_functions.unquote, "t", BINARY),
    "JSON_VALUE": Function(json_functions.value, "tt", BINARY),
    "JSON_LENGTH": Function(json_functions.length, "t|t", INT),
    "JSON_CONTAINS_PATH": Function(json_functions.contains_path, "ttt*", INT),
    "JSON_VALID": Function(json_functions.is_valid, "t", INT),
    "JSON_TYPE": Function(json_functions.type_of, "t", Kind("text", tag="mixed")),
}

KEEPING = frozenset((
    "CONCAT", "CONCAT_WS", "ELT", "INSERT", "LEFT", "LOWER", "LPAD", "LTRIM", "QUOTE", "REPEAT",
    "REPLACE", "REVERSE", "RIGHT", "RPAD", "RTRIM", "SUBSTRING_INDEX", "UPPER",
))  # fmt: skip
"""Functions whose result respects case if their arguments do."""

COMPARING = frozenset(("INSTR", "LOCATE", "STRCMP"))
"""Functions that compare texts and take the argument ``heeds_case``."""

FUNCTIONS: Mapping[str, Function] = {
    **NUMBER_FUNCTIONS, **TEXT_FUNCTIONS, **DATE_FUNCTIONS, **_JSON
}  # fmt: skip


SPELLINGS: Mapping[str, str] = {
    "CEILING": "CEIL", "POWER": "POW", "ATAN2": "ATAN", "CHARACTER_LENGTH": "CHAR_LENGTH",
    "OCTET_LENGTH": "LENGTH", "LCASE": "LOWER", "UCASE": "UPPER", "SHA": "SHA1",
    "DAYOFMONTH": "DAY", "CURRENT_DATE": "CURDATE", "CURRENT_TIME": "CURTIME",
    "CURRENT_TIMESTAMP": "NOW", "LOCALTIME": "NOW", "LOCALTIMESTAMP": "NOW", "SYSDATE": "NOW",
    "SUBSTR": "SUBSTRING", "MID": "SUBSTRING",
}  # fmt: skip
"""Other names of functions."""
