"""asyncio-native tracing."""

__version__ = "0.1.0"
