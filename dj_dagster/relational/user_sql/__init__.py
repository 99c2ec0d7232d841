"""SQL that users write, which is MySQL's: read, checked, and given MySQL's meaning on SQLite."""
