"""From the signer's desk to a confirmed boot: publish, fetch, stage, verify, trial, confirm, on the simulated device.

Firmware is made up here, small enough to be quick; the demo takes genuine images the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import images
from helpers.site import Product, consoles, firmware, run
from littlefs import LittleFS
from sekisho_boot import records
from sekisho_boot.ledger import Ledger
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.flash import Flash, MemPart
from sekisho_sim.personality import STOCK, Personalities, Personality
from sekisho_sim.world import World
from sekisho_tools import config, flashimage, imagefile, layout, suit
from sekisho_tools.device_code import FIRMWARE
from sekisho_tools.imagefile import CHIPS
from sekisho_tools.publish import publish
from sekisho_tools.serve import StaticServer

LAYOUT = layout.load(FIRMWARE / "partitions" / "4MiB.csv")
OLD, NEW = firmware("old", 60_000), firmware("new", 150_000)
BREAKS = "import sekisho\nsekisho.on_health(lambda: False)\nasync def main():\n    print('application starts')\n"
CRASHES = "async def main():\n    raise OSError('no sensor')\n"
DEAF = """
import network, sekisho
async def main():
    sekisho._agent.networks = []
    network.WLAN(0).active(False)
"""
SLOW = """
import asyncio, sekisho
async def first():
    await asyncio.sleep(1)
    print('first is done')
async def never():
    await asyncio.Event().wait()
async def main():
    sekisho.on_drain(first)
    sekisho.on_drain(never)
    sekisho.on_drain(never)
