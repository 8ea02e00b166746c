"""A static directory over HTTP, as devices need it: ranges, If-Range, and ETags made from the content itself.

The directory is what `publish` makes; any other web server that knows ranges will do as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .errors import ToolError
from .files import why

PIECE = 64 * 1024
"""Bytes read from disk and handed to the connection at a time."""

STOP_SECONDS = 5
"""How long a stop waits for running downloads before it closes them; devices resume."""

_RANGE = re.compile(r"bytes=(\d{1,15})?-(\d{1,15})?")


@dataclass(frozen=True)
class Span:
    """The bytes ``start`` to ``stop`` (exclusive) of a file."""

    start: int
    stop: int


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that *header* asks for, clipped to *size*; None where the whole file is the answer.

    Headers that are malformed or ask for several ranges are ignored, as RFC 9110 section 14.2 allows. Raises
    ValueError where nothing of the range exists (status 416).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if first is None:
        span = Span(max(0, size - int(last)), size)
    else:
        if last is not None and int(last) < int(first):
            return None
        span = Span(int(first), size if last is None else min(size, int(last) + 1))
    if span.start >= span.stop:
        raise ValueError(header)
    return span


def find(root: Path, path: str) -> Path | None:
    """The file below *root* that *path* (from a URL, decoded) names, or None.

    Names that begin with a dot, empty ones, and everything that leaves *root* (``..``, symbolic links) are not found.
    """
    parts = path.split("/")
    if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    try:
        found = root.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return found if found.is_relative_to(root) else None


@lru_cache(maxsize=256)
def _content_etag(path: Path, device: int, inode: int, size: int, changed: int) -> str:
    with path.open("rb") as file:
        now = os.fstat(file.fileno())
        if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (device, inode, size, changed):
            raise FileNotFoundError(path)
        return f'"{hashlib.file_digest(file, "sha256").hexdigest()}"'


def _open(path: Path) -> tuple[BinaryIO, int, str]:
    """An open file, its size and its strong ETag, all three of the same content."""
    for _ in range(3):  # a file replaced between the looks is simply looked at again
        file = path.open("rb")
        try:
            state = os.fstat(file.fileno())
            if stat.S_ISREG(state.st_mode):
                return (
                    file,
                    state.st_size,
                    _content_etag(path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns),
                )
        except FileNotFoundError:
            file.close()
            continue
        except BaseException:
            file.close()
            raise
        file.close()
        break
    raise FileNotFoundError(path)


async def _pieces(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    with file:
        file.seek(span.start)
        left = span.stop - span.start
        while left:
            piece = await anyio.to_thread.run_sync(file.read, min(PIECE, left))
            if not piece:
                break  # shrunk under our feet: the connection ends short and the device notices
            left -= len(piece)
            yield piece


def _matches(header: str | None, etag: str) -> bool:
    return header is not None and any(tag.strip().removeprefix("W/") in (etag, "*") for tag in header.split(","))


def application(root: Path) -> Starlette:
    """The ASGI application that serves the files below *root* with GET and HEAD."""
    root = root.resolve()

    async def answer(request: Request) -> Response:
        path = find(root, request.path_params["path"])
        try:
            if path is None:
                raise FileNotFoundError
            file, size, etag = await anyio.to_thread.run_sync(_open, path)
        except OSError:
            return PlainTextResponse("not found\n", 404)
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
        if request.method == "HEAD" or _matches(request.headers.get("if-none-match"), etag):
            file.close()
            unchanged = _matches(request.headers.get("if-none-match"), etag)
            return Response(None, 304 if unchanged else 200, headers | ({} if unchanged else _length(size)))
        same = request.headers.get("if-range", etag) == etag
        try:
            span = parse_range(request.headers.get("range"), size) if same else None
        except ValueError:
            file.close()
            return PlainTextResponse("", 416, headers | {"Content-Range": f"bytes */{size}"})
        if span is None:
            return _stream(file, Span(0, size), 200, headers)
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        return _stream(file, span, 206, headers)

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "HEAD"])])


def _length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size)}


def _stream(file: BinaryIO, span: Span, status: int, headers: dict[str, str]) -> Response:
    headers = headers | _length(span.stop - span.start)
    return StreamingResponse(_pieces(file, span), status, headers, "application/octet-stream")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ToolError PORT_IN_USE or ADDRESS with a sentence that says what to do."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == 98 or error.errno == 48:  # EADDRINUSE on Linux and macOS
            raise ToolError(
                "PORT_IN_USE", f"Port {port} on {host} is in use; stop the other server or choose another --port."
            ) from error
        raise ToolError("ADDRESS", f"Cannot listen on {host} port {port}: {why(error)}.") from error


def check_root(root: Path) -> Path:
    """*root* as an absolute path. Raises ToolError FILE when it is no directory."""
    if not root.is_dir():
        raise ToolError("FILE", f"{root} is not a directory; make one with `sekisho publish --to {root} ...`.")
    return root.resolve()


class StaticServer:
    """The server of one directory: ``run()`` blocks until Ctrl-C or SIGTERM; as a context it runs in a thread.

    Attribute ``url`` is its base address, known before it runs (*port* 0 takes a free one). *wrap* puts another ASGI
    application around the site, to count or to spoil what it sends.
    """

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        access_log: bool = False,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self.root = check_root(root)
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        site = application(self.root)
        config = uvicorn.Config(
            wrap(site) if wrap else site,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
            h11_max_incomplete_event_size=16 * 1024,
            limit_concurrency=1000,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is asked to stop; running downloads get STOP_SECONDS to end."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def __enter__(self) -> StaticServer:
        self._thread = threading.Thread(target=self.run, name="sekisho-serve", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS + 5)
