"""A simulated device that wakes up without a clock, and a site that is served over TLS only."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.keys import ISSUED, make_keyset
from helpers.site import Product, consoles, firmware, run
from littlefs import LittleFS
from sekisho_sim.world import World
from sekisho_tools import layout
from sekisho_tools.serve import StaticServer
from test_https_client import Authority

OLD, NEW = firmware("old", 60_000), firmware("new", 70_000)


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing to print."""


@contextmanager
def secure(root: Path, authority: Authority, folder: Path) -> Iterator[str]:
    """The site over TLS; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        server.socket = authority.server(folder).wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}"
        server.shutdown()


def give(world: World, name: str, content: bytes) -> None:
    """Puts a file on the `data` file system."""
    row = layout.load("4MiB")["data"]
    flash = bytearray(world.flash_path.read_bytes())
    fs = LittleFS(block_size=4096, block_count=row.size // 4096, lookahead_size=32, mount=False)
    fs.context.buffer = flash[row.offset : row.end]
    fs.mount()
    with fs.open(name, "wb") as file:
        file.write(content)
    flash[row.offset : row.end] = fs.context.buffer
    world.flash_path.write_bytes(flash)


def lamp(product: Product, ca: bytes = b"") -> World:
    if ca:
        product.settings = {"ca": "/data/ca.der"}
    world = product.factory(OLD)
    if ca:
        give(world, "/ca.der", ca)
    product.offer(2, NEW)
    return world


@pytest.mark.requirement("STS07", "UPD03")
def test_an_update_goes_over_tls_from_a_server_of_the_pinned_ca(tmp_path: Path) -> None:
    authority = Authority("Sekisho test CA")
    product = Product(tmp_path)
    with secure(product.root, authority, tmp_path) as product.server:
        console = consoles(run(lamp(product, authority.der), "sekisho: confirmed"))
    assert "release 2 staged" in console


@pytest.mark.requirement("STS07", "UPD03")
def test_a_site_of_another_ca_is_refused_in_clear_words(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with secure(product.root, Authority("Mallory"), tmp_path) as product.server:
        console = consoles(run(lamp(product, Authority("Sekisho test CA").der), "certificate is refused"))
    assert "staged" not in console


def test_a_device_without_a_clock_learns_over_tls_that_its_key_set_has_expired(tmp_path: Path) -> None:
    authority = Authority("Sekisho test CA")
    product = Product(tmp_path, keys=make_keyset(expires=ISSUED + 3600))
    with secure(product.root, authority, tmp_path) as product.server:
        console = consoles(run(lamp(product, authority.der), "EXPIRED_KEYSET"))
    assert "staged" not in console


def test_a_device_without_a_clock_does_not_notice_without_tls(tmp_path: Path) -> None:
    """An unverified server's word on the time is not taken: with it, anybody could make every key set expire."""
    product = Product(tmp_path, keys=make_keyset(expires=ISSUED + 3600))
    with StaticServer(product.root) as server:
        product.server = server.url
        assert "EXPIRED" not in consoles(run(lamp(product), "release 2 staged"))
