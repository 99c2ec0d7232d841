"""A lab of DataJoint 0.14 moves as the tutorial says, on a latin1 database that 0.14 has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from tests.compat.conftest import old_datajoint
from tests.services.database_server import drop_databases
from tests.services.process import PATIENCE

__all__ = ["old_datajoint"]

SCHEMA = "neuro_lab"
REPOSITORY = Path(__file__).parents[2]
OLD_PYTHON = """\
#!/bin/sh
HOME={home} PYTHONPATH={packages} DJ_SUPPORT_FILEPATH_MANAGEMENT=TRUE exec {python} -S -c '
import runpy, site, sys
site.addsitedir("{site}")
sys.modules["dj_dagster"] = None
sys.path.insert(0, "")
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
' "$@"
"""
"""The interpreter of an environment with DataJoint 0.14 alone."""


def test_a_lab_of_0_14_moves(mariadb_url: str, old_datajoint: Path, tmp_path: Path) -> None:
    server = sa.make_url(mariadb_url)
    engine = sa.create_engine(server)
    drop_databases(mariadb_url, SCHEMA)
    with engine.begin() as session:
        session.exec_driver_sql(f"CREATE DATABASE {SCHEMA} CHARACTER SET latin1")
    (tmp_path / "raw").mkdir()
    settings = {
        "database.host": server.host,
        "database.port": server.port,
        "database.user": server.username,
        "database.password": server.password or "",
        "database.use_tls": False,
        "enable_python_native_blobs": True,
        "stores": {"raw": {"protocol": "file", "location": str(tmp_path / "raw")}},
    }
    (tmp_path / "dj_local_conf.json").write_text(json.dumps(settings))
    python = tmp_path / "old" / "bin" / "python"
    python.parent.mkdir(parents=True)
    packages = Path(sa.__file__).parents[1]
    python.write_text(
        OLD_PYTHON.format(
            home=tmp_path, packages=old_datajoint, python=sys.executable, site=packages
        )
    )
    python.chmod(0o755)
    command = [sys.executable, "-m", "tests.docs.pages", "--folder", str(tmp_path), "move-014"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with engine.connect() as session:
        shown = session.exec_driver_sql(f"SHOW CREATE TABLE {SCHEMA}.session").one()[1]
    assert "DEFAULT CHARSET=latin1" in shown
    assert ":<blob>:" not in shown
    drop_databases(mariadb_url, SCHEMA)
    engine.dispose()
