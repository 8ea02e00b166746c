"""What MicroPython's `socket` and `time` have and CPython's lack, so that the device's network code runs on both."""

import socket as _socket
import time

SOCK_STREAM = _socket.SOCK_STREAM
getaddrinfo = _socket.getaddrinfo


class socket(_socket.socket):
    """MicroPython's stream methods: None where a non-blocking socket has nothing to say."""

    def readinto(self, buf):
        try:
            return self.recv_into(buf)
        except BlockingIOError:
            return None

    def write(self, data):
        try:
            return self.send(data)
        except BlockingIOError:
            return None


def install() -> None:
    """Gives `time` MicroPython's tick functions and the HTTP client these sockets."""
    if not hasattr(time, "ticks_ms"):
        time.ticks_ms = lambda: time.monotonic_ns() // 1_000_000
        time.ticks_add = lambda ticks, delta: ticks + delta
        time.ticks_diff = lambda end, start: end - start
    import sys

    import sekisho.http

    sekisho.http.socket = sys.modules[__name__]
