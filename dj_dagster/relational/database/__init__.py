"""The database: connections, the catalogue of its tables, and the only way to write rows to it."""
