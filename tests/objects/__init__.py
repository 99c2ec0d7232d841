"""Tests of the objects floor."""
