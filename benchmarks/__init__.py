"""Measurements against the peer; each prints ratios from one run."""
