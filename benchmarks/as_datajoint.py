"""A plugin for pytest that puts dj_dagster in the place of DataJoint, for `datajoint_suites`."""

import os

import dj_dagster

dj_dagster.replace_datajoint(era=os.environ.get("DJ_SUITE_ERA") or None)
