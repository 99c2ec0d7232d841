"""Tables and jobs whose runs say in which worker they are, and wait as they are told."""

import os
import time
from pathlib import Path

import dagster as dg

import dj_dagster as dj
from dj_dagster.orchestration import (
    SensorSettings,
    TableSettings,
    TableTranslator,
    build_definitions,
)

FOLDER = Path(os.environ["CELERY_TEST_FOLDER"])


def note(*words: object) -> None:
    """Add a line to the notes, in one write, with the worker and its process."""
    line = (*words, os.environ["CELERY_TEST_WORKER"], os.getpid())
    with (FOLDER / "notes").open("ab", buffering=0) as file:
        file.write((" ".join(map(str, line)) + "\n").encode())


schema = dj.Schema("shop")


@schema
class Item(dj.Manual):
    definition = """
    item : int32
    """


@schema
class Measured(dj.Computed):
    definition = """
    -> Item
    ---
    worker : varchar(16)
    """

    def make(self, key):
        note("make", key["item"])
        while (FOLDER / f"hold{key['item']}").exists():
            time.sleep(0.05)
        time.sleep(0.05)
        self.insert1({**key, "worker": os.environ["CELERY_TEST_WORKER"]})


@schema
class Scan(dj.Manual):
    definition = """
    scan : int32
    """


@schema
class Rendered(dj.Computed):
    definition = """
    -> Scan
    ---
    worker : varchar(16)
    """

    def make(self, key):
        self.insert1({**key, "worker": os.environ["CELERY_TEST_WORKER"]})


@schema
class Well(dj.Manual):
    definition = """
    well : int32
    """


@schema
class Imaged(dj.Computed):
    definition = """
    -> Well
    ---
    worker : varchar(16)
    """

    def make(self, key):
        note("image", key["well"])
        self.insert1({**key, "worker": os.environ["CELERY_TEST_WORKER"]})


class Translator(TableTranslator):
    """Sends one table's runs to a queue of their own."""

    def get_op_tags(self, props):
        if props.title == "shop.Rendered":
            return {"dagster-celery/queue": "two", "dagster-celery/priority": "8"}
        return {}


@dg.op
def greet(context: dg.OpExecutionContext) -> None:
    """Say where this is."""
    note("greet", context.run_id)


@dg.op(config_schema={"gate": str})
def wait(context: dg.OpExecutionContext) -> None:
    """Wait until a file is there."""
    note("wait", context.run_id)
    while not Path(context.op_config["gate"]).exists():
        time.sleep(0.05)


@dg.job(executor_def=dg.in_process_executor)
def greeting() -> None:
    """Say where this is."""
    greet()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """Work until a file is there."""
    wait()


@dg.job(executor_def=dg.multiprocess_executor)
def waiting_apart() -> None:
    """Work until a file is there, in a process for each step, as Dagster does by default."""
    wait()


defs = dg.Definitions.merge(
    build_definitions(
        schema,
        translator=Translator(),
        sensor_settings=SensorSettings(
            interval=2, batch_size=20, tables={"shop.Imaged": TableSettings(batch_size=1000)}
        ),
    ),
    dg.Definitions(jobs=[greeting, waiting, waiting_apart]),
)
