"""ssserver: the far end, on a VPS. ``ServerApp`` is its API."""

from ssserver.app import ServerApp

__all__ = ["ServerApp"]
