"""Deletion of rows with all rows that depend on them."""
