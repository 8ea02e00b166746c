"""A small client of hawkBit's management API, for our embedded server and for Eclipse hawkBit alike."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import select
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import ToolError
from .files import why

SECONDS = 30
"""How long the server may take for one answer."""
MAX_ANSWER = 64 << 20
PAGE = 500
CODES = {403: "RIGHTS", 404: "NOT_FOUND", 409: "CONFLICT", 429: "TOO_MANY", 503: "BUSY"}
"""HTTP status -> code of the error; REQUEST for every other refusal."""


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ToolError("TLS", f"Cannot use the certificate {ca}: {error}.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Api:
    """The management API of the server at *url* (``https://updates.example.com``).

    *ca*: PEM file of the authority that signed the server's certificate; default the system's. Raises ToolError SERVER
    (no answer, or an odd one), LOGIN (wrong name or password), RIGHTS, and REQUEST with the server's own words.
    """

    def __init__(self, url: str, user: str, password: str, ca: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ToolError("SERVER", f"{url!r} is no server address such as https://updates.example.com.")
        self.url = url.rstrip("/")
        self._root = parts.path.rstrip("/") + "/rest/v1"
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Accept": "application/json"}
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=SECONDS, context=_context(ca)
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """One request below ``/rest/v1``; returns status and body. Raises ToolError SERVER."""
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        if self._hung_up():
            self._connection.close()
        for attempt in (1, 2):
            try:
                self._connection.request(method, self._root + path, body, headers)
                answer = self._connection.getresponse()
                data = answer.read(MAX_ANSWER)
                return answer.status, data
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # A connection kept open may have been closed meanwhile; a request that may have been done is not sent
                # again.
                self._connection.close()
                if attempt == 2 or method not in ("GET", "PUT"):
                    raise ToolError("SERVER", f"{self.url} hung up.") from error
            except ssl.SSLError as error:
                raise ToolError("TLS", f"{self.url} cannot be trusted: {error.reason or error}.") from error
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                words = why(error) if isinstance(error, OSError) else str(error)
                raise ToolError("SERVER", f"{self.url} cannot be reached: {words}.") from error
        raise AssertionError

    def _hung_up(self) -> bool:
        """Whether the connection kept open was closed meanwhile: one that waits for nothing has nothing to read."""
        if self._connection.sock is None:
            return False
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        return bool(poll.poll(0))

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request with JSON both ways; returns the decoded answer, None where there is none."""
        if query:
            path += "?" + urlencode({name: value for name, value in query.items() if value is not None})
        data = None if body is None else json.dumps(body).encode()
        return self._read(method, path, *self.request(method, path, data, "application/json" if data else ""))

    def _read(self, method: str, path: str, status: int, data: bytes) -> Any:
        if status == 401:
            raise ToolError("LOGIN", f"{self.url} does not accept this name and password.")
        try:
            found = json.loads(data) if data else None
        except ValueError:
            found = None
            if status < 400:
                raise ToolError("SERVER", f"{self.url} answered {method} {path} with something odd.") from None
        if status < 300:
            return found
        words = found.get("message") if isinstance(found, dict) else None
        code = CODES.get(status, "REQUEST")
        raise ToolError(code, f"{self.url} refuses: {words or f'HTTP {status}'}".rstrip(".") + ".")

    def everything(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All entries of a list, page after page."""
        offset = 0
        while True:
            page = self.call("GET", path, offset=offset, limit=PAGE, **query)
            content = page["content"] if isinstance(page, dict) else page
            yield from content
            offset += len(content)
            if not isinstance(page, dict) or not content or offset >= page["total"]:
                return

    def upload(self, module: int, filename: str, data: bytes, sha256: str) -> Any:
        """Store an artifact of a software module; the server checks *sha256*."""
        edge = secrets.token_hex(16)
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        path = f"/softwaremodules/{module}/artifacts?" + urlencode({"filename": filename, "sha256sum": sha256})
        return self._read("POST", path, *self.request("POST", path, body, f"multipart/form-data; boundary={edge}"))

    def put(self, path: str, data: bytes, kind: str) -> None:
        """Put *data* of the media type *kind*."""
        self._read("PUT", path, *self.request("PUT", path, data, kind))

    def download(self, path: str) -> bytes:
        """The bytes of an artifact."""
        status, data = self.request("GET", path)
        if status != 200:
            self._read("GET", path, status, data)
            raise ToolError("SERVER", f"{self.url} answered GET {path} with HTTP {status}.")
        return data

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def quoted(text: str) -> str:
    """A value for a filter, whatever is in it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def target_path(controller_id: str) -> str:
    """``/targets/<id>``."""
    return f"/targets/{quote(controller_id, safe='')}"


def credentials(
    server: str | None, user: str | None, password_file: Path | None, variable: str = "SEKISHO_PASSWORD"
) -> tuple[str, str, str]:
    """Server, name and password: what was given, else SEKISHO_SERVER, SEKISHO_USER and the environment's *variable*.

    Raises ToolError SERVER or LOGIN when something is missing. A password is never an argument: others could see it.
    """
    server = server or os.environ.get("SEKISHO_SERVER")
    user = user or os.environ.get("SEKISHO_USER")
    password = os.environ.get(variable)
    if password_file is not None:
        try:
            password = password_file.read_text().rstrip("\r\n")
        except OSError as error:
            raise ToolError("FILE", f"Cannot read the password file {password_file}: {why(error)}.") from error
    if not server:
        raise ToolError("SERVER", "Name the server with --server or SEKISHO_SERVER.")
    if not user or password is None:
        raise ToolError(
            "LOGIN",
            f"Name the operator with --user or SEKISHO_USER, the password with --password-file or {variable}.",
        )
    return server, user, password
