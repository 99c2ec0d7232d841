"""Spellings and modules of DataJoint 0.13 and 0.14, and DataJoint's own module names."""
