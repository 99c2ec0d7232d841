"""The relational floor: schemas, tables and queries on SQLite, MariaDB and MySQL."""
