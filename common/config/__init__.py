"""Configuration: files of every dialect, ``ss://`` links and flags, into one checked ``Config``."""

from common.config.loader import load_config
from common.config.schema import Config, Credential, Local, Secret, Server, User
from common.config.ss_url import ServerLink, build_ss_url, parse_ss_url

__all__ = [
    "Config",
    "Credential",
    "Local",
    "Secret",
    "Server",
    "ServerLink",
    "User",
    "build_ss_url",
    "load_config",
    "parse_ss_url",
]
