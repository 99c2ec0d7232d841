"""Object stores: folders, buckets, and their settings."""
