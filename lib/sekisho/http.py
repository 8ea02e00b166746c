"""A small HTTP/1.1 client that no server can hurt: everything bounded, one request at a time.

It reads a body piece by piece into the caller's buffer, resumes with Range and If-Range, and refuses whatever it
would have to guess about: no or double Content-Length, chunked files, a range it did not ask for, a redirect to
another origin. Small documents may be chunked, and a `Line` keeps their connection open from one to the next.

Non-blocking sockets under asyncio; time limits are deadlines, so one rule covers a silent server and one that drips:
the whole answer head, every piece of a file (at most 4 KiB), and a small document must arrive within PATIENCE.
Only the look-up of a name blocks the application, for as long as the network stack takes.
"""

import asyncio
import select
import socket
import time
from errno import EINPROGRESS

from micropython import const
from sekisho_boot.reasons import NETWORK, NOTHING, RETRY_LATER, SERVER, Refused

MAX_URL = const(512)  # bytes; longer ones are refused before a connection is made
MAX_HEAD = const(2048)  # bytes of status line and headers together
MAX_REDIRECTS = const(3)
MIN_PAUSE = const(30)  # s; a shorter Retry-After becomes this, a longer one than
MAX_PAUSE = const(86400)  # this is cut to it; none, or one that is a date, leaves the pause to the caller
PATIENCE = 30_000  # ms for the connection, for the answer head, and for each piece of the body
_NAP = 0.005  # s between two looks at a socket that has nothing to say


def hear(_: str) -> None:
    """Replaced by whoever wants the Date header of servers whose certificate was verified."""


def early(_: int) -> bool:
    """Replaced by whoever may move the clock on to the first second of a certificate, see `clock.proved`."""
    return False


class Failed(Refused):
    """A request that failed: ``code`` is a reason code, ``detail`` one sentence, ``pause`` the server's wish in s.

    ``status`` is the answer's HTTP status where that is what failed, else 0.
    """

    def __init__(self, code: int, detail: str, pause: int = 0, status: int = 0) -> None:
        super().__init__(code)
        self.detail = detail
        self.pause = pause
        self.status = status
        self.challenge = ""  # what a 401 wants to be signed
        self.born = 0  # first second of the youngest certificate, where all that speaks against it is its youth


