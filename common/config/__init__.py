"""Configuration: files of every dialect, ``ss://`` links and flags, into one checked ``Config``."""

from common.config.loader import load_config
from common.config.schema import Config, Credential, Secret, Server
from common.config.ss_url import ServerLink, build_ss_url, parse_ss_url

__all__ = [
    "Config",
    "Credential",
    "Secret",
    "Server",
    "ServerLink",
    "build_ss_url",
    "load_config",
    "parse_ss_url",
]
