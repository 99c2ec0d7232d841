"""Codecs: Python values as column values and objects in stores."""
