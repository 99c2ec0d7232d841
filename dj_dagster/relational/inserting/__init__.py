"""Insertion and update of rows: sources of rows, checks, encoding and writing."""
