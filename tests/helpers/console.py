"""A simulated device whose console is open: issued, switched on in a thread of its own, seen from this desk."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sekisho_sim.device import Limits, Machine, power_cycle
from sekisho_sim.world import World
from sekisho_tools import config, issued, layout
from sekisho_tools.device_code import FIRMWARE

from helpers.desk import firmware
from helpers.keys import make_keyset
from helpers.site import Product

LAYOUT = layout.load(FIRMWARE / "partitions" / "4MiB.csv")
SECRET = "ABCD-EFGH-JKMN-PQRS"
PASSWORD = "correct horse battery"
OLD = firmware("old", 60_000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Device:
    """One device with a console; use as a context: switched on inside, switched off after."""

    def __init__(
        self,
        folder: Path,
        *,
        server: str = "",
        secret: str | None = SECRET,
        interfaces: tuple[str, ...] = ("console",),
        modules: dict[str, str] | None = None,
        extra: str = "",
        speed: int = 1,
        heap: int = 100 * 1024,
        **settings: object,
    ) -> None:
        self.port = free_port()
        self.product = Product(folder, server=server, keys=make_keyset(operators=1))
        self.product.settings = {"interfaces": list(interfaces), **settings}
        self.modules = modules or {}
        self.extra = f"CONSOLE_PORT = {self.port}\nINTERFACES = {interfaces!r}\n{extra}"
        self.world = self.product.factory(OLD, speed=speed, heap=heap)
        self.personalise()
        if secret is not None:
            self.issue({"console": secret.encode(), "id": bytes(range(16))})
        self.text = ""
        self.error: BaseException | None = None
        self._limits = Limits(seconds=600)
        self._thread: threading.Thread | None = None

    def personalise(self) -> None:
        """Give every firmware of this product the console's port."""
        source = config.render(self.product.device) + self.extra
        self.product.personalities.default = self.product.personality(**self.modules).with_modules(
            sekisho_config=source
        )

    def issue(self, entries: dict[str, bytes]) -> None:
        part = LAYOUT["nvs"]
        flash = bytearray(self.world.flash_path.read_bytes())
        flash[part.offset : part.end] = issued.nvs_image(entries, part.size)
        self.world.flash_path.write_bytes(bytes(flash))

    # -- power -------------------------------------------------------------------------------------------

    def start(self, until: str = "console on port", seconds: float = 30) -> Device:
        self.text, self._limits = "", Limits(seconds=600)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.wait_for(until, seconds)
        return self

    def _run(self) -> None:
        def hear(text: str) -> None:
            self.text += text

        try:
            with Machine() as machine:
                for result in power_cycle(self.world, max_boots=30, limits=self._limits, console=hear, on=machine):
                    self.text += f"[{result.cause}]\n"
                    if self._limits.stop:
                        break
        except BaseException as error:
            self.error = error

    def wait_for(self, words: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while words not in self.text:
            if self.error:
                raise self.error
            running = self._thread is not None and self._thread.is_alive()
            assert running, f"the device stopped without {words!r}:\n{self.text}"
            assert time.monotonic() < end, f"no {words!r} in:\n{self.text}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Take the power away."""
        self._limits.stop = True
        if self._thread:
            self._thread.join(30)
        self.world.unplug()

    def __enter__(self) -> Device:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the page ----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def browser(self, **headers: str) -> Browser:
        return Browser(self, headers)

    def raw(self, data: bytes, seconds: float = 30) -> bytes:
        """What comes back for these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as link:
            link.sendall(data)
            found = b""
            while True:
                try:
                    piece = link.recv(4096)
                except ConnectionResetError:
                    return found
                if not piece:
                    return found
                found += piece


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.cookies = response.headers.get_all("Set-Cookie") or []
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """A very small one: cookies and forms."""

    def __init__(self, device: Device, headers: dict[str, str]) -> None:
        self.device = device
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        given |= self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.device.port, timeout=60)
        try:
            connection.request(method, path, body, given)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        for cookie in answer.cookies:
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, values: dict[str, Any] | list[tuple[str, str]] | None = None, **more: str) -> Answer:
        pairs = list(values.items()) if isinstance(values, dict) else list(values or [])
        body = urlencode([*pairs, *more.items()]).encode()
        return self.ask("POST", path, body, Content_Type="application/x-www-form-urlencoded")

    def csrf(self, path: str = "/password") -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(path).text)
        assert found, self.get(path).text
        return found[1]

    def login(self, password: str = PASSWORD, name: str = "administrator") -> Answer:
        return self.post("/login", name=name, password=password)

    def set_up(self, password: str = PASSWORD) -> Browser:
        """The first log-in: the secret from the label, then a password."""
        assert self.login(SECRET).headers["location"] == "/password"
        answer = self.post("/password", csrf=self.csrf(), new=password, again=password)
        assert answer.status == 303, answer.text
        return self

    def upload(
        self, content: bytes, csrf: str | None = None, name: str = "file.bin", path: str = "/files", **fields: str
    ) -> Answer:
        """A file, as a browser sends it."""
        mark = "----formboundary7MA4YWxkTrZu0gW"
        token = self.csrf("/files") if csrf is None else csrf
        pairs = {"csrf": token, **fields}.items()
        head = "".join(
            f'--{mark}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n' for field, value in pairs
        ) + (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        return self.ask("POST", path, body, Content_Type=f"multipart/form-data; boundary={mark}")


@contextmanager
def switched_on(device: Device) -> Iterator[Device]:
    with device:
        yield device


__all__ = ["OLD", "PASSWORD", "SECRET", "Browser", "Device", "World"]
