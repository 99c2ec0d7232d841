"""Diagrams of tables and their foreign keys."""
