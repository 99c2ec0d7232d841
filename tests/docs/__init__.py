"""Tests of the documentation: its pages say what is so, and its snippets run."""
