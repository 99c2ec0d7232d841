"""The pipeline as a component of a ``dg`` project, written in YAML."""

# Dagster reads the annotations of the fields as objects: no postponed annotations here.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from dagster import (
    AssetsDefinition,
    AssetSpec,
    Component,
    ComponentLoadContext,
    Definitions,
    ResolutionContext,
    Resolvable,
    Resolver,
    Scaffolder,
    ScaffoldRequest,
    scaffold_component,
    scaffold_with,
)

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration.build import build_definitions
from dj_dagster.orchestration.jobs.populate_job import populate_schedule
from dj_dagster.orchestration.sensor.sensor_settings import SensorSettings
from dj_dagster.orchestration.tables.collection import module_named
from dj_dagster.orchestration.translator import TableTranslator
from dj_dagster.relational.database.connection import Connection


class PipelineScaffolder(Scaffolder[Any]):
    """The scaffolder that writes the component's YAML for ``dg scaffold defs``."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        """Write a component that shows all schemas of the configured database."""
        scaffold_component(request, {"schemas": ["*"]})


def _listed(context: ResolutionContext, value: Any) -> Any:
    """Put a single name into a list; Dagster would read each letter as a name."""
    found = context.resolve_value(value)
    return [found] if isinstance(found, str) else found


def _listed_by_table(context: ResolutionContext, value: Mapping[str, Any]) -> dict[str, Any]:
    return {table: _listed(context, names) for table, names in value.items()}


Names = Annotated[Sequence[str], Resolver(_listed, model_field_type=Sequence[str] | str)]


@scaffold_with(PipelineScaffolder)
@dataclass
class PipelineComponent(Component, Resolvable):
    """Relational schemas as assets, with their sensor, jobs and checks; see `build_definitions`.

    One component should have all schemas of a code location, so that its sensor follows rows from
    each table to those below it. With several components, the names of their sensors and jobs end
    with those of their schemas. A single name may be given instead of a list of names.

    Attributes
    ----------
    modules
        Python modules whose ``schema`` has the tables' classes: these tables can be filled.
    schemas
        Patterns of schema names in the database, ``lab_*``: tables without a class are shown, but
        cannot be filled.
    database_url
        The database of the patterns; by default the configured one.
    select, exclude
        Tables to have and to leave out: ``lab.Session``, schemas ``lab``, ``tier:computed``,
        ``Session+`` with all below. See `dj_dagster.model.selection` for all names.
    partition_by
        The first attributes of the key that tell a table's partitions apart, by table.
    translator
        A `TableTranslator` of yours: ``my_project.translator.LabTranslator``.
    assets
        Assets of yours that stand for Manual tables, as in `build_definitions`:
        ``my_project.intake.subjects``. Keep them outside of the folder ``defs``, from which they
        would be loaded a second time; other assets belong there.
    batch_size, interval
        The sensor's greatest number of keys a run, and least number of seconds between ticks.
    entry_folders
        Folders of the machine from which the launchpad may take files.
    schedule
        A cron expression, such as ``0 3 * * *``, by which everything pending is made, in addition
        to the work of the sensor.

    Examples
    --------
    .. code-block:: yaml

        type: dj_dagster.orchestration.PipelineComponent
        attributes:
          modules: [my_project.lab]
          schemas: ["lab_*"]
          exclude: ["tier:lookup"]
    """

    modules: Names = field(default_factory=list[str])
    schemas: Names = field(default_factory=list[str])
    database_url: str | None = None
    select: Annotated[
        Sequence[str] | None, Resolver(_listed, model_field_type=Sequence[str] | str | None)
    ] = None
    exclude: Names = field(default_factory=list[str])
    partition_by: Annotated[
        Mapping[str, Sequence[str]],
        Resolver(_listed_by_table, model_field_type=Mapping[str, Sequence[str] | str]),
    ] = field(default_factory=dict[str, Sequence[str]])
    translator: str | None = None
    assets: Names = field(default_factory=list[str])
    batch_size: int | None = None
    interval: int | None = None
    entry_folders: Names = field(default_factory=list[str])
    schedule: str | None = None

    def __post_init__(self) -> None:
        # In Python a text is a sequence of its letters, such as the pattern `*` of "lab_*".
        for name in ("modules", "schemas", "exclude", "assets", "entry_folders"):
            if isinstance(value := vars(self)[name], str):
                setattr(self, name, [value])

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Return the definitions that the component describes.

        Raises
        ------
        ConfigurationError
            When the component does not name schemas, or names a module, translator or asset that
            is not there. For more reasons see `build_definitions`.
        DataJointError
            When the database cannot be reached.
        """
        del context
        # A variable of the environment that is not set, for example.
        for name in ("database_url", "schedule"):
            if (value := vars(self)[name]) is not None and not value.strip():
                raise ConfigurationError(
                    f"The component has {name}: {value!r}, which is empty: write one, or leave "
                    "the line out."
                )
        if not self.modules and not self.schemas:
            raise ConfigurationError(
                "The component names no schemas: write modules, for Python modules that have "
                "them, or schemas, for patterns of names in the database."
            )
        return build_definitions(
            [*map(module_named, self.modules), *self.schemas],
            connection=Connection(self.database_url) if self.database_url is not None else None,
            select=self.select,
            exclude=self.exclude,
            partition_by=self.partition_by,
            translator=self.get_translator(),
            assets=[_asset(name) for name in self.assets],
            sensor_settings=self._settings(),
            entry_folders=self.entry_folders,
            schedules=[populate_schedule(self.schedule)] if self.schedule is not None else [],
        )

    def get_translator(self) -> TableTranslator:
        """Return the translator of tables into assets; override it in a component of yours."""
        if self.translator is None:
            return TableTranslator()
        found = _attribute(self.translator)
        if not (isinstance(found, type) and issubclass(found, TableTranslator)):
            raise ConfigurationError(
                f"{self.translator!r} is not a TableTranslator: write "
                "my_project.module.LabTranslator"
            )
        return found()

    def _settings(self) -> SensorSettings:
        given: dict[str, Any] = {"batch_size": self.batch_size, "interval": self.interval}
        return SensorSettings(**{k: value for k, value in given.items() if value is not None})


def _asset(path: str) -> AssetsDefinition | AssetSpec:
    found = _attribute(path)
    if isinstance(found, AssetsDefinition | AssetSpec):
        return found
    raise ConfigurationError(f"{path!r} is not an asset: write my_project.module.name")


def _attribute(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(module_named(module), name, None) if module else None
