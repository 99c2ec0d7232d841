"""Expressions of MySQL's SQL have the same values on SQLite and on MariaDB, or are refused."""

from __future__ import annotations

import uuid
from itertools import islice
from pathlib import Path

from tests.relational.sql_expressions import Pair, Steps, aggregates, expressions, steps, windows
from tests.services.database_server import drop_databases

OF_REFUSED_SQL = Steps({"c_n": "least(n, -2.5)"}, "date '2024-01-31' + interval c_n month", True)
"""SQL that is refused as one expression, and done where a subquery computes a part: a date."""


def test_random_expressions_are_equal_or_refused(
    tmp_path: Path, mariadb_url: str, seed_of_commit: int
) -> None:
    schema = f"t{uuid.uuid4().hex[:8]}_sql"
    try:
        pair = Pair(f"sqlite:///{tmp_path / 'lab.sqlite'}", mariadb_url, schema)
        texts = list(dict.fromkeys(islice(expressions(seed_of_commit), 80)))
        differences, refused = pair.differences(texts)
        groups = list(dict.fromkeys(islice(aggregates(seed_of_commit), 20)))
        differences += pair.differences(groups, grouped=True)[0]
        differences += pair.of_steps([*islice(steps(seed_of_commit), 15), OF_REFUSED_SQL])[0]
    finally:
        drop_databases(mariadb_url, schema)
    assert not differences, f"seed {seed_of_commit}"
    assert refused < len(texts) / 3


def test_window_functions_are_those_of_mariadb(tmp_path: Path, mariadb_url: str) -> None:
    schema = f"t{uuid.uuid4().hex[:8]}_sql"
    try:
        assert windows(Pair(f"sqlite:///{tmp_path / 'lab.sqlite'}", mariadb_url, schema)) == []
    finally:
        drop_databases(mariadb_url, schema)


def test_floats_of_known_digits_are_those_of_mariadb(tmp_path: Path, mariadb_url: str) -> None:
    schema = f"t{uuid.uuid4().hex[:8]}_sql"
    texts = ["ceil(x) / 3", "round(x, 1) / 3 = 0.83333", "concat(round(x, 1) * 1.25, '')",
             "concat(round(258404106458666.65625e0, 4))", "concat(1428567142857148.8e0)",
             "concat(ifnull(truncate(null, 2), n))",
             "concat(if(0, null - null, 9007199254740995))",
             "concat(if(1, 1, round(price, null)))", "sec_to_time(15000e0) / 471918",
             "(time(exact) + cast(clock as time(6))) / 471918",
             "concat(if(0, greatest(1.5, null), 9007199254740995))", "concat(round(x, '1'))",
             "concat(round(price, 1.5))", "concat(truncate(price, '1x'))"]  # fmt: skip
    try:
        pair = Pair(f"sqlite:///{tmp_path / 'lab.sqlite'}", mariadb_url, schema)
        assert pair.differences(texts) == ([], 0)
        assert pair.differences(["now(1.5)"])[1] == 1, "servers refuse it too"
        over = ["stddev_samp(n)", "cast(avg(ceil(x)) as char)", "sum(round(x, 1)) / 7",
                "concat(sum(1.5 / 3) / 3)", "concat(avg(0.5) / 3)"]  # fmt: skip
        assert pair.differences(over, grouped=True) == ([], 0)
    finally:
        drop_databases(mariadb_url, schema)
