"""Users' SQL, which is MySQL's: parsing, checks, and its translation for SQLite."""
