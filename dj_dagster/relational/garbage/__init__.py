"""Which objects rows refer to, and the collector of those that none does."""
