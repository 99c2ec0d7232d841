"""Schemas: from classes to tables, and from tables to classes."""
