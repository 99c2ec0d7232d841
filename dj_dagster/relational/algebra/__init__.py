"""Queries as plain data."""
