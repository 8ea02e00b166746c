"""How a simulated device proves who it is to the embedded server: enrolled, by signed requests, as it was issued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import ddi_sites
import pytest
from ddi_sites import Fleet
from helpers.site import Product, consoles, firmware, run
from littlefs import LittleFS
from sekisho_sim.world import World
from sekisho_tools import issued, issuing, layout, register

OLD, NEW = firmware("old", 60_000), firmware("new", 80_000)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ddi_sites.running("embedded", tmp_path_factory.mktemp("server")) as found:
        yield found


def invited(fleet: Fleet, name: str | None = None) -> str:
    """A one-time token."""
    return str(fleet.call("POST", "/sekisho/enrolments", {"controllerId": name} if name else {})["token"])


def lamp(fleet: Fleet, folder: Path, name: str, **settings: object) -> tuple[Product, World]:
    product = Product(folder, server=fleet.url)
    product.settings = {"protocol": "ddi", "controller": name} | settings
    return product, product.factory(OLD)


def ordered(fleet: Fleet, product: Product, name: str) -> int:
    """Offers release 2 to the device; returns the action's id."""
    files = (("lamp.suit", product.offer(2, NEW)), (hashlib.sha256(NEW).hexdigest(), NEW))
    return fleet.assign(name, fleet.release(*files))


def mounted(flash: bytes) -> LittleFS:
    """The `data` file system of a device."""
    row = layout.load("4MiB")["data"]
    fs = LittleFS(block_size=4096, block_count=row.size // 4096, mount=False)
    fs.context.buffer = bytearray(flash[row.offset : row.end])
    fs.mount()
    return fs


def kept(world: World) -> list[dict[str, object]]:
    """The copies of its settings that a device has written, the older one first."""
    fs = mounted(world.flash_path.read_bytes())
    copies = []
    for number in (0, 1):
        if f"settings.{number}" in fs.listdir("/"):
            with fs.open(f"/settings.{number}", "rb") as file:
                content = bytes(file.read())
            copies.append((int.from_bytes(content[4:8], "little"), json.loads(content[16:])["values"]))
    return [values for _, values in sorted(copies, key=lambda copy: copy[0])]


@pytest.mark.requirement("UPD08", "UPD03")
def test_a_device_enrols_with_its_key_and_signs_an_update_from_order_to_result(fleet: Fleet, tmp_path: Path) -> None:
    one_time = invited(fleet, "signer")
    product, world = lamp(fleet, tmp_path, "signer", login="key", enrolment=one_time)
    console = consoles(run(world, "nothing new"))
    assert "sekisho: enrolled at the server" in console
    target = fleet.call("GET", "/targets/signer")
    assert len(target["publicKey"]) == 64
    assert kept(world)[-1]["enrolment"] == ""
    action = ordered(fleet, product, "signer")
    assert "sekisho: confirmed" in consoles(run(world, "nothing new"))
    assert fleet.ended("signer", action) == "finished"


def test_an_enrolment_whose_answer_was_lost_shows_at_the_next_request(fleet: Fleet, tmp_path: Path) -> None:
    """The server has the key already, and would not take the one-time token again."""
    one_time = invited(fleet, "unsure")
    _, world = lamp(fleet, tmp_path, "unsure", login="key", enrolment=one_time)
    run(world, "enrolled at the server")
    row = layout.load("4MiB")["data"]
    before = bytearray(world.flash_path.read_bytes())
    fs = mounted(before)
    for number in (0, 1):
        if f"settings.{number}" in fs.listdir("/"):
            fs.remove(f"/settings.{number}")  # as if the answer had never come
    before[row.offset : row.end] = fs.context.buffer
    world.flash_path.write_bytes(before)
    console = consoles(run(world, "nothing new"))
    assert "enrol" not in console
    assert kept(world)[-1]["enrolment"] == ""


@pytest.mark.requirement("UPD08", "HLC05")
def test_a_device_enrols_and_gets_a_token_of_its_own(fleet: Fleet, tmp_path: Path) -> None:
    product, world = lamp(fleet, tmp_path, "newcomer", enrolment=invited(fleet))
    console = consoles(run(world, "nothing new"))
    assert "sekisho: enrolled at the server" in console
    values = kept(world)[-1]
    assert values["enrolment"] == ""
    assert len(str(values["token"])) >= 32
    action = ordered(fleet, product, "newcomer")
    run(world, "nothing new")
    assert fleet.ended("newcomer", action) == "finished"


@pytest.mark.requirement("HLC05")
@pytest.mark.parametrize("login", ["token", "key"])
def test_a_one_time_token_that_was_used_is_told_and_nothing_happens(fleet: Fleet, tmp_path: Path, login: str) -> None:
    one_time = invited(fleet)
    _, world = lamp(fleet, tmp_path / "first", f"first-{login}", login=login, enrolment=one_time)
    run(world, "enrolled at the server")
    _, world = lamp(fleet, tmp_path / "second", f"second-{login}", login=login, enrolment=one_time)
    console = consoles(run(world, "HTTP 401"))
    assert "sekisho: the server does not take the enrolment token" in console
    assert "enrolled" not in console


@pytest.mark.requirement("STS01", "UPD08", "HLC05")
def test_a_device_as_it_was_issued_is_known_at_the_server_where_it_was_registered(fleet: Fleet, tmp_path: Path) -> None:
    product = Product(tmp_path, server=fleet.url)
    product.settings = {"protocol": "ddi"}
    passphrase = b"correct horse battery"
    issuing.create(tmp_path / "b", 1, product.keys.document, "acme.example", "lamp", passphrase, product="Lamp")
    with issuing.unlock(tmp_path / "b", passphrase) as batch:
        given = batch.take(1)[0]
    register.register(
        register.Server(fleet.url, "admin", ddi_sites.PASSWORD), [(issued.record_of(given), given.secrets.token)]
    )
    world = product.factory(OLD)
    row = layout.load("4MiB")["nvs"]
    data = bytearray(world.flash_path.read_bytes())
    data[row.offset : row.end] = issued.nvs_image(issued.entries(given), row.size)
    world.flash_path.write_bytes(data)
    run(world, "nothing new")
    facts = fleet.call("GET", f"/targets/{given.record.id}/attributes")
    assert facts["fw_version"] == "1"
