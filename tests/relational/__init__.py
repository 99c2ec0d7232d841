"""Tests of the relational floor, on SQLite, MariaDB and MySQL."""
