"""Tests of the workflow floor, on SQLite and on MariaDB."""
