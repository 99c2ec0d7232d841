"""Schemas: tables declared from classes, and classes made from tables."""
