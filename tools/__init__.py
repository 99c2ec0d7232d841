"""Scripts for those who work on dj_dagster; none is installed with it."""
