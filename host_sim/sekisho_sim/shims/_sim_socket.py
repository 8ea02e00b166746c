"""`socket`: real sockets, on loopback, and only while the station has an address."""

import socket as _s
from socket import (  # noqa: F401  (ports/esp32/modsocket.c has these, and not what the desk's has beyond them)
    AF_INET,
    AF_INET6,
    SO_BROADCAST,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from network import _resolve

__name__ = "socket"


def getaddrinfo(host, port, *rest):
    address = "127.0.0.1" if host == "0.0.0.0" else _resolve(host)  # noqa: S104 (from this desk only)
    if address is None:
        raise OSError(-202)
    return _s.getaddrinfo(address, port, *rest)
