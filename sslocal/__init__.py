"""sslocal: the HTTP and SOCKS front on a laptop. ``LocalApp`` is its API."""

from sslocal.app import LocalApp

__all__ = ["LocalApp"]
