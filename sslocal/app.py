"""``LocalApp``: the local front, its credentials and its servers, from a ``Config``."""

from __future__ import annotations

import functools
import os
import time

from common.app import RelayApp
from common.crypto import Cipher
from common.proto.front import FirstByteFront
from common.proto.http_proxy import HttpFront
from common.proto.request import Auth
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front
from sslocal.tcp import LocalHandler, Service
from sslocal.upstreams import Upstream, Upstreams


class LocalApp(RelayApp):
    """One sslocal process."""

    def open(self) -> None:
        config = self.config
        auth = None
        if config.auth:
            # Imported here: hmac brings in a second copy of OpenSSL, 4 MB that an open front need not pay.
            from sslocal.users import is_user

            passwords = {credential.user: credential.password.reveal() for credential in config.auth}
            auth = functools.partial(is_user, passwords)
        service = Service(
            Upstreams(
                [
                    Upstream(server.address, Cipher.from_password(server.method, server.password.reveal()))
                    for server in config.servers
                ]
            ),
            new_front=functools.partial(_new_front, auth, config.via),
            clock=time.time,
            random=os.urandom,
        )
        self.relay(config.local, functools.partial(LocalHandler, service=service))


def _new_front(auth: Auth | None, via: str | None) -> FirstByteFront:
    return FirstByteFront(
        socks4=functools.partial(Socks4Front, auth),
        socks5=functools.partial(Socks5Front, auth),
        http=functools.partial(HttpFront, auth, via=via),
    )
