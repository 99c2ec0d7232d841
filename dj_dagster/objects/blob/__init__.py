"""DataJoint's format of packed values."""
