"""From query trees to SQL."""
