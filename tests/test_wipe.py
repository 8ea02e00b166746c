"""Wipe, transfer and decommission on the simulated device: all of it, power cuts or not, and nothing in between."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers import micropython, powercut, site
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, firmware
from sekisho import orders, record
from sekisho_boot import records
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.flash import Flash, MemPart, cut_states
from sekisho_tools import cose, flashimage, layout, wipe
from sekisho_tools.device_code import FIRMWARE
from sekisho_tools.errors import ToolError

LAYOUT = layout.load(FIRMWARE / "partitions" / "4MiB.csv")
OLD = firmware("old", 20_000)
SEED = hashlib.sha256(b"device key").digest()
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
KEY = SEED + PUBLIC
SECRET = b"a secret of the user, 0123456789"
ORDER = """
import sekisho
from sekisho.record import Record, RESULTS, OWNER
from sekisho.orders import Orders
from sekisho.values import Settings
from sekisho_boot.reasons import Refused, name
engine = sekisho.engine()
record = Record(engine.port.part)
orders = Orders(engine, record, Settings())
print("application", record.get(OWNER))
from sekisho import secure
component = secure.component()
from machine import RTC
print("rtc", RTC().memory())
if component.kept():
    print("key", component.public().hex())
try:
    orders.obey({document!r})
    RTC().memory(b"a secret of the user")
    print("obeyed")
    engine.port.reset()
except Refused as refused:
    print("refused", name(refused.code))
try:
    open("/data/new", "w").write("x")
    print("data can be written")
except OSError:
    print("no data")
