"""Everything between ``emit`` and a sink's ``write``."""
