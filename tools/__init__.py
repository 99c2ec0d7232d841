"""Scripts for the developers of dj_dagster, which are not installed with it."""
