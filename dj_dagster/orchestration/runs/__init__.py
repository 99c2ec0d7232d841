"""Runs: the work of a step, and its records in the event log."""