def split(url: str) -> tuple:
    """Splits an absolute URL into (scheme, host, port, path). Raises Failed(SERVER) for any other text."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    host, _, port = host.partition(":")
    port = port or ("443" if scheme == "https" else "80")
    ok = scheme in ("http", "https") and host and port.isdigit() and 0 < len(port) < 6 and len(url) <= MAX_URL
    # Blanks and control characters would end the request line; "@" hides the real host; "[" is an IPv6 literal.
    if not ok or any(c <= " " or c > "~" or c in '@["\\' for c in url):
        raise Failed(SERVER, "not a usable URL: %r" % url[:80])
    return scheme, host, int(port), "/" + path.partition("#")[0]


def join(base: str, reference: str) -> str:
    """The absolute URL of *reference* (absolute, or a path from the root) as seen from *base*."""
    if "://" in reference:
        return reference
    if reference[:1] != "/" or reference[:2] == "//":
        raise Failed(SERVER, "not a usable URL: %r" % reference[:80])
    scheme, host, port, _ = split(base)
    return "%s://%s:%d%s" % (scheme, host, port, reference)


def _number(text) -> int:
    """A non-negative decimal number of at most ten digits, or -1. Takes bytes."""
    return int(text) if text.isdigit() and len(text) <= 10 else -1


def _plain(value) -> str:
    """A header value that may be sent back: printable ASCII without blanks, else nothing."""
    return str(value, "utf-8") if len(value) <= MAX_URL and all(32 < c < 127 for c in value) else ""


class Response:
    """The answer to one request. ``start`` is where its body begins in the file, ``total`` the size of the whole file,
    ``date`` the server's time as it says it, ``keep`` whether its connection may be used once more."""

    def __init__(self, sock) -> None:
        self._sock = sock
        self._chunked = False
        self._sized = False
        self.keep = False
        self.date = ""
        self._spare = b""  # body bytes that came with the head
        self.status = 0
        self.start = 0
        self.total = 0
        self.left = 0  # body bytes not read yet
        self.etag = ""
        self.location = ""
        self.pause = 0
        self.challenge = ""

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    async def _some(self, view, deadline) -> int:
        """Waits for bytes; returns how many came, 0 when the server closed the connection."""
        while True:
            try:
                got = self._sock.readinto(view)
            except OSError as error:
                raise Failed(NETWORK, "connection lost (%s)" % error)
            if got is not None:
                return got
            if time.ticks_diff(deadline, time.ticks_ms()) < 0:
                raise Failed(NETWORK, "the server stalled or was too slow")
            await asyncio.sleep(_NAP)

    async def readinto(self, buf, deadline=None) -> int:
        """Fills *buf* with the next bytes of the body; returns their number, less than asked only at its end.

        Raises Failed(NETWORK) when the connection breaks, ends early, or the bytes take longer than PATIENCE (or come
        after *deadline*, in ticks).
        """
        view = memoryview(buf)
        want = min(len(view), self.left)
        done = min(want, len(self._spare))
        view[:done] = self._spare[:done]
        self._spare = self._spare[done:]
        deadline = deadline or time.ticks_add(time.ticks_ms(), PATIENCE)
        while done < want:
            got = await self._some(view[done:want], deadline)
            if not got:
                raise Failed(NETWORK, "the server closed the connection %d bytes early" % (self.left - done))
            done += got
        self.left -= done
        await asyncio.sleep(0)  # let the application run between two pieces
        return done

    async def document(self, limit: int):
        """The whole body, at most *limit* bytes, chunked or not, within PATIENCE. Raises Failed."""
        deadline = time.ticks_add(time.ticks_ms(), PATIENCE)
        if not self._chunked:
            if self.left > limit:
                raise Failed(SERVER, "%d bytes where at most %d are taken" % (self.left, limit))
            body = bytearray(self.left)
            await self.readinto(body, deadline)
            return body
        body = bytearray()
        size = 1
        while size:
            line = await self._exactly(2, deadline)
            while line[-2:] != b"\r\n" and len(line) < 40:
                line += await self._exactly(1, deadline)
            size = _chunk(line)
            if size < 0 or len(body) + size > limit:
                raise Failed(SERVER, "a chunk makes no sense, or over %d bytes in all" % limit)
            part = await self._exactly(size + 2, deadline)
            if part[size:] != b"\r\n":  # trailers are among what is refused
                raise Failed(SERVER, "a chunk has no end")
            body += memoryview(part)[:size]
        return body

    async def _exactly(self, size: int, deadline):
        part = bytearray(size)
        self.left = size
        await self.readinto(part, deadline)
        return part

    async def _read_head(self) -> None:
        head = bytearray(MAX_HEAD)
        view = memoryview(head)
        size, end = 0, -1
        deadline = time.ticks_add(time.ticks_ms(), PATIENCE)
        while end < 0:
            if size == MAX_HEAD:
                raise Failed(SERVER, "the answer's headers are over %d bytes" % MAX_HEAD)
            got = await self._some(view[size:], deadline)
            if not got:
                raise Failed(NETWORK, "the server closed the connection without an answer")
            size += got
            end = bytes(view[:size]).find(b"\r\n\r\n")
        self._spare = bytes(view[end + 4 : size])
        self._parse(bytes(view[:end]).split(b"\r\n"))

    def _parse(self, lines: list) -> None:
        first = lines[0].split(b" ")
        if len(first) < 2 or first[0] not in (b"HTTP/1.1", b"HTTP/1.0") or len(first[1]) != 3:
            raise Failed(SERVER, "the server does not speak HTTP/1.1")
        self.status = _number(first[1])
        self.keep = first[0] == b"HTTP/1.1"
        length, span = -1, None
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip()
            if name == b"content-length":
                if length >= 0 or _number(value) < 0:
                    raise Failed(SERVER, "the answer's Content-Length makes no sense")
                length = _number(value)
            elif name == b"content-range":
                span = value
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._chunked = True
            elif name == b"transfer-encoding" or (name == b"content-encoding" and value != b"identity"):
                raise Failed(SERVER, "the answer's encoding is not supported")
            elif name == b"connection" and value.lower() == b"close":
                self.keep = False
            elif name == b"date":
                self.date = str(value, "utf-8") if all(31 < c < 127 for c in value) else ""
            elif name == b"etag":
                self.etag = _plain(value)
            elif name == b"location":
                self.location = _plain(value)
            elif name == b"www-authenticate" and value[:10] == b"DeviceKey ":
                self.challenge = _plain(value[10:])
            elif name == b"retry-after":
                self.pause = min(max(_number(value), MIN_PAUSE), MAX_PAUSE) if _number(value) > 0 else 0
        if self._chunked and length >= 0:
            raise Failed(SERVER, "the answer's Content-Length makes no sense")
        self._sized = length >= 0
        self.left = self.total = max(length, 0)
        if self.status == 206:
            self._parse_range(span or b"")

    def _parse_range(self, span) -> None:
        """``bytes FIRST-LAST/TOTAL``, and its length must agree with Content-Length (RFC 9110 section 14.4)."""
        unit, _, rest = span.partition(b" ")
        places, _, total = rest.partition(b"/")
        first, _, last = places.partition(b"-")
        first, last, total = _number(first), _number(last), _number(total)
        if unit != b"bytes" or not 0 <= first <= last < total or last - first + 1 != self.left:
            raise Failed(SERVER, "the answer's Content-Range makes no sense")
        self.start, self.total = first, total


