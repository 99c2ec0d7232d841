"""Translation of query trees to SQL."""
