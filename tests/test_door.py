"""The offline door: what people bring by hand is judged, held back and installed like what a server sends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import device_sockets
import pytest
from helpers import release, site
from helpers.desk import CLASS, VENDOR, Desk, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, consoles, run
from sekisho import agent, backup, devicekey, door, duties, eventlog, orders, policy, record, settings, values
from sekisho_boot import reasons
from sekisho_boot.ledger import FETCHING, IDLE, READY
from sekisho_boot.reasons import Refused
from sekisho_tools import cose, events, imagefile, layout
from sekisho_tools import release as releases
from sekisho_tools.device_code import FIRMWARE

DEVICE = bytes(15) + b"\x07"
OLD, NEW, APP = firmware("old"), firmware("new"), b"romfs" * 2000
FACTORY = release.make(1, {0: OLD}, vendor=VENDOR, product=CLASS)
UPDATE = release.make(2, {0: NEW}, vendor=VENDOR, product=CLASS)
BOTH = release.make(2, {0: NEW, 1: APP}, vendor=VENDOR, product=CLASS)


class Device:
    """A small device with its agent and its security functions; its files lie in a folder of the host."""

    def __init__(self, **members: Any) -> None:
        made = make_keyset(operators=1, **members)
        self.desk = Desk(keys=made)
        self.desk.factory(FACTORY, OLD)
        self.start()

    def start(self) -> None:
        self.up = self.desk.power_on()
        self.engine = self.up.engine
        options = {line[0]: line[3] for line in values.SCHEMA} | {"ca": None}
        self.said: list[str] = []
        self.agent = agent.Agent(self.engine, options, CLASS, self.said.append)
        self.duties = duties.Duties(self.engine, self.up.decision, self.said.append)
        self.duties.start(self.agent)
        self.agent.options = settings.load()
        self.door = self.agent.door = door.Door(self.agent)

    def order(self, action: str, counter: int = 1, **changes: Any) -> bytes:
        members: dict[int, Any] = {1: orders.ACTIONS[action][0], 2: DEVICE, 4: ISSUED + YEAR, 6: counter}
        members.update({int(name[1:]): value for name, value in changes.items()})
        members = {number: value for number, value in members.items() if value is not None}
        return cose.sign1(cose.encode(members), signer("operator"), attached=True)

    def bring(self, made: release.Release, pieces: int = 1000) -> None:
        wanted = self.door.envelope(made.envelope)
        for component, _, size in wanted:
            content = made.payloads[component]
            assert size == len(content)
            start = self.door.offset(component)
            assert self.door.payload(component, chunks(content[start:], pieces)) == 0
        self.door.stage()

    def events(self) -> list[str]:
        return [entry.event for entry in events.verify(self.duties.log.export())]

    def phase(self) -> int:
        return int(self.engine.status()["phase"])


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return reasons.name(caught.value.code)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (values, "KEPT"), (settings, "SETTINGS"), (settings, "STATE"), (settings, "TOLD"), (eventlog, "PATH"),
        (duties, "MARKS"), (duties, "REPORT"), (devicekey, "PATH"), (backup, "TAKEN"), (backup, "BROUGHT"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, str(tmp_path / f"{module.__name__}-{name.lower()}"))
    monkeypatch.setattr("sekisho.interfaces.apply", list)
    device_sockets.install()


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.mark.requirement("UPE01", "UPE11")
@pytest.mark.parametrize("pieces", [1, 999, 4096, 5000, 100_000])
def test_a_release_in_pieces_of_any_size_is_installed(device: Device, pieces: int) -> None:
    made = release.make(2, {0: firmware("small", 9_000 if pieces == 1 else 20_000)}, vendor=VENDOR, product=CLASS)
    device.bring(made, pieces)
    assert device.phase() == READY
    device.start()
    assert device.up.decision.trial
    assert device.engine.confirm() == 0
    assert device.engine.status()["counters"][0] == 2


def test_two_components_come_one_after_the_other(device: Device) -> None:
    wanted = device.door.envelope(BOTH.envelope)
    assert [component for component, _, _ in wanted] == [0, 1]
    device.door.put(0, NEW[:5000])
    assert code_of(device.door.put, 1, APP[:10]) == "IMAGE_SIZE"
    device.door.put(0, NEW[5000:])
    assert code_of(device.door.stage) == "TRUNCATED"
    assert device.phase() == FETCHING
    device.door.put(1, APP)
    device.door.stage()
    device.start()
    assert device.up.decision.trial


@pytest.mark.requirement("UPE11", "UPE04")
def test_the_door_says_of_a_release_what_the_server_agent_says(device: Device) -> None:
    """The same envelopes, once through the door and once through the agent's own function, and nothing written."""
    cases = {
        "KEY_UNKNOWN": release.make(2, {0: NEW}, vendor=VENDOR, product=CLASS, key=signer("release", 9)),
        "CLASS": release.make(2, {0: NEW}, vendor=VENDOR, product=bytes(16)),
        "VENDOR": release.make(2, {0: NEW}, vendor=bytes(16), product=CLASS),
        "IMAGE_SIZE": release.make(2, {0: NEW}, vendor=VENDOR, product=CLASS, size=1 << 20),
        "EXPIRED_MANIFEST": release.make(2, {0: NEW}, vendor=VENDOR, product=CLASS, use_before=ISSUED - 1),
        "NOTHING": FACTORY,
    }
    before = device.desk.snapshot()
    for reason, made in cases.items():
        assert code_of(device.door.envelope, made.envelope) == reason
        assert code_of(device.agent._accept, made.envelope) == reason
        assert code_of(device.door.put, 0, NEW[:4096]) == "NOTHING"
        assert code_of(device.door.stage) == "NOTHING"
    for junk in (b"", b"x", UPDATE.envelope[:-1], bytes(20_000)):
        assert code_of(device.door.envelope, junk) in ("CBOR", "ENVELOPE", "LIMIT")
    broken = bytearray(UPDATE.envelope)
    broken[-30] ^= 1
    code_of(device.door.envelope, bytes(broken))
    assert device.desk.snapshot() == before
    assert device.events().count("REFUSED") >= 4