"""
NOTES = "import sekisho\nsekisho.on_drain(lambda: print('notes saved'))\nasync def main():\n    print('application')\n"


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path)
    with StaticServer(made.root) as server:
        made.server = server.url
        yield made


def slot(world: World, label: str, size: int) -> bytes:
    part = LAYOUT[label]
    return world.flash_path.read_bytes()[part.offset : part.offset + size]


def ledger(world: World):
    part = LAYOUT["sekisho"]
    data = bytearray(world.flash_path.read_bytes()[part.offset : part.offset + part.size])
    return Ledger(MemPart(part.size, Flash(data), 0)).state


def erased(results: list, label: str) -> int:
    """Sector erases in a partition."""
    part = LAYOUT[label]
    ops = [op for result in results for op in result.ops]
    return sum(op.kind == 0 and part.offset <= op.address < part.offset + part.size for op in ops)


@pytest.mark.requirement("UPE09")
def test_drain_hooks_run_before_a_restart_and_cannot_hold_it_up(product: Product) -> None:
    product.personalities.default = product.personality(application=SLOW)
    world = product.factory(OLD, speed=20)
    product.offer(2, NEW)
    console = consoles(run(world, "sekisho: confirmed"))
    steps = ["release 2 staged", "first is done", "takes too long", "takes too long", "restarting", "on trial"]
    at = -1
    for step in steps:
        at = console.index(step, at + 1)


@pytest.mark.requirement("UPE11")
def test_an_update_goes_from_publication_to_confirmation(product: Product) -> None:
    world = product.factory(OLD)
    product.offer(2, NEW, application=NOTES)
    results = run(world, "runs already")
    console = consoles(results)
    for words in ("release 2 staged", "restarting", "release 2, on trial", "application", "confirmed"):
        assert words in console, console
    assert slot(world, "ota_1", len(NEW)) == NEW
    assert slot(world, "ota_0", len(OLD)) == OLD
    assert ledger(world).counters == [2, 0]
    assert [result.slot for result in results][-2:] == ["ota_0", "ota_1"] or results[-1].slot == "ota_1"


def test_the_application_may_finish_its_work_before_the_restart(product: Product) -> None:
    product.personalities.default = product.personality(application=NOTES)
    world = product.factory(OLD)
    product.offer(2, NEW)
    assert "notes saved\nsekisho: restarting" in consoles(run(world, "on trial"))


@pytest.mark.requirement("UPE13", "UPE14")
@pytest.mark.parametrize("application", [BREAKS, CRASHES], ids=["check says no", "application breaks down"])
def test_an_image_whose_health_check_fails_is_rolled_back(product: Product, application: str) -> None:
    world = product.factory(OLD)
    product.offer(2, NEW, application=application)
    results = run(world, "RETRY_LATER")
    console = consoles(results)
    assert "release 2, on trial" in console
    assert console.index("on trial") < console.index("fw slot 0, release 1\nsekisho: release 2 failed: HEALTH")
    assert results[-1].slot == "ota_0"
    assert ledger(world).counters == [1, 0]


@pytest.mark.requirement("UPE13")
def test_an_image_that_cannot_reach_the_server_is_rolled_back(product: Product) -> None:
    """What it must prove at least is that the next fix can reach it."""
    world = product.factory(OLD, speed=10)
    product.offer(2, NEW, application=DEAF)
    console = consoles(run(world, "failed: ATTEMPTS"))
    assert console.count("on trial") == 3
    assert "confirmed" not in console


def settings(world: World) -> bytes:
    part = LAYOUT["data"]
    fs = LittleFS(block_size=4096, block_count=part.size // 4096, lookahead_size=32, mount=False)  # of any version
    fs.context.buffer = bytearray(world.flash_path.read_bytes()[part.offset : part.offset + part.size])
    fs.mount()
    with fs.open("/sekisho.json", "rb") as file:
        return bytes(file.read())


def replace_settings(world: World, content: bytes) -> None:
    part = LAYOUT["data"]
    data = bytearray(world.flash_path.read_bytes())
    data[part.offset : part.offset + part.size] = flashimage.make_littlefs(part.size, {"sekisho.json": content}, "data")
    world.flash_path.write_bytes(data)


@pytest.mark.requirement("UPE14")
@pytest.mark.parametrize("at", [40, 90])
def test_a_download_goes_on_after_a_power_cut(product: Product, at: int) -> None:
    world = product.factory(OLD)
    run(world, "sekisho: NOTHING")  # the first starts with their own flash operations are over
    product.offer(2, NEW)
    before = run(world, "staged", cut=at)
    assert before[-1].cause == "cut"
    after = run(world, "runs already")
    assert slot(world, "ota_1", len(NEW)) == NEW
    sectors = -(-len(NEW) // 4096)
    if at == 90:  # a 64 KiB step had been recorded
        assert erased(after, "ota_1") < sectors
    assert ledger(world).counters == [2, 0]


def test_a_device_that_lost_its_key_set_follows_the_chain_again(product: Product) -> None:
    """Also while the server says that its newest key set is the one that the device has seen."""
    world = product.factory(OLD, speed=20)
    product.publish(product.release(1, OLD), OLD, product.keys.next().document, product.keys.next().next().document)
    product.keys = product.keys.next().next()
    run(world, "runs already")
    assert ledger(world).keyset[0] == 3
    data = bytearray(world.flash_path.read_bytes())
    at = LAYOUT["sekisho"].offset + records.KEYSETS * 4096
    data[at : at + 4 * 4096] = b"\xff" * (4 * 4096)
    world.flash_path.write_bytes(data)
    product.offer(2, NEW)
    console = consoles(run(world, "release 2 runs already"))
    assert console.index("NO_KEYSET") < console.index("key set 2 accepted") < console.index("key set 3 accepted")


def test_a_payload_that_was_tampered_with_is_refused_and_the_old_image_goes_on(product: Product) -> None:
    world = product.factory(OLD)
    product.offer(2, NEW)
    path = product.root / "payload" / hashlib.sha256(NEW).hexdigest()
    path.write_bytes(NEW[:-100] + bytes(100))
    console = consoles(run(world, "sekisho: IMAGE_DIGEST"))
    assert "staged" not in console
    results = run(world, "RETRY_LATER")  # not fetched over and over
    assert results[-1].slot == "ota_0"
    assert slot(world, "ota_1", 4096) == b"\xff" * 4096


def test_a_lower_sequence_number_is_refused_before_anything_is_fetched(product: Product) -> None:
    world = product.factory(OLD, sequence=5)
    product.offer(4, NEW)
    results = run(world, "sekisho: SEQUENCE")
    assert "fetched" not in consoles(results)
    assert erased(results, "ota_1") == 0


def test_the_application_can_ask_what_is_going_on(product: Product) -> None:
    source = "import sekisho\nasync def main():\n    values = sekisho.status()\n"
    source += "    print('keys', ' '.join(sorted(values)))\n"
    source += "    print('trial', values['trial'], sekisho.on_trial(), values['mounts'], values['last result'])\n"
    world = product.factory(OLD)
    product.personalities.default = product.personality(application=source)
    product.offer(2, NEW)
    console = consoles(run(world, "runs already"))
    assert "trial True True () " in console
    assert "trial False False () confirmed" in consoles(run(world, "NOTHING"))
    for name in ("counters", "degraded", "detail", "fault", "keyset", "locked", "poll", "running", "server", "version"):
        assert f" {name}" in console


@pytest.mark.invariant(9)
@pytest.mark.rule("start")
def test_the_application_runs_even_where_the_engine_cannot(product: Product) -> None:
    """A build without its configuration is broken, but not dead."""
    world = product.factory(OLD)
    product.personalities.default = Personality("broken").with_modules(application=NOTES)
    assert "the application goes on alone" in consoles(run(world, "safe state: agent-broke\napplication"))


@pytest.mark.rule("watchdog")
def test_the_watchdog_of_the_trial_is_fed_once_the_image_is_confirmed(product: Product) -> None:
    world = product.factory(OLD, speed=10)
    product.offer(2, NEW)
    run(world, "confirmed")  # and from here on every 30 s of the device's time would be the last
    results = list(power_cycle(world, limits=Limits(5)))
    assert [result.cause for result in results] == ["timeout"], consoles(results)


@pytest.mark.rule("watchdog")
def test_a_product_can_end_the_watchdog_with_one_planned_restart(product: Product) -> None:
    world = product.factory(OLD)
    source = config.render(product.device) + "WATCHDOG = False\n"
    product.personalities.default = Personality("no watchdog").with_modules(sekisho_config=source)
    product.offer(2, NEW)
    console = consoles(run(world, "runs already"))
    assert "confirmed\nsekisho: restarting\n[ota_1, no watchdog]\nsekisho: fw slot 1, release 2\n" in console


def test_key_sets_are_followed_link_by_link(product: Product) -> None:
    world = product.factory(OLD)
    product.offer(2, NEW)
    second = product.keys.next()
    third = second.next()
    for made in (second, third):
        (product.folder / "keys.cose").write_bytes(made.document)
        publish(product.root, product.class_id, [product.folder / "keys.cose"])
    console = consoles(run(world, "runs already"))
    assert "key set 2 accepted\nsekisho: key set 3 accepted" in console
    assert "confirmed" in console
    assert ledger(world).keyset[0] == 3


def test_the_next_network_is_tried_where_the_first_is_not_there(product: Product) -> None:
    world = product.factory(OLD, speed=10)
    networks = [["elsewhere", "x"], ["sekisho", "wrong"], ["sekisho", "sekisho-lab"]]
    replace_settings(world, json.dumps(dict(json.loads(settings(world)), wifi=networks)).encode())
    run(world, "sekisho: NOTHING")
    replace_settings(world, json.dumps(dict(json.loads(settings(world)), wifi=networks[:2])).encode())
    run(world, "sekisho: NETWORK (no Wi-Fi network of the settings can be reached)")


def application(words: str, rest: str = "", size: int = LAYOUT["app_0"].size) -> bytes:
    """An application image: a littlefs with a module `application` that prints *words*."""
    source = f"import sekisho\n{rest}\nasync def main():\n    print({words!r})\n"
    return flashimage.make_littlefs(size, {"application.py": source.encode()}, "app_0")


@pytest.mark.requirement("UPE01")
def test_firmware_and_application_are_updated_together_and_one_by_one(product: Product) -> None:
    world = product.factory(OLD)
    app = application("first application")
    product.publish(product.release(2, NEW, app), NEW, app)
    console = consoles(run(world, "release 2 runs already"))
    assert "first application" in console
    assert "confirmed" in console

    app = application("second application")
    product.publish(product.release(3, None, app, suit.Tie("fw", 2)), app)
    results = run(world, "release 3 runs already")
    console = consoles(results)
    assert "first application" in console
    assert console.index("second application") < console.index("sekisho: confirmed")
    assert erased(results, "ota_0") == erased(results, "ota_1") == 0
    assert ledger(world).counters == [2, 3]
    # and the pair is what comes up from now on
    assert "second application" in consoles(run(world, "NOTHING"))


@pytest.mark.requirement("UPE01")
@pytest.mark.invariant(5)
def test_of_an_application_no_more_is_mounted_than_was_verified(product: Product) -> None:
    """An image smaller than its slot: behind it lie bytes that nobody hashed, and the file system ends before them."""
    world = product.factory(OLD)
    part = LAYOUT["app_0"]
    data = bytearray(world.flash_path.read_bytes())
    for slot_part in (LAYOUT["app_0"], LAYOUT["app_1"]):
        data[slot_part.offset : slot_part.end] = hashlib.shake_256(b"nobody's").digest(slot_part.size)
    world.flash_path.write_bytes(data)
    look = "import os\nprint('blocks', os.statvfs('/app')[2])\n"
    look += "try:\n    open('/app/x', 'w')\nexcept OSError as error:\n    print('write', error.errno)"
    app = application("small application", look, part.size // 4)
    product.publish(product.release(2, NEW, app), NEW, app)
    console = consoles(run(world, "release 2 runs already"))
    assert "small application" in console
    assert f"blocks {part.size // 4 // 4096}\nwrite 30\n" in console
    assert "cannot mount" not in console


@pytest.mark.requirement("UPE13", "UPE14")
def test_an_application_whose_health_check_fails_is_rolled_back(product: Product) -> None:
    world = product.factory(OLD)
    good, bad = application("good"), application("bad", "sekisho.on_health(lambda: False)")
    product.publish(product.release(2, NEW, good), NEW, good)
    run(world, "release 2 runs already")
    product.publish(product.release(3, None, bad, suit.Tie("fw", 2)), bad)
    console = consoles(run(world, "RETRY_LATER"))
    assert "bad" in console
    assert console.rindex("good") > console.rindex("bad")
    assert ledger(world).counters == [2, 2]


def test_an_application_that_breaks_down_later_leaves_the_agent_at_work(product: Product) -> None:
    world = product.factory(OLD)
    product.personalities.default = product.personality(application=CRASHES)
    product.offer(2, NEW, application=NOTES)
    console = consoles(run(world, "release 2 runs already"))
    assert "the agent goes on alone" in console
    assert "confirmed" in console


@pytest.mark.parametrize("label", ["data", "vfs"])
@pytest.mark.rule("file-systems")
def test_a_damaged_file_system_neither_stops_the_start_nor_is_formatted(product: Product, label: str) -> None:
    world = product.factory(OLD)
    part = LAYOUT[label]
    noise = hashlib.shake_256(b"noise").digest(part.size)
    data = bytearray(world.flash_path.read_bytes())
    data[part.offset : part.offset + part.size] = noise
    world.flash_path.write_bytes(data)
    console = consoles(run(world, "no server" if label == "data" else "sekisho: NOTHING"))
    assert f"cannot mount {label}" in console
    assert slot(world, label, part.size) == noise


@pytest.mark.invariant(5)
@pytest.mark.rule("start")
def test_no_file_can_take_the_place_of_a_module(product: Product) -> None:
    trap = b"print('trap')\n"
    files = dict.fromkeys(("hashlib.py", "sekisho_config.py", "boot.py", "main.py", "lib/binascii.py"), trap)
    world = product.factory(OLD)
    part = LAYOUT["vfs"]
    data = bytearray(world.flash_path.read_bytes())
    data[part.offset : part.offset + part.size] = flashimage.make_littlefs(part.size, files, "vfs")
    world.flash_path.write_bytes(data)
    product.offer(2, NEW)
    assert "trap" not in consoles(run(world, "runs already"))


def test_stock_mode_starts_the_engine_from_the_file_system(product: Product, tmp_path: Path) -> None:
    """The official firmware with our layout and files: its own start order, everything of ours on `vfs`."""
    app = imagefile.parse(firmware("official"))
    built = flashimage.build(
        flashimage.Inputs(
            app=app,
            table=LAYOUT,
            device=product.device,
            mode=flashimage.STOCK,
            bootloader=(CHIPS["esp32"], images.bootloader()),
            release=product.release(1, app.data),
            settings=json.dumps({"server": product.server, "wifi": [["sekisho", "sekisho-lab"]]}).encode(),
        )
    )
    world = World.create(
        tmp_path / "stock", built.data, personalities=Personalities(Personality(start=STOCK)), heap=200 << 10
    )
    results = run(world, "sekisho: NOTHING")
    assert "fw slot 0, release 1" in consoles(results)
    assert erased(results, "vfs") == 0  # mounted again without writing
    payload = firmware("official, next version")
    product.offer(2, payload)
    run(world, "release 2 runs already", seconds=90)
    assert ledger(world).counters == [2, 0]
