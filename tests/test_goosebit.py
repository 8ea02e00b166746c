"""Our agent on the simulated device against gooseBit, a DDI server that is none of ours.

gooseBit hands out one file per update. A release of ours is several, so a plugin (tests/goosebit) offers them as one
chunk whose files lie on a mirror; registration, tokens, polls, attributes, orders and feedback are gooseBit's own.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from helpers import goosebit
from helpers.needs import lacking
from helpers.site import Product, consoles, firmware, run
from sekisho_tools.serve import StaticServer

PASSWORD = "correct horse battery"
OLD, NEW = firmware("old", 60_000), firmware("new", 150_000)
BREAKS = "import sekisho\nsekisho.on_health(lambda: False)\nasync def main():\n    pass\n"


class Goose:
    """gooseBit's own API, for its operator."""

    def __init__(self, url: str, offers: Path) -> None:
        self.url, self.offers = url, offers
        form = urlencode({"username": "op@example.com", "password": PASSWORD}).encode()
        try:
            found = self._send("POST", "/setup", form, "application/x-www-form-urlencoded")
        except urllib.error.HTTPError:  # there is an operator already
            found = self._send("POST", "/login", form, "application/x-www-form-urlencoded")
        self.login = {"Authorization": f"Bearer {found['access_token']}"}

    def _send(self, method: str, path: str, data: bytes | None, kind: str, **headers: str) -> Any:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind, **headers}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        return self._send(method, f"/api/v1{path}", data, "application/json", **self.login)


class Lamp:
    """A product, one device of it, its mirror, and its entry at gooseBit."""

    def __init__(self, goose: Goose, folder: Path, mirror: StaticServer, product: Product) -> None:
        self.goose, self.mirror, self.product = goose, mirror, product
        self.name = f"lamp-{uuid4().hex[:8]}"
        self.token = uuid4().hex
        goose.call("PUT", "/devices", {"devices": [self.name], "auth_token": self.token})
        product.settings = {
            "protocol": "ddi",
            "controller": self.name,
            "token": self.token,
            "mirrors": [mirror.url],
        }
        self.offers = goose.offers

    def offer(self, payload: bytes = NEW, **modules: str) -> None:
        envelope = self.product.offer(2, payload, **modules)
        digest = hashlib.sha256(payload).hexdigest()
        files = {
            "lamp.suit": (envelope, f"/{self.product.class_id}/latest.suit"),
            digest: (payload, f"/payload/{digest}"),
            "keyset-1.cose": (self.product.keys.document, "/keyset.cose"),
        }
        artifacts = [
            {
                "filename": name,
                "hashes": {"sha1": hashlib.sha1(data).hexdigest()},
                "size": len(data),
                "href": self.mirror.url + path,
            }
            for name, (data, path) in files.items()
        ]
        self.offers.write_text(json.dumps({self.name: {"version": "2", "artifacts": artifacts}}))

    def state(self) -> dict[str, Any]:
        return dict(self.goose.call("GET", f"/devices/{self.name}"))

    def log(self) -> str:
        return str(self.goose.call("GET", f"/devices/{self.name}/log"))


@pytest.fixture(scope="module")
def goose() -> Iterator[Goose]:
    if not goosebit.ENVIRONMENT.installed():
        lacking("needs gooseBit in an environment of its own, which `make test` makes (scripts/goosebit.py --install)")
    with goosebit.running() as (url, offers):
        yield Goose(url, offers)


@pytest.fixture
def lamp(goose: Goose, tmp_path: Path) -> Iterator[Lamp]:
    product = Product(tmp_path, server=goose.url)
    with StaticServer(product.root) as mirror:
        yield Lamp(goose, tmp_path, mirror, product)


def test_a_device_registers_itself_with_what_goosebit_compares(lamp: Lamp) -> None:
    run(lamp.product.factory(OLD), "nothing new")
    state = lamp.state()
    assert (state["hardware"]["model"], state["hardware"]["revision"]) == ("esp32", "default")
    assert state["sw_version"] == "1"
    assert state["last_state"] == "Registered"


@pytest.mark.requirement("UPD04")
def test_an_update_goes_from_offer_to_confirmation(lamp: Lamp) -> None:
    world = lamp.product.factory(OLD)
    run(world, "nothing new")
    lamp.offer()
    console = consoles(run(world, "nothing new"))
    assert "release 2 staged" in console
    assert console.index("release 2, on trial") < console.index("sekisho: confirmed")
    state = lamp.state()
    assert (state["last_state"], state["sw_version"]) == ("Finished", "2")
    assert "release 2: confirmed" in lamp.log()
    assert "staged" not in consoles(run(world, "nothing new"))  # not offered again, or not taken


def test_an_image_that_fails_its_health_check_is_an_error_there(lamp: Lamp) -> None:
    world = lamp.product.factory(OLD)
    run(world, "nothing new")
    lamp.offer(application=BREAKS)
    assert "release 2 failed: HEALTH" in consoles(run(world, "nothing new"))
    assert lamp.state()["last_state"] == "Error"
    assert "HEALTH" in lamp.log()


def test_a_power_cut_in_the_download_costs_nothing_there(lamp: Lamp) -> None:
    world = lamp.product.factory(OLD)
    run(world, "nothing new")
    lamp.offer()
    assert run(world, "staged", cut=95)[-1].cause == "cut"
    run(world, "nothing new")
    assert lamp.state()["last_state"] == "Finished"
    assert lamp.log().count("confirmed") == 1


def test_a_file_that_is_no_release_of_ours_is_an_error_there(lamp: Lamp) -> None:
    """An .swu file, which is what gooseBit itself hands out: one file, no envelope among the artifacts."""
    world = lamp.product.factory(OLD)
    run(world, "nothing new")
    words = b'software = { version = "9.0.0"; esp32: { hardware-compatibility: [ "default" ]; }; };'
    fields = [0, 0o100644, 0, 0, 1, 0, len(words), 0, 0, 0, 0, len(b"sw-description") + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + b"sw-description\0"
    swu = head + b"\0" * (-len(head) % 4) + words
    edge = uuid4().hex
    part = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="lamp.swu"\r\n\r\n'.encode()
    body = part + swu + f"\r\n--{edge}--\r\n".encode()
    kind = f"multipart/form-data; boundary={edge}"
    made = lamp.goose._send("PUT", "/api/v1/software", body, kind, **lamp.goose.login)
    lamp.goose.call("PATCH", "/devices", {"devices": [lamp.name], "software": str(made["id"])})
    run(world, "nothing new")
    # Its page of a device with a file assigned answers 500 (0.2.12), so the log must do.
    assert "0 releases in one action" in lamp.log()
    assert "nothing new" in consoles(run(world, "nothing new"))  # after an error gooseBit offers nothing more


def test_a_wrong_token_is_refused_there(lamp: Lamp) -> None:
    lamp.product.settings["token"] = "not-the-right-token"
    assert "HTTP 401" in consoles(run(lamp.product.factory(OLD), "HTTP 401"))