@pytest.mark.requirement("UPE05", "UPE06", "UPE08", "UPD11")
def test_settings_and_decisions_hold_back_what_is_brought_by_hand(device: Device) -> None:
    def again() -> str:
        device.agent.options = settings.load()
        before = device.desk.snapshot()
        told = code_of(device.door.envelope, UPDATE.envelope)
        assert device.desk.snapshot() == before
        return told

    device.duties.settings.change({"update_enabled": False}, values.ADMIN)
    assert again() == "DISABLED"
    device.duties.settings.change({"update_enabled": True, "update_start": "administrator"}, values.ADMIN)
    assert again() == "APPROVAL"
    device.duties.record.decide(UPDATE.plan.digest, policy.REFUSE, 0, values.ADMIN)
    assert again() == "DECLINED"
    assert device.door.order(device.order("approve", _5=UPDATE.plan.digest)) == 0
    device.bring(UPDATE)
    assert device.phase() == READY
    assert "AVAILABLE" in device.events()


def test_what_is_held_back_meanwhile_is_not_staged(device: Device) -> None:
    device.door.envelope(UPDATE.envelope)
    device.door.put(0, NEW)
    device.agent.options["update_enabled"] = False
    assert code_of(device.door.stage) == "DISABLED"
    assert device.phase() == FETCHING
    device.agent.options["update_enabled"] = True
    device.bring(UPDATE)  # nothing has to be brought twice
    assert device.phase() == READY


@pytest.mark.requirement("UPE14")
def test_a_payload_that_breaks_off_goes_on_where_it_was(device: Device) -> None:
    long = firmware("long", 60_000)
    made = release.make(2, {0: long}, vendor=VENDOR, product=CLASS)

    def breaks() -> Iterator[bytes]:
        yield long[:50_000]
        raise OSError("the card was pulled out")

    wanted = device.door.envelope(made.envelope)
    with pytest.raises(OSError, match="pulled out"):
        device.door.payload(wanted[0][0], breaks())
    assert device.door.offset(0) == 49_152  # whole sectors; the rest is brought again
    assert device.door.payload(0, [long[49_152:]]) == 0
    device.door.stage()
    assert device.phase() == READY


def test_after_a_restart_the_same_envelope_goes_on_and_another_one_starts_anew(device: Device) -> None:
    device.door.envelope(UPDATE.envelope)
    device.door.put(0, NEW)
    device.start()
    assert device.phase() == FETCHING
    device.door.envelope(UPDATE.envelope)
    assert device.door.offset(0) == len(NEW)
    other = release.make(3, {0: OLD}, vendor=VENDOR, product=CLASS)
    device.door.envelope(other.envelope)
    assert device.door.offset(0) == 0


