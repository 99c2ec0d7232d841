"""Tests of the pipeline in pipelines/ephys; most need the extra of that name."""
