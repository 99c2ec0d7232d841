"""A lab's pipeline of published Elements, as it was written for DataJoint 0.14.

Run as a script, in a process of its own, with the packages on its path; see `test_elements`::

    python elements_pipeline.py DATABASE_URL SCHEMA_PREFIX

Prints what it found as JSON, a line for what all pipelines share and one for each variant.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import sys
import types
import uuid

import dj_dagster

VARIANTS = (
    ("ephys_acute", "imaging"),
    ("ephys_chronic", "imaging_no_curation"),
    ("ephys_no_curation", "imaging_preprocess"),
    ("ephys_precluster", "imaging_no_curation"),
)

HEAVY = ("plotly", "pyopenephys")
"""Packages that Elements import for readers and plots, and that declaring tables needs not."""


class Absent(types.ModuleType):
    """Stands for a package that is not installed: any name can be imported from it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in HEAVY:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, AbsentFinder())
dj_dagster.replace_datajoint()

import datajoint as dj  # noqa: E402

URL, PREFIX = sys.argv[1:]

dj.config["database.url"] = URL
dj.config["safemode"] = False
dj.config["enable_python_native_blobs"] = True
dj.config["custom"] = {"database.prefix": PREFIX}

from element_animal import genotyping, subject, surgery  # noqa: E402
from element_array_ephys import probe  # noqa: E402
from element_calcium_imaging import analysis, scan  # noqa: E402
from element_event import event, trial  # noqa: E402
from element_lab import lab, project  # noqa: E402
from element_lab.lab import Device as Equipment  # noqa: E402, F401
from element_lab.lab import Lab, Location, Protocol, Source, User  # noqa: E402, F401
from element_lab.lab import User as Experimenter  # noqa: E402, F401
from element_lab.project import Project  # noqa: E402, F401
from element_session import session_with_datetime as session  # noqa: E402
from element_session.session_with_datetime import Session  # noqa: E402

Subject = subject.Subject
db_prefix = dj.config["custom"].get("database.prefix", "")
here = sys.modules[__name__]


def get_ephys_root_data_dir():
    return "/data"


def get_imaging_root_data_dir():
    return "/data"


def get_session_directory(session_key):
    return (session.SessionDirectory & session_key).fetch1("session_dir")


lab.activate(db_prefix + "lab")


@lab.schema
class SkullReference(dj.Lookup):
    definition = """
    skull_reference   : varchar(60)
    """
    contents = zip(["Bregma", "Lambda"])


project.activate(db_prefix + "project", linking_module=here)
genotyping.activate(db_prefix + "genotyping", db_prefix + "subject", linking_module=here)
surgery.activate(db_prefix + "surgery", db_prefix + "subject", linking_module=here)
session.activate(db_prefix + "session", linking_module=here)
trial.activate(db_prefix + "trial", db_prefix + "event", linking_module=here)

schema = dj.schema(db_prefix + "own", locals())


@schema
class RecordingPair(dj.Computed):
    definition = """  # several rows for each key, with an attribute of their own in the key
    -> event.BehaviorRecording
    pair : tinyint unsigned
    ---
    gap : float
    -> [nullable] event.EventType
    """

    class Sample(dj.Part):
        definition = """
        -> master
        -> trial.Trial
        ---
        samples : longblob
        """

    @property
    def key_source(self):
        return event.BehaviorRecording & (event.Event & "event_start_time < 100")

    def make(self, key):
        starts, kinds = (event.Event & key).fetch(
            "event_start_time", "event_type", order_by="event_start_time"
        )
        trials = (trial.Trial & key).fetch("KEY", order_by="trial_id")
        for pair in range(len(starts) - 1):
            gap = float(starts[pair + 1] - starts[pair])
            self.insert1({**key, "pair": pair, "gap": gap, "event_type": kinds[pair]})
            self.Sample.insert(
                {**key, **trial_key, "pair": pair, "samples": [gap, (pair, None)]}
                for trial_key in trials
            )


def declared(modules):
    """Return the number of tables of each module, and those that the database lacks."""
    counts, missing = {}, []
    for module in modules:
        present = module.schema.list_tables()
        masters = [cls for cls in tables_in(module) if cls.__module__ == module.__name__]
        parts = [part for cls in masters for part in tables_in(cls)]
        missing.extend(
            f"{module.__name__}.{cls.__name__}"
            for cls in (*masters, *parts)
            if cls.table_name not in present or not cls.heading.primary_key
        )
        counts[module.__name__.partition(".")[2]] = len(masters) + len(parts)
    return {"counts": counts, "missing": missing}


