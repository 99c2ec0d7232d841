"""Tests of the workflow floor, on SQLite, MariaDB and MySQL."""
