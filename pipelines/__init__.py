"""The demo: a heart-rate lab whose raw data are the recordings that ship with HeartPy."""