@pytest.mark.requirement("UPE11")
def test_wrong_bytes_end_the_update_by_name_and_the_running_image_stays(device: Device) -> None:
    device.door.envelope(UPDATE.envelope)
    assert code_of(device.door.put, 0, bytes(4096)) == "IMAGE_FORMAT"
    assert device.phase() == IDLE
    device.start()
    device.agent._since -= 10_000_000
    wrong = bytearray(NEW)
    wrong[9_000] ^= 1
    device.door.envelope(UPDATE.envelope)
    device.door.put(0, wrong)
    assert code_of(device.door.stage) == "IMAGE_DIGEST"
    assert code_of(device.door.put, 0, b"x") == "NOTHING"
    assert device.events().count("REFUSED") == 2
    device.start()
    assert (device.up.running, device.up.decision.trial) == (0, False)


def test_more_bytes_than_announced_are_refused(device: Device) -> None:
    device.door.envelope(UPDATE.envelope)
    assert code_of(device.door.put, 0, NEW + b"x") == "IMAGE_SIZE"
    device.door.put(0, NEW)
    assert code_of(device.door.put, 0, b"x") == "IMAGE_SIZE"
    assert code_of(device.door.put, 1, b"x") == "NOTHING"
    device.door.stage()


def test_agent_and_door_never_write_at_the_same_time(device: Device) -> None:
    device.agent.busy = True
    assert code_of(device.door.envelope, UPDATE.envelope) == "BUSY"
    device.agent.busy = False
    device.door.envelope(UPDATE.envelope)
    asyncio.run(device.agent.look())
    assert reasons.name(device.agent.result) == "BUSY"
    device.door.put(0, NEW[:8192])
    device.door._touched -= 100_000  # a minute without a byte: the agent may go on
    asyncio.run(device.agent.look())
    assert reasons.name(device.agent.result) == "NETWORK"  # no server in the settings
    device.engine.accept(UPDATE.envelope)
    assert code_of(device.door.put, 0, NEW[8192:]) == "BUSY"


def test_no_release_is_taken_during_a_trial_but_orders_are(device: Device) -> None:
    fetch(device.engine, UPDATE.envelope, UPDATE.payloads)
    device.start()
    assert device.up.decision.trial
    third = release.make(3, {0: OLD}, vendor=VENDOR, product=CLASS)
    assert code_of(device.door.envelope, third.envelope) == "TRIAL"
    assert code_of(device.door.keyset, device.desk.keys.next(version=2).document) == "TRIAL"
    assert device.door.order(device.order("settings", _5={"poll": 600})) == 0


@pytest.mark.requirement("UPC05", "UPC06")
def test_key_sets_are_followed_link_by_link_and_refused_by_name(device: Device) -> None:
    second = device.desk.keys.next()
    third = second.next()
    assert code_of(device.door.keyset, third.document) == "KEYSET_VERSION"
    assert device.door.keyset(second.document) == second.content.version
    assert device.door.keyset(third.document) == third.content.version
    assert device.door.keyset(third.document) == third.content.version  # once more does no harm
    assert code_of(device.door.keyset, second.document) == "KEYSET_VERSION"
    assert code_of(device.door.keyset, b"\xff" * 9000) == "LIMIT"
    assert code_of(device.door.keyset, b"junk") in ("CBOR", "KEYSET", "COSE")
    assert device.events().count("KEYSET_REFUSED") == 3  # the same twice in a row is one
    device.start()
    assert device.engine.status()["keyset"] == third.content.version


@pytest.mark.requirement("STS05", "UPE04")
def test_orders_come_through_the_door_as_they_come_from_the_server(device: Device) -> None:
    document = device.order("settings", _5={"poll": 600})
    assert device.door.order(document) == 0
    assert device.agent.every == 600
    assert code_of(device.door.order, document) == "ORDER_REPLAY"
    assert reasons.name(device.door.order(device.order("settings", 2, _5={"poll": 1}))) == "SETTING"
    assert code_of(device.door.order, device.order("settings", 3, _2=bytes(16))) == "PERMIT"
    assert code_of(device.door.order, b"junk") == "COSE"
    assert device.door.order(device.order("wipe", 4)) == 0
    assert asyncio.run(device.agent.look()) == 0  # a restart is due, with or without a network
    assert device.duties.record.get(record.LIFE)
    assert {"ORDER", "ORDER_REFUSED", "SETTINGS"} <= set(device.events())
    device.agent.duties = None
    assert code_of(device.door.order, document) == "DISABLED"