"""


def kept(content: bytes) -> bytes:
    """A file as `sekisho.store` keeps it."""
    head = b"SKF1" + struct.pack("<II", 1, len(content))
    return head + struct.pack("<I", zlib.crc32(content, zlib.crc32(head))) + content


class Case:
    """A device full of secrets, and an order for it."""

    def __init__(self, folder: Path, action: str, argument: bytes | None = None) -> None:
        self.product = Product(folder, server="http://old", keys=make_keyset(operators=1))
        self.product.personalities.default = self.product.personality(main="print('idle')")
        self.world = self.product.factory(OLD)
        powercut.settle(self.world)
        data = bytearray(self.world.flash_path.read_bytes())
        for label in ("ota_1", "app_0", "app_1", "nvs", "vfs", "data"):
            part = LAYOUT[label]
            if label == "data":
                files = {"sekisho.json": b'{"server": "http://old"}', "secret": SECRET * 200, "device.0": kept(KEY)}
                content = flashimage.make_littlefs(part.size, files, label)
            elif label == "vfs":
                content = flashimage.make_littlefs(part.size, {"secret": SECRET * 200}, label)
            else:
                content = (SECRET * (part.size // len(SECRET) + 1))[: part.size]
            data[part.offset : part.offset + part.size] = content
        part = LAYOUT["sekisho"]
        for sector in (records.STAGED, records.HOLDING):
            at = part.offset + sector * 4096
            data[at : at + 4096] = (SECRET * 128)[:4096]
        self.world.flash_path.write_bytes(data)
        members = {1: orders.ACTIONS[action][0], 2: [1, self.product.device.classes[0]], 4: ISSUED + YEAR, 6: 1}
        if argument is not None:
            members[5] = argument
        self.document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
        self.product.personalities.default = self.product.personality(main=ORDER.format(document=self.document))

    def run(self) -> str:
        results = list(power_cycle(self.world, limits=Limits(60), max_boots=8))
        self.cause = results[-1].cause
        return site.consoles(results)

    def part(self, label: str) -> bytes:
        part = LAYOUT[label]
        return self.world.flash_path.read_bytes()[part.offset : part.offset + part.size]

    def statement(self) -> wipe.Statement:
        """What the device signed last, verified."""
        order, state, document = self.record().get(record.STATEMENT)
        found = wipe.verify(document, PUBLIC)
        assert order == orders.digest(self.document) == bytes.fromhex(found.order)
        assert found.done == (state == 2)
        return found

    def record(self) -> record.Record:
        return record.Record(MemPart(LAYOUT["sekisho"].size, Flash(bytearray(self.part("sekisho"))), 0))


def blank(data: bytes) -> bool:
    return data == b"\xff" * len(data)


@pytest.mark.requirement("STS08", "HLC06")
@pytest.mark.parametrize("action", ["wipe", "transfer"])
def test_a_wipe_leaves_nothing_of_the_owner_and_a_device_that_works(tmp_path: Path, action: str) -> None:
    case = Case(tmp_path, action, b"new owner" if action == "transfer" else None)
    console = case.run()
    assert "obeyed" in console
    assert "sekisho: wiped" in console
    assert "refused ORDER_REPLAY" in console  # the same order, found again by the wiped device
    assert "data can be written" in console
    assert f"key {PUBLIC.hex()}" in console.partition("obeyed")[0]
    assert "key" not in console.partition("sekisho: wiped")[2]
    for secret in (SECRET, SEED):
        assert secret not in case.world.flash_path.read_bytes()
    assert (case.statement().action, case.statement().done) == (action, True)
    for label in ("ota_1", "app_0", "app_1", "nvs", "vfs"):
        assert blank(case.part(label)), label
    for sector in (records.STAGED, records.HOLDING):
        assert blank(case.part("sekisho")[sector * 4096 : sector * 4096 + 4096]), sector
    assert "rtc b''" in console.partition("sekisho: wiped")[2]
    assert "rtc b'a secret" not in console
    assert case.part("ota_0")[: len(OLD)] == OLD
    assert case.record().get(record.LIFE) is None
    assert case.record().get(record.OWNER) == (b"new owner" if action == "transfer" else None)


@pytest.mark.requirement("HLC07", "STS08")
def test_a_decommissioned_device_starts_into_the_dead_state_for_ever(tmp_path: Path) -> None:
    case = Case(tmp_path, "decommission")
    console = case.run()
    assert console.count("application") == 1
    assert "sekisho: decommissioned" in console
    assert SECRET not in case.world.flash_path.read_bytes()
    assert blank(case.part("data"))
    told = wipe.verify(wipe.read(console.encode()), PUBLIC)  # from the cable of a device that does nothing any more
    assert (told.action, told.done) == ("decommission", True)
    assert told == case.statement()
    again = case.run()
    assert "application" not in again
    assert "sekisho: decommissioned" in again
    assert case.cause == "deep-sleep"


def test_a_cut_anywhere_in_a_wipe_is_followed_by_all_of_it_and_no_application_in_between(tmp_path: Path) -> None:
    case = Case(tmp_path, "wipe")
    results = list(power_cycle(case.world, limits=Limits(60), max_boots=1))
    assert "obeyed" in results[0].console
    base = case.world.flash_path.read_bytes()
    wiping = next(iter(power_cycle(case.world, limits=Limits(60), max_boots=1)))
    assert "sekisho: wiped" in wiping.console
    ops = wiping.ops
    erased = [op.address for op in ops if op.kind == "erase"]
    keys, data = ([at for at in erased if LAYOUT[x].offset <= at < LAYOUT[x].end] for x in ("nvs", "data"))
    assert erased.index(keys[-1]) < erased.index(data[0]), "content keys go first"
    picked = sorted({*range(24), *range(24, len(ops), max(1, len(ops) // 24)), *range(len(ops) - 30, len(ops))})
    flash = bytearray(base)
    done = 0
    said = set()
    for number in picked:
        for op in ops[done:number]:
            op.apply(flash)
        done = number
        for name, state in cut_states(bytes(flash), ops[number : number + 1]):
            if name not in ("0", "0:erase-noise:0", "0:program-random-bits:0", "0:erase-few-zero-bits-left:0"):
                continue
            case.world.flash_path.write_bytes(state)
            console = case.run()
            before, found, _ = console.partition("sekisho: wiped")
            over = case.record().get(record.LIFE) is None
            assert over, (number, name, console)
            if found:
                assert "application" not in before, (number, name, console)
            assert "data can be written" in console, (number, name, console)
            left = case.world.flash_path.read_bytes()
            assert SECRET not in left, (number, name)
            assert SEED not in left, (number, name)
            said.add(case.statement().done)
    assert said == {True, False}, "a cut before the end of `data` is attested, one after it only promised"


def test_a_wipe_during_a_trial_first_returns_to_the_proved_image(tmp_path: Path) -> None:
    """Else the way back would be erased under an image that nobody confirmed."""
    from sekisho_tools.serve import StaticServer

    product = Product(tmp_path, keys=make_keyset(operators=1))
    with StaticServer(product.root) as server:
        product.server = server.url
        world = product.factory(OLD)
        members = {1: orders.WIPE, 2: [1, product.device.classes[0]], 4: ISSUED + YEAR, 6: 1}
        document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
        new = firmware("new", 60_000)
        product.offer(
            2, new, main="import sekisho\nprint('on trial', sekisho.on_trial())\n" + ORDER.format(document=document)
        )
        console = site.consoles(site.run(world, "sekisho: wiped"))
    assert "on trial True" in console
    data = world.flash_path.read_bytes()
    part = LAYOUT["ota_1"]
    assert blank(data[part.offset : part.offset + part.size])
    assert data[LAYOUT["ota_0"].offset :][: len(OLD)] == OLD


def test_flash_that_cannot_be_erased_keeps_the_device_dead(tmp_path: Path) -> None:
    case = Case(tmp_path, "wipe")
    broken = "    from sekisho import wipe\n    wipe.is_blank = lambda part, sector: False\n"
    boot = (FIRMWARE / "_boot.py").read_text().replace("    import sekisho\n", "    import sekisho\n\n" + broken)
    assert broken in boot
    case.product.personalities.default = case.product.personality(main=ORDER.format(document=case.document), _boot=boot)
    console = case.run()
    assert console.count("sekisho: wiping") == 3
    assert "the wipe cannot be completed" in console
    assert "application" not in console.partition("obeyed")[2]
    assert case.cause == "deep-sleep"


def test_the_plan_covers_the_whole_partition_table() -> None:
    """A partition that is added one day must be in the plan or here, with the reason."""
    kept = {
        "otadata": "which slot runs",
        "phy_init": "radio calibration of the chip",
        "ota_0": "the running firmware (or ota_1)",
        "sekisho": "ledger, records and key sets; its envelope and holding sector are erased",
    }
    erased = {"data", "nvs", "ota_1", "app_0", "app_1", "vfs"}
    for size in ("4MiB", "8MiB", "16MiB"):
        names = {part.label for part in layout.load(FIRMWARE / "partitions" / f"{size}.csv")}
        assert names == erased | set(kept)


@pytest.mark.requirement("STS08")
def test_memory_is_overwritten_as_far_as_python_can_get_hold_of_it() -> None:
    """What an application left in PSRAM outlives a restart."""
    program = (
        "import gc; from sekisho import wipe\n"
        "kept = [b'a secret of the user' * 50 for _ in range(200)]\nkept = None\n"
        "gc.collect(); free = gc.mem_free(); print(free, wipe.forget_ram())"
    )
    free, overwritten = map(int, micropython.run(program, heap="500k").split())
    assert free > 200_000
    assert overwritten > free * 0.95


def test_a_wipe_without_a_key_or_with_a_damaged_file_system_is_done_all_the_same(tmp_path: Path) -> None:
    case = Case(tmp_path, "wipe")
    first = next(iter(power_cycle(case.world, limits=Limits(60), max_boots=1)))
    assert "obeyed" in first.console
    flash = bytearray(case.world.flash_path.read_bytes())
    part = LAYOUT["data"]
    flash[part.offset : part.offset + 8192] = bytes(8192)
    case.world.flash_path.write_bytes(flash)
    console = case.run()
    assert "sekisho: wiped" in console
    assert SECRET not in case.world.flash_path.read_bytes()
    assert case.record().get(record.STATEMENT) is None


@pytest.mark.requirement("STS08", "HLC06", "HLC07")
def test_only_what_the_device_signed_is_taken_for_its_last_statement(tmp_path: Path) -> None:
    from sekisho import wipe as device
    from sekisho_boot.cose import key_id

    class Key:
        id = key_id(PUBLIC)

        def sign1(self, payload: bytes) -> bytes:
            protected = cose.encode({1: -19})
            private = Ed25519PrivateKey.from_private_bytes(SEED)
            signature = private.sign(cose.sign1_input(protected, payload))
            return b"\xd2" + cose.encode([protected, {4: self.id}, payload, signature])

    for state in (device.PROMISED, device.DONE):
        made = device.statement(Key(), bytes(16), ISSUED, orders.WIPE, b"12345678", [3, bytes(32)], state)
        found = wipe.verify(made, PUBLIC)
        assert (found.done, found.order, found.head) == (state == 2, b"12345678".hex(), "3:" + "00" * 32)
        assert wipe.is_statement(made)
        for at in range(0, len(made), 3):
            changed = bytearray(made)
            changed[at] ^= 1
            with pytest.raises(ToolError):
                wipe.verify(bytes(changed), PUBLIC)
        with pytest.raises(ToolError):
            wipe.verify(made, bytes(32))
    for junk in (b"", b"\xd2\x80", bytes(5000), b"sekisho: statement AAAA"):
        with pytest.raises(ToolError):
            wipe.parse(wipe.read(junk))
