"""Rows on their way in."""
