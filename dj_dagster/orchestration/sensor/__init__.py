"""The populate sensor: its settings, state, and ticks."""
