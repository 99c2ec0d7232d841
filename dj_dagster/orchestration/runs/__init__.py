"""Runs: what a step does, and what the event log keeps of it."""
