"""A web server that misbehaves on request: the path names the sin. One thread per connection, raw sockets."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter

CRLF = b"\r\n"
CLASS = "00010203-0405-0607-0809-0a0b0c0d0e0f"
"""The product class whose documents are served honestly, from `BadServer.documents`."""


class BadServer:
    """Serves `payload` under many paths; the sins are the methods named `sin_*` (``-`` in the path is ``_``)."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.documents: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.count: Counter[str] = Counter()
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> BadServer:
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # a close alone does not wake `accept`
        self.thread.join(10)
        self.listener.close()

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                more = sock.recv(4096)
                if not more:
                    return
                data += more
            data, _, body = data.partition(CRLF + CRLF)
            lines = data.split(CRLF)
            method, path = lines[0].decode().split(" ")[:2]
            headers = {k.strip().lower(): v.strip() for k, v in (x.decode().split(":", 1) for x in lines[1:] if x)}
            while len(body) < int(headers.get("content-length", 0)):
                more = sock.recv(4096)
                if not more:
                    return
                body += more
            headers |= {":method": method, ":body": body.decode()}
            self.requests.append((path, headers))
            self.count[path] += 1
            if path.split("/")[1] == CLASS:
                document = self.documents.get(path.split("/")[2])
                if document is None:
                    self.head(sock, 404, "Content-Length: 0")
                else:
                    self.honest(sock, headers, document, f'"{zlib.crc32(document)}"')
                return
            getattr(self, "sin_" + path.strip("/").split("/")[0].replace("-", "_"))(sock, headers, path)

    # -- pieces ----------------------------------------------------------------------------------
    @staticmethod
    def head(sock: socket.socket, status: int, *headers: str) -> None:
        sock.sendall("\r\n".join([f"HTTP/1.1 {status} X", *headers, "", ""]).encode())

    def honest(self, sock, headers, body: bytes, etag: str = '"a"', cut: int | None = None) -> None:
        """What a good server does, but for closing the connection after `cut` bytes of the body."""
        found = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        start = int(found[1]) if found else 0
        if start and headers.get("if-range", etag) == etag:
            if start >= len(body):
                self.head(sock, 416, f"Content-Range: bytes */{len(body)}", "Content-Length: 0")
                return
            span = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
            self.head(sock, 206, f"Content-Length: {len(body) - start}", span, f"ETag: {etag}")
            sock.sendall(body[start:][:cut])
        elif headers.get("if-none-match") == etag:
            self.head(sock, 304, f"ETag: {etag}")
        else:
            self.head(sock, 200, f"Content-Length: {len(body)}", f"ETag: {etag}")
            sock.sendall(body[:cut])

    # -- sins ------------------------------------------------------------------------------------
    def sin_good(self, sock, headers, path):
        self.honest(sock, headers, self.payload)

    def sin_truncates(self, sock, headers, path):
        self.honest(sock, headers, self.payload, cut=5000)

    def sin_truncates_once(self, sock, headers, path):
        self.honest(sock, headers, self.payload, cut=5000 if self.count[path] == 1 else None)

    def sin_always_changes(self, sock, headers, path):
        self.honest(sock, headers, self.payload, etag=f'"{self.count[path]}"', cut=5000)

    def sin_changes_midway(self, sock, headers, path):
        if self.count[path] == 1:
            self.honest(sock, headers, bytes(len(self.payload)), etag='"old"', cut=len(self.payload) // 2)
        else:
            self.honest(sock, headers, self.payload, etag='"new"')

    def sin_ignores_range(self, sock, headers, path):
        self.head(sock, 200, f"Content-Length: {len(self.payload)}", 'ETag: "a"')  # no word about ranges
        sock.sendall(self.payload[: None if self.count[path] > 1 else len(self.payload) // 2])

    def sin_wrong_range(self, sock, headers, path):
        size = len(self.payload)
        self.head(sock, 206, f"Content-Length: {size - 100}", f"Content-Range: bytes 100-{size - 1}/{size}")
        sock.sendall(self.payload[100:])

    def sin_range_length_differs(self, sock, headers, path):
        size = len(self.payload)
        self.head(sock, 206, "Content-Length: 5", f"Content-Range: bytes 4096-{size - 1}/{size}")
        sock.sendall(self.payload[4096:])

    def sin_range_without_header(self, sock, headers, path):
        self.head(sock, 206, "Content-Length: 5")
        sock.sendall(b"abcde")

    def sin_says_longer(self, sock, headers, path):
        self.head(sock, 200, f"Content-Length: {len(self.payload) + 1000}")
        sock.sendall(self.payload)

    def sin_says_shorter(self, sock, headers, path):
        self.head(sock, 200, "Content-Length: 100")
        sock.sendall(self.payload)

    def sin_wrong_bytes(self, sock, headers, path):
        self.honest(sock, headers, self.payload[:-1] + b"!")

    def sin_no_etag(self, sock, headers, path):
        self.head(sock, 200, f"Content-Length: {len(self.payload)}")
        sock.sendall(self.payload[: None if self.count[path] > 1 else len(self.payload) // 2])

    def sin_loses_the_file(self, sock, headers, path):
        if self.count[path] == 1:
            self.honest(sock, headers, self.payload, cut=5000)
        elif self.count[path] == 2:
            self.head(sock, 416, "Content-Range: bytes */10", "Content-Length: 0")
        else:
            self.honest(sock, headers, self.payload, etag='"b"')

    def sin_status(self, sock, headers, path):
        self.head(sock, int(path.split("/")[2]), "Content-Length: 0", "Retry-After: 70")

    def sin_retry_after_years(self, sock, headers, path):
        self.head(sock, 429, "Content-Length: 0", "Retry-After: 999999999")

    def sin_retry_after(self, sock, headers, path):
        self.head(sock, 503, "Content-Length: 0", "Retry-After: " + path.split("/")[2].replace("%20", " "))

    def sin_busy_midway(self, sock, headers, path):
        if self.count[path] == 2:
            self.head(sock, 503, "Content-Length: 0", "Retry-After: 77")
        else:
            self.honest(sock, headers, self.payload, cut=5000 if self.count[path] == 1 else None)

    def sin_no_length(self, sock, headers, path):
        self.head(sock, 200)
        sock.sendall(b"text")

    def sin_two_lengths(self, sock, headers, path):
        self.head(sock, 200, "Content-Length: 4", "Content-Length: 5")
        sock.sendall(b"texts")

    def sin_negative_length(self, sock, headers, path):
        self.head(sock, 200, "Content-Length: -4")

    def sin_enormous_length(self, sock, headers, path):
        self.head(sock, 200, "Content-Length: 99999999999999999999")

    def sin_chunked(self, sock, headers, path):
        self.head(sock, 200, "Transfer-Encoding: chunked")
        sock.sendall(b"4\r\ntext\r\n0\r\n\r\n")

    def sin_gzip(self, sock, headers, path):
        self.head(sock, 200, "Content-Encoding: gzip", "Content-Length: 4")
        sock.sendall(b"text")

    def sin_big_head(self, sock, headers, path):
        self.head(sock, 200, "X-Fill: " + "x" * 3000, "Content-Length: 4")
        sock.sendall(b"text")

    def sin_endless_head(self, sock, headers, path):
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        while not self.stop.wait(0.001):
            sock.sendall(b"X-More: of the same\r\n")

    def sin_not_http(self, sock, headers, path):
        sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")

    def sin_binary(self, sock, headers, path):
        sock.sendall(bytes(range(256)) * 2 + b"\r\n\r\n")

    def sin_odd_headers(self, sock, headers, path):
        sock.sendall(b'HTTP/1.1 200 OK\r\n\xff\xfe\r\n:\r\nno colon\r\nETag: \xff"\n\r\ncontent-length:4\r\n\r\ntext')

    def sin_closes(self, sock, headers, path):
        pass

    def sin_resets(self, sock, headers, path):
        self.head(sock, 200, "Content-Length: 100000")
        sock.sendall(b"x" * 10)
        time.sleep(0.05)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def sin_silent(self, sock, headers, path):
        self.stop.wait(30)

    def sin_stalls(self, sock, headers, path):
        self.head(sock, 200, f"Content-Length: {len(self.payload)}", 'ETag: "a"')
        sock.sendall(self.payload[:6000])
        self.stop.wait(30)

    def sin_drips(self, sock, headers, path):
        self.head(sock, 200, f"Content-Length: {len(self.payload)}")
        for value in self.payload:
            sock.sendall(bytes([value]))
            if self.stop.wait(0.02):
                return

    def sin_drips_head(self, sock, headers, path):
        for value in b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 200:
            sock.sendall(bytes([value]))
            if self.stop.wait(0.02):
                return

    def sin_redirect(self, sock, headers, path):
        self.head(sock, 302, "Location: /good", "Content-Length: 0")

    def sin_redirect_loop(self, sock, headers, path):
        self.head(sock, 301, "Location: /redirect-loop", "Content-Length: 0")

    def sin_redirect_away(self, sock, headers, path):
        self.head(sock, 307, f"Location: http://localhost:{self.port}/good", "Content-Length: 0")

    def sin_redirect_nowhere(self, sock, headers, path):
        self.head(sock, 308, "Content-Length: 0")