def tables_in(holder):
    """Return the table classes that a module or a class holds."""
    values = vars(holder).values()
    return [value for value in values if inspect.isclass(value) and issubclass(value, dj.Table)]


def use():
    """Fill a few tables in the ways of the time, and return what is read back."""
    lab.Lab.insert1(("mine", "My lab", "Street 1", "UTC+1"))
    User.insert([("ann", "ann@lab.org", "", ""), ("bob", "", "", "")], skip_duplicates=True)
    subject.Subject.insert1(
        {"subject": "m1", "sex": "F", "subject_birth_date": "2024-01-31"}, skip_duplicates=True
    )
    when = datetime.datetime(2024, 5, 1, 12, 30)
    key = {"subject": "m1", "session_datetime": when}
    session.Session.insert1(key)
    session.SessionExperimenter.insert1({**key, "user": "ann"})
    event.BehaviorRecording.insert1({**key, "recording_duration": 3.5})
    event.EventType.insert([["go", ""], ["stop", "the end"]])
    event.Event.insert(
        ({**key, "event_type": kind, "event_start_time": start}
         for kind, start in [("go", 1), ("stop", 2.5), ("go", 4.25)]),
        allow_direct_insert=True,
    )  # fmt: skip
    trial.Trial.insert(
        [{**key, "trial_id": n, "trial_start_time": n, "trial_stop_time": n + 1} for n in (1, 2)],
        allow_direct_insert=True,
    )
    RecordingPair.populate(display_progress=False, order="random", limit=5)
    pairs, gaps = RecordingPair.fetch("pair", "gap", order_by="pair")
    sample = RecordingPair.Sample & {"pair": 1, "trial_id": 2}
    return {
        "experimenters": (User.proj(...) & session.SessionExperimenter).fetch("user").tolist(),
        "sessions": [str(k["session_datetime"]) for k in Session.fetch("KEY")],
        "pairs": [int(p) for p in pairs],
        "gaps": [float(g) for g in gaps],
        "sample": sample.fetch1("samples"),
        "progress": RecordingPair.progress(display=False),
        "trials": len(trial.Trial ^ {"trial_id": 1}),
        "frame": (event.Event & "event_type = 'go'").fetch(format="frame").index.names,
        "dicts": event.EventType.fetch(as_dict=True, order_by="KEY"),
    }


def vary(ephys_variant, imaging_variant):
    """Activate a variant of the ephys and imaging Elements, and use what they bring."""
    global ephys, imaging
    ephys = importlib.import_module(f"element_array_ephys.{ephys_variant}")
    imaging = importlib.import_module(f"element_calcium_imaging.{imaging_variant}")
    name = db_prefix + ephys_variant
    ephys.activate(name, db_prefix + "probe", linking_module=here)
    imaging.activate(f"{name}_imaging", db_prefix + "scan", linking_module=here)
    analysis.activate(f"{name}_analysis", linking_module=here)
    found = declared(
        [ephys, ephys.ephys_report, imaging, imaging.imaging_report, analysis, probe, scan]
    )
    imaging.ProcessingParamSet.insert_new_params("suite2p", 0, "defaults", {"tau": 1.25, "n": None})
    index = dj.U().aggr(imaging.ProcessingParamSet, n="max(paramset_idx)").fetch1("n")
    electrodes = probe.ProbeType.Electrode & {"probe_type": "neuropixels UHD"}
    columns = dj.U("shank_col").aggr(electrodes, n="count(*)").fetch("n", order_by="shank_col")
    return {
        **found,
        "params": (imaging.ProcessingParamSet & {"paramset_idx": index}).fetch1("params"),
        "hash": isinstance(imaging.ProcessingParamSet.fetch1("param_set_hash"), uuid.UUID),
        "probe types": len(probe.ProbeType()),
        "columns": [int(n) for n in columns],
    }


def main():
    shared = declared([lab, project, subject, genotyping, surgery, session, event, trial])
    print(json.dumps({**shared, "used": use()}), flush=True)
    for variants in VARIANTS:
        # Modules of several variants share one that can be activated once only.
        child = os.fork()
        if child == 0:
            print(json.dumps(vary(*variants)), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{variants} failed")
    deleted = (Subject & "subject = 'm1'").delete()
    print(json.dumps({"deleted": deleted, "left": len(Session()) + len(RecordingPair.Sample())}))


if __name__ == "__main__":
    main()
