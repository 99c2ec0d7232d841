"""References of rows to objects, and the garbage collector of objects without references."""
