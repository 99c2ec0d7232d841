"""Tests of the relational floor, on SQLite and on MariaDB."""
