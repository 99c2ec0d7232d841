"""Deleting rows with all that depend on them."""
