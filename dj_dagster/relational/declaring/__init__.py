"""Declaration, description, alteration and dropping of tables."""
