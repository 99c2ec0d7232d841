"""Labs that last as long as a test: a database, folders for stores, and fresh modules."""
