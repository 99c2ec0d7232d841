"""Backups of a database with the objects that its rows refer to."""
