"""The state of pipelines as functions and commands tell it, without a run of Dagster."""
