"""Releases: chosen results as a folder of files for others, with where they come from."""
