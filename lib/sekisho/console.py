"""The console's door: whether it may open at all, the access point, and the connections, all of it bounded.

What a connection asks for is answered by `console_web`, which is loaded with the first one. docs/console.md states the
limits and what they cost.
"""

import asyncio
import gc
import sys
import time

from micropython import const

from .accounts import Accounts

PORT = const(80)
MAX_CONNECTIONS = const(3)  # answered at the same time; further ones are closed at once
MAX_LINE = const(1024)  # bytes of one line of a request
MAX_HEAD = const(3072)  # bytes of a request before its body
MAX_LINES = const(40)
MAX_BODY = const(6144)  # bytes of a form
MAX_BACKUP = const(8192)  # bytes of a backup of the settings
MAX_UPLOAD = const(16777216)  # bytes of an upload, which is never in memory as a whole
PATIENCE = const(10)  # s for a request to arrive, and then for each step of it
_PIECE = const(1024)  # bytes taken from a connection at a time
_ALONE = const(180)  # s without Wi-Fi after which the access point opens
_WPA2 = const(3)
_SETTLED = const(60)  # s with Wi-Fi after which it closes

NO_SECRET = "no secret was issued and no password was set"  # noqa: S105 (words)


def refusal(duties) -> str:
    """Why there is no console on this device, or ""."""
    if not Accounts(duties.settings, duties.log).ready():
        return NO_SECRET
    return ""


def begin(agent) -> None:
    """Opens the web page for the person beside the device, or says why there is none."""
    duties = agent.duties
    why = refusal(duties)
    if why:
        duties.reporter.open.remove("console")
        print("sekisho: no console: %s" % why)
    else:
        agent.console = asyncio.create_task(Console(agent, duties).serve())


