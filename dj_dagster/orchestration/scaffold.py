"""A pipeline of your own in a project of ``dg``, as `dj-dagster init` writes one elsewhere."""

# Dagster reads the annotations of the fields as objects: no postponed annotations here.
import re
from pathlib import Path

import click
from dagster import Scaffolder, ScaffoldRequest, scaffold_with
from pydantic import BaseModel, Field

from dj_dagster.errors import ConfigurationError
from dj_dagster.new_project import DAGSTER_YAML, PROJECT, write_files


class NewPipelineParams(BaseModel):
    """The parameters of ``dg scaffold defs``."""

    schema_name: str = Field(default="lab", description="Name of the schema; lab by default.")


class NewPipelineScaffolder(Scaffolder[NewPipelineParams]):
    """The scaffolder that writes a pipeline of two tables, its test, and settings of Dagster."""

    @classmethod
    def get_scaffold_params(cls) -> type[NewPipelineParams]:
        """Return the options of the command."""
        return NewPipelineParams

    def scaffold(self, request: ScaffoldRequest[NewPipelineParams]) -> None:
        """Write the files, and say what they are for; files that are there are left.

        Raises
        ------
        click.ClickException
            When the project has the test already, or cannot be written, or the schema's name is
            not a word in lower case. Nothing is written then.
        """
        root, place = request.project_root or Path.cwd(), request.target_path
        definitions, test = place / "definitions.py", root / "tests" / f"test_{_word(place)}.py"
        files = {definitions: "definitions.py", test: "tests/test_pipeline.py"}
        if not (root / DAGSTER_YAML).exists():
            files[root / DAGSTER_YAML] = DAGSTER_YAML
        paths = {str(file.relative_to(root)): PROJECT[name] for file, name in files.items()}
        words = {"schema": request.params.schema_name, "module": _module(definitions, root)}
        try:
            write_files(root, paths, words)
        except ConfigurationError as error:
            # It is new, and would be in the way when the command is given again.
            place.rmdir()
            raise click.ClickException(str(error)) from error
        click.echo(f"{root} has {', '.join(sorted(paths))} now.")
        click.echo("Rows are kept in .dj/ and Dagster's history in .dagster/: let git ignore them.")


def _word(place: Path) -> str:
    return re.sub(r"\W+", "_", place.name)


def _module(file: Path, root: Path) -> str:
    """Return the name by which a file of a project is imported."""
    sources = root / "src"
    inside = file.relative_to(sources if file.is_relative_to(sources) else root)
    return ".".join(inside.with_suffix("").parts)


@scaffold_with(NewPipelineScaffolder)
def new_pipeline() -> None:
    """Write a pipeline of your own: a Manual and a Computed table, their test, and dagster.yaml.

    This is a name for ``dg scaffold defs dj_dagster.orchestration.new_pipeline PATH``, which writes
    what `dj-dagster init` does into a project of ``dg``; do not call it.
    """