@pytest.mark.requirement("SSS04")
def test_an_order_rotates_the_log_once_and_edits_nothing(device: Device) -> None:
    for number in range(20):
        device.duties.log.append(eventlog.SETTINGS, 0, number)
    head = device.duties.log.number
    assert device.door.order(device.order("rotate-log", 1)) == 0
    found = events.verify(device.duties.log.export())
    assert [entry.number for entry in found] == list(range(1, head + 3))
    assert [entry.event for entry in found[-2:]] == ["ROTATED", "ORDER"]
    device.duties.log.rotate(found[-2].detail[:8])  # begun again after a power cut
    assert device.duties.log.number == head + 2
    assert device.door.order(device.order("rotate-log", 2)) == 0
    found = events.verify(device.duties.log.export())
    assert found[0].number == head + 1, "the file before it is gone, and the chain still holds"
    device.start()
    assert device.duties.log.number == head + 4


@pytest.mark.requirement("STS05")
def test_rotating_the_log_takes_the_right_to_change_settings(device: Device) -> None:
    assert orders.ACTIONS["rotate-log"][1] == orders.SETTINGS
    assert reasons.name(device.door.order(device.order("rotate-log", 1, _5=1))) == "PERMIT"
    assert "ROTATED" not in device.events()


def test_an_update_that_was_brought_wakes_the_agent_for_the_restart(device: Device) -> None:
    async def waits() -> None:
        device.agent.options["poll"] = device.agent.every = 86_400
        waiting = asyncio.create_task(device.agent.forever())
        await asyncio.sleep(0.05)
        device.bring(UPDATE)
        await asyncio.wait_for(waiting, 10)

    asyncio.run(waits())
    assert "STAGED" in device.events()


# -- on the simulated device -------------------------------------------------------------------------------------------

HAND = """
import sekisho
def read(path):
    with open(path, "rb") as file:
        return file.read()
def pieces(file):
    while True:
        piece = file.read(1000)
        if not piece:
            return
        yield piece
async def main():
    if sekisho.on_trial() or sekisho.engine().status()["counters"][0] > 1:
        print("new", sekisho.on_trial())
        return
    import gc
    door = sekisho.offline()
    print("keyset", door.keyset(read("/data/keyset")))
    for component, digest, size in door.envelope(read("/data/envelope")):
        with open("/data/payload", "rb") as file:
            file.seek(door.offset(component))
            print("missing", door.payload(component, pieces(file)))
    gc.collect()
    print("free", gc.mem_free())
    door.stage()
"""


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_a_device_without_any_network_is_updated_from_files(tmp_path: Path, kind: str) -> None:
    product = Product(tmp_path, settings={"wifi": [], "server": ""}, keys=make_keyset())
    product.personalities.default = product.personality(application=HAND)
    new = site.firmware("new", 30_000)
    product.personalities.images[imagefile.parse(new).digest.hex()] = product.personality("new", application=HAND)
    envelope, payload = product.release(2, new), new
    if kind == "packed":
        from uuid import UUID

        ids = [str(UUID(bytes=one)) for one in (product.device.vendor, product.device.classes[0])]
        parts = (releases.Component("fw", new),)
        request = releases.Request(*ids, "2", 2, parts, compress=True, groups=())
        made = releases.create(request, product.keys.release[0], product.keys.document)
        envelope, payload = made.envelope, next(iter(made.packed.values()))
    files = {"keyset": product.keys.next().document, "envelope": envelope, "payload": payload}
    world = product.factory(site.firmware("old", 20_000))
    put_files(world, files)
    console = consoles(run(world, "sekisho: confirmed"))
    assert "release 2 staged" in console, console
    assert "new True" in console, console
    assert int(re.findall(r"free (\d+)", console)[0]) > 30_000, console


def put_files(world: Any, files: dict[str, bytes]) -> None:
    """Files on the `data` file system of a device that is switched off."""
    from littlefs import LittleFS

    part = layout.load(FIRMWARE / "partitions" / "4MiB.csv")["data"]
    image = bytearray(world.flash_path.read_bytes())
    fs = LittleFS(block_size=4096, block_count=part.size // 4096, lookahead_size=32, mount=False,
                  disk_version=0x00020000)  # fmt: skip
    fs.context.buffer = bytearray(image[part.offset :][: part.size])
    fs.mount()
    for name, content in files.items():
        if "/" in name:
            fs.mkdir(name.split("/")[0])
        with fs.open(name, "wb") as file:
            file.write(content)
    fs.unmount()
    image[part.offset :][: part.size] = fs.context.buffer
    image[part.offset : part.offset + part.size] = fs.context.buffer
    world.flash_path.write_bytes(image)
