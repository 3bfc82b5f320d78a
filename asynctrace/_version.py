"""The version, where every room can see it without the façade."""

__version__ = "0.1.0"