async def _connect(host: str, port: int, ca, ages=None):
    """An open, non-blocking socket; a TLS one when *ca* (DER bytes of the one trusted CA) is given.

    ages: a list that takes the first seconds of the server's certificates.
    """
    try:
        place = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
    except OSError:
        raise Failed(NETWORK, "no address for %s" % host)
    sock = socket.socket(place[0], place[1], place[2])
    try:
        sock.setblocking(False)
        try:
            sock.connect(place[-1])
        except OSError as error:
            if error.errno != EINPROGRESS:
                raise
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        deadline = time.ticks_add(time.ticks_ms(), PATIENCE)
        while not poll.poll(0):
            if time.ticks_diff(deadline, time.ticks_ms()) < 0:
                raise Failed(NETWORK, "%s:%d does not answer" % (host, port))
            await asyncio.sleep(_NAP)
        if ca:
            import tls  # not `ssl`, whose Python layer switches verification off and is not frozen in

            context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
            context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]  # which the stubs lack
            context.load_verify_locations(ca)
            if ages is not None:
                from .clock import born

                def look(certificate, _) -> int:
                    ages.append(born(certificate))
                    return 0

                context.verify_callback = look  # type: ignore[attr-defined]
            sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Failed(NETWORK, "no connection to %s:%d (%s)" % (host, port, error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _send(sock, data, ages=()) -> None:
    deadline = time.ticks_add(time.ticks_ms(), PATIENCE)
    view = memoryview(data)
    while view:
        try:
            sent = sock.write(view)
        except OSError as error:
            raise Failed(NETWORK, "no connection (%s)" % error)
        except ValueError as error:  # what MicroPython's TLS raises for a certificate that does not verify
            failed = Failed(SERVER, "the server's certificate is refused (%s)" % str(error).strip())
            if "future" in str(error) and ages:
                failed.born = max(ages)
            raise failed
        if sent:
            view = view[sent:]
        elif time.ticks_diff(deadline, time.ticks_ms()) < 0:
            raise Failed(NETWORK, "the server does not take the request")
        else:
            await asyncio.sleep(_NAP)


class Line:
    """One connection kept open between small requests to the same server; the caller closes it."""

    def __init__(self) -> None:
        self._place: tuple = ()
        self._sock = None

    def take(self, place: tuple):
        """The open connection to *place* (scheme, host, port), or None. The line has it no more."""
        sock, self._sock = self._sock, None
        if sock and self._place != place:
            sock.close()
            sock = None
        return sock

    def give(self, place: tuple, response) -> None:
        """Takes the connection of a response whose body was read to its end."""
        self.close()
        if response.keep and not response._spare:
            self._place, self._sock = place, response._sock
            response._sock = None

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None


async def _ask(method: str, url: str, head: list, body, ca, line=None) -> Response:
    """One request and the head of its answer, whatever that says."""
    scheme, host, port, path = split(url)
    if scheme == "https" and not ca:
        raise Failed(SERVER, "https needs the server's CA certificate in the settings")
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: %s:%d" % (host, port), "User-Agent: sekisho"]
    lines.extend(head)
    if not line:
        lines.append("Connection: close")
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    kept = line.take((scheme, host, port)) if line else None
    moved = False
    while True:
        ages: list = []
        response = None
        try:
            response = Response(kept or await _connect(host, port, ca if scheme == "https" else None, ages))
            await _send(response._sock, request + body if body else request, ages)
            await response._read_head()
            if scheme == "https":
                hear(response.date)
            return response
        except BaseException as failed:
            if response:
                response.close()
            if moved:
                early(0)
            # An old connection may have been closed meanwhile. What must not be said twice is said on a fresh one.
            again = kept and isinstance(failed, Failed) and failed.code == NETWORK
            if not again:
                moved = not moved and bool(getattr(failed, "born", 0)) and early(failed.born)  # type: ignore
                if not moved:
                    raise
            kept = None


async def get(url: str, start: int = 0, if_range: str = "", if_none: str = "", ca=None, head=()) -> Response:
    """Sends one GET and reads the head of its answer; the caller reads the body and closes the response.

    start: first byte wanted; above 0 it asks with Range (and with If-Range when *if_range*, an ETag, is given).
    if_none: ETag of the copy at hand, for status 304. ca: DER certificate of the trusted CA, needed for https.
    head: further header lines. Only status 200, 206 (beginning at *start*), 304 and 416 return; everything else raises
    Failed. Redirects are followed within the same scheme, host and port only.
    """
    for _ in range(MAX_REDIRECTS + 1):
        lines = list(head)
        if start:
            lines.append("Range: bytes=%d-" % start)
            if if_range and if_range[:1] == '"':  # a weak ETag must not be used here (RFC 9110 section 13.1.5)
                lines.append("If-Range: " + if_range)
        if if_none:
            lines.append("If-None-Match: " + if_none)
        response = await _ask("GET", url, lines, None, ca)
        try:
            status = response.status
            if status == 304 or status == 416:
                return response
            if response._chunked:
                raise Failed(SERVER, "the answer's encoding is not supported")
            if status == 200 or status == 206:
                if not response._sized:
                    raise Failed(SERVER, "the answer has no Content-Length")
                if status == 200 or response.start == start > 0:
                    return response
            if status not in (301, 302, 303, 307, 308):
                raise _failure(response)
            target = join(url, response.location)
            if split(target)[:3] != split(url)[:3]:
                raise Failed(SERVER, "redirect to another server refused: %s" % target[:80])
            url = target
        except BaseException:
            response.close()
            raise
        response.close()
    raise Failed(SERVER, "too many redirects")


async def exchange(line: Line, method: str, url: str, limit: int, head=(), body=None, ca=None, kind="application/json"):
    """One small request over *line*: the body of a 2xx answer, at most *limit* bytes.

    head: header lines; body: bytes to send, of the media type *kind*. Raises Failed for every other answer, redirects
    among them: what is sent here carries a secret, and no server of ours redirects it.
    """
    lines = list(head)
    if body is not None:
        lines += ["Content-Type: " + kind, "Content-Length: %d" % len(body)]
    response = await _ask(method, url, lines, body, ca, line)
    try:
        if not 200 <= response.status < 300:
            raise _failure(response)
        if response.status == 204:
            response.left, response._chunked = 0, False
        elif not response._sized and not response._chunked:
            if method == "GET":
                raise Failed(SERVER, "the answer has no Content-Length")
            response.keep = False
        found = await response.document(limit)
        line.give(split(url)[:3], response)
        return found
    finally:
        response.close()


def _chunk(line) -> int:
    """The size that the line before a chunk names, or -1. Extensions are passed over."""
    digits = bytes(line).strip().split(b";")[0].lower()
    if line[-2:] != b"\r\n" or not 0 < len(digits) <= 6 or any(c not in b"0123456789abcdef" for c in digits):
        return -1
    return int(digits, 16)


def _failure(response: Response) -> Failed:
    status = response.status
    if status == 404 or status == 410:
        return Failed(NOTHING, "the server does not have it (HTTP %d)" % status, 0, status)
    if status == 429 or status == 503:
        return Failed(RETRY_LATER, "the server asks to wait (HTTP %d)" % status, response.pause, status)
    if status == 206:
        return Failed(SERVER, "the server sent a range that was not asked for", 0, status)
    failed = Failed(SERVER, "the server answered HTTP %d" % status, response.pause, status)
    failed.challenge = response.challenge
    return failed


async def fetch(url: str, limit: int, if_none: str = "", ca=None, head=()) -> tuple:
    """A small document: (bytes, ETag), or (None, ETag) when it is still the one that *if_none* names.

    Raises Failed(SERVER) for more than *limit* bytes, before any of them is read.
    """
    return await whole(await get(url, if_none=if_none, ca=ca, head=head), limit, if_none)


async def whole(response: Response, limit: int, if_none: str = "") -> tuple:
    """(bytes, ETag) of the answer to a GET, as `fetch` gives them."""
    try:
        if response.status == 304:
            if not if_none:
                raise Failed(SERVER, "the server answered HTTP 304 to a plain request")
            return None, if_none
        if response.status != 200:
            raise Failed(SERVER, "the server answered HTTP %d" % response.status)
        return await response.document(limit), response.etag
    finally:
        response.close()
