"""DataJoint's command ``dj``: an interpreter with the package, and schemas, at hand.

``python -m dj_dagster.compat.cli -s my_lab:lab`` and ``dj.cli([...])`` begin it.
"""

from __future__ import annotations

import argparse
from code import interact
from collections.abc import Sequence
from typing import Any

import dj_dagster as dj


def cli(args: Sequence[str] | None = None) -> None:
    """Start an interpreter in which ``dj`` and the modules of named schemas are imported.

    Parameters
    ----------
    args
        The arguments, by default those of the command line.
    """
    parser = argparse.ArgumentParser(prog="dj", description="Python with dj_dagster at hand.")
    version = f"{dj.__name__} {dj.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version)
    parser.add_argument("-u", "--user", help="of the database; by default that of the settings")
    parser.add_argument("-p", "--password", help="by default that of the settings")
    parser.add_argument("--host", help="of the server, or host:port")
    parser.add_argument(
        "-s", "--schemas", nargs="+", action="extend", default=[], metavar="SCHEMA:NAME",
        help="a schema and the name of its module here",
    )  # fmt: skip
    given = parser.parse_args(args)
    for name in ("user", "password", "host"):
        if value := getattr(given, name):
            dj.config[f"database.{name}"] = value
    modules: dict[str, Any] = {}
    for text in given.schemas:
        schema, _, name = text.partition(":")
        if not (schema and name.isidentifier()):
            parser.error(f"{text!r} is not SCHEMA:NAME, such as my_lab:lab.")
        modules[name] = dj.VirtualModule(name, schema)
    loaded = "".join(f"\n{name}: the schema {modules[name].schema.name}" for name in modules)
    interact(f"{version}; dj is the package.{loaded}", local={"dj": dj, **modules})


if __name__ == "__main__":
    cli()