class Link:
    """One connection: what `microdot` asks of a stream, with limits on size and time."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self._spare = b""
        self._head = MAX_HEAD
        self._lines = MAX_LINES
        self._length = -1  # of the body, once the head has said it
        self._taken = 0  # bytes of the body that have been read
        self.task = asyncio.current_task()
        self.more(2 * PATIENCE)

    def more(self, seconds: int = PATIENCE) -> None:
        """The connection is given up unless `more` is called again in time."""
        self.deadline = time.ticks_add(time.ticks_ms(), seconds * 1000)

    def overdue(self) -> bool:
        return time.ticks_diff(time.ticks_ms(), self.deadline) > 0

    def get_extra_info(self, name: str):
        return self._stream.get_extra_info(name)

    async def _fill(self, size: int) -> None:
        data = await self._stream.read(size)
        if not data:
            raise OSError(104)  # gone before it had said everything
        self._spare += data

    async def readline(self):
        """One line of the head. Raises ValueError where the request is none that is answered."""
        while b"\n" not in self._spare:
            if len(self._spare) > MAX_LINE:
                raise ValueError("line too long")
            await self._fill(256)
        line, _, self._spare = self._spare.partition(b"\n")
        self._head -= len(line) + 1
        self._lines -= 1
        if self._head < 0 or self._lines < 0 or len(line) > MAX_LINE:
            raise ValueError("head too long")
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or self._lines == MAX_LINES - 1:
            return line  # the request line, or the blank one
        if name == b"content-length":
            value = value.strip()
            if self._length >= 0 or not value.isdigit() or len(value) > 8:
                raise ValueError("no usable length")
            self._length = int(value)
        elif not name or b" " in name or name == b"transfer-encoding":
            raise ValueError("no usable head")
        return line

    async def readexactly(self, size: int):
        data = b""
        while len(data) < size:
            data += await self.read(size - len(data))
        return data

    async def read(self, size: int = _PIECE):
        """The next bytes of the body, at least one; OSError at its end."""
        size = min(size, self.left(), _PIECE)
        if size <= 0:
            raise OSError(104)
        if not self._spare:
            await self._fill(size)
        data, self._spare = self._spare[:size], self._spare[size:]
        self._taken += len(data)
        return data

    async def readinto(self, view) -> int:
        """The next bytes of the body into *view*; returns how many. OSError at its end."""
        size = min(len(view), self.left())
        if size <= 0:
            raise OSError(104)
        got = min(size, len(self._spare))
        if got:
            view[:got] = self._spare[:got]
            self._spare = self._spare[got:]
        else:
            got = await self._stream.readinto(view[:size])
            if not got:
                raise OSError(104)
        self._taken += got
        return got

    def left(self) -> int:
        """Bytes of the body that have not been read."""
        return max(0, self._length) - self._taken

    async def awrite(self, data) -> None:
        self._stream.write(data)
        await self._stream.drain()

    async def aclose(self) -> None:
        """Takes what is still on its way, a little of it: whoever is closed upon while sending loses the answer."""
        for _ in range(16):
            if self.left() <= 0:
                return
            await self.read()


class Console:
    """The console of this start. agent: `agent.Agent`; duties: `duties.Duties`."""

    def __init__(self, agent, duties) -> None:
        self.agent = agent
        self.duties = duties
        self.config = duties.engine.port.config
        self.accounts = Accounts(duties.settings, duties.log)
        self.links: list = []
        self.offer: tuple | None = (
            None  # (manifest digest, sequence number, {language: text}) of the release that was seen last
        )
        self._web: object = None
        self._lost = 0  # s without Wi-Fi
        self._found = 0  # s with it
        agent.envelope = self._seen

    def _seen(self, envelope, plan) -> None:
        from .console_text import text

        words = {}
        try:
            for language in ("en", "ja"):
                words[language] = text(envelope, (language, "en", "ja"))
        except Exception as error:  # only shown: it keeps no release from being installed
            print("sekisho: the release's text cannot be read (%r)" % error)
        self.offer = (plan.digest, plan.sequence, words)

    # -- connections --------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Answers for as long as the device runs."""
        port = getattr(self.config, "CONSOLE_PORT", PORT)
        server = await asyncio.start_server(self._accept, "0.0.0.0", port, 2)  # noqa: S104 (which is its purpose)
        print("sekisho: console on port %d" % port)
        try:
            while True:
                await asyncio.sleep(1)
                self.accounts.seconds()
                for link in list(self.links):
                    if link.overdue() and link.task:
                        link.task.cancel()
                self._air()
        finally:
            server.close()

    async def _accept(self, stream, _) -> None:
        if len(self.links) >= MAX_CONNECTIONS:
            await _close(stream)
            return
        link = Link(stream)
        self.links.append(link)
        try:
            gc.collect()
            if self._web is None:
                from .console_web import Web

                self._web = Web(self)
            await self._web.app.handle_request(link, link)  # type: ignore[attr-defined]
        except asyncio.CancelledError:
            pass  # it was too slow
        except OSError:
            pass  # it went away
        except MemoryError:
            gc.collect()
            print("sekisho: not enough memory for the console")
        except Exception as error:  # whatever somebody sent, the device runs on
            sys.print_exception(error)  # type: ignore[attr-defined]
        finally:
            self.links.remove(link)
            await _close(stream)

    # -- the access point ---------------------------------------------------------------------------------

    def _air(self) -> None:
        """Once a second: opens the access point where there is no other way in, closes it when there is."""
        if "access-point" not in self.duties.may:
            return
        import network

        if self.agent.networks and network.WLAN(network.STA_IF).isconnected():
            self._lost, self._found = 0, self._found + 1
        else:
            self._lost, self._found = self._lost + 1, 0
        point = network.WLAN(network.AP_IF)
        wanted = self._lost > (_ALONE if self.agent.networks else 0)
        if wanted and not point.active():
            key = self.accounts.label()
            if len(key) >= 8 and self._protect(point, key):  # never an open one
                self.duties.reporter.open.append("access-point")
                print("sekisho: access point %s" % self.name())
        elif self._found > _SETTLED and point.active():
            point.active(False)
            self.duties.reporter.open.remove("access-point")

    def _protect(self, point, key: str) -> bool:
        """Switches the access point on with WPA2 and this key, and off again where the driver does not say that it has
        both: it can only be set up once it is on."""
        try:
            point.active(True)
            point.config(ssid=self.name(), key=key, security=_WPA2, max_clients=2)
            if point.config("security") == _WPA2 and point.config("ssid") == self.name():
                return True
        except (OSError, ValueError, TypeError) as error:
            print("sekisho: no access point (%r)" % error)
        point.active(False)
        self._lost = -_ALONE  # tried again, but not each second
        return False

    def name(self) -> str:
        """What the access point is called."""
        return "sekisho-%02x%02x" % tuple(self.duties.engine.port.device[-2:])


async def _close(stream) -> None:
    try:
        stream.close()
        await stream.wait_closed()
    except OSError:
        pass
