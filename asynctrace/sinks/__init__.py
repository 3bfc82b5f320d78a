"""Destinations of records: one file each, and the registry that finds them by URL scheme."""
