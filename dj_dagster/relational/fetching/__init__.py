"""Fetching of rows: queries are run, values decoded, and results built as rows or frames."""
