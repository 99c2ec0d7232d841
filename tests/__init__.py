"""The tests of dj_dagster."""
