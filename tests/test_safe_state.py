"""The safe state: a device whose application cannot run stays reachable, says why, and takes the next good update."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.console import Device
from helpers.site import Product, consoles, firmware, run
from sekisho import safe
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.world import World
from sekisho_tools import config, flashimage, imagefile, suit
from sekisho_tools.serve import StaticServer
from test_duties import log
from test_end_to_end import LAYOUT, application, ledger

OLD, NEW, NEXT = firmware("old", 60_000), firmware("new", 80_000), firmware("next", 80_000)
GOOD = "async def main():\n    print('application runs')\n"
TELLS = """
async def main():
    print("application runs")
"""
FAULTS = {
    "raises at its import": ("1 / 0\n", "application-broke"),
    "raises later": ("async def main():\n    raise OSError('no sensor')\n", "application-broke"),
    "has no main": ("X = 1\n", "application-broke"),
    "needs a module that is not there": ("import nothing_of_that_name\n", "application-broke"),
    "needs too much memory": ("async def main():\n    print(len(bytearray(1 << 24)))\n", "no-memory"),
}


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path)
    with StaticServer(made.root) as server:
        made.server = server.url
        yield made


def damage(world: World, *labels: str) -> None:
    """Other bytes in the middle of partitions."""
    data = bytearray(world.flash_path.read_bytes())
    for label in labels:
        part = LAYOUT[label]
        data[part.offset : part.offset + 8192] = hashlib.shake_256(label.encode()).digest(8192)
    world.flash_path.write_bytes(bytes(data))


@pytest.mark.requirement("UPE14")
def test_a_device_with_a_broken_application_in_both_slots_takes_a_good_one_and_comes_back(product: Product) -> None:
    world = product.factory(OLD)
    for number in (2, 3):
        app = application(f"application {number}")
        product.publish(product.release(number, None, app, suit.Tie("fw", 1)), app)
        run(world, f"release {number} runs already")
    damage(world, "app_0", "app_1")
    console = consoles(run(world, "sekisho: NOTHING"))
    assert "sekisho: safe state: no-application" in console
    assert "degraded: TARGET_LOST" in console
    assert "application 3" not in console
    app = application("application 4")
    product.publish(product.release(4, None, app, suit.Tie("fw", 1)), app)
    console = consoles(run(world, "release 4 runs already"))
    assert console.index("safe state: no-application") < console.index("release 4 staged")
    assert console.index("release 4 staged") < console.index("sekisho: confirmed")
    assert "application 4" in console
    console = consoles(run(world, "sekisho: NOTHING"))
    assert "application 4" in console
    assert "safe state" not in console
    assert "SAFE" in log(world)


@pytest.mark.requirement("UPE14")
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_the_application_the_agent_brings_the_next_one(product: Product, fault: str) -> None:
    source, word = FAULTS[fault]
    product.personalities.default = product.personality(application=source)
    world = product.factory(OLD)
    product.offer(2, NEW, application=GOOD)
    console = consoles(run(world, "release 2 runs already"))
    assert f"sekisho: safe state: {word}" in console
    assert console.index("safe state") < console.index("staged") < console.index("sekisho: confirmed")
    assert "application runs" in console


@pytest.mark.requirement("UPE13", "UPE14")
@pytest.mark.parametrize("fault", FAULTS)
def test_on_trial_the_same_faults_lead_back_to_the_old_image(product: Product, fault: str) -> None:
    product.personalities.default = product.personality(application=GOOD)
    world = product.factory(OLD)
    product.offer(2, NEW, application=FAULTS[fault][0])
    results = run(world, "RETRY_LATER")
    console = consoles(results)
    assert "release 2 failed: HEALTH" in console
    assert "safe state" not in console
    assert results[-1].slot == "ota_0"
    assert ledger(world).counters == [1, 0]


def test_an_application_image_without_an_application_is_named(product: Product) -> None:
    world = product.factory(OLD)
    good = application("good one")
    product.publish(product.release(2, None, good, suit.Tie("fw", 1)), good)
    run(world, "release 2 runs already")
    empty = flashimage.make_littlefs(LAYOUT["app_0"].size, {"notes.txt": b"nothing"}, "app_0")
    product.publish(product.release(3, None, empty, suit.Tie("fw", 1)), empty)
    console = consoles(run(world, "RETRY_LATER"))
    assert "release 3 failed: HEALTH" in console  # its trial
    assert "good one" in console


RESTARTS = """
import sekisho, machine
async def main():
    print("application starts")
    machine.reset()
"""


def test_an_application_that_restarts_the_chip_over_and_over_is_left_out(product: Product) -> None:
    product.personalities.default = product.personality(application=RESTARTS)
    world = product.factory(OLD)
    console = consoles(run(world, "sekisho: NOTHING"))
    assert console.count("application starts") in (5, 6)  # the engine's own restart at the first start counts
    assert "sekisho: safe state: application-loops" in console
    product.offer(2, NEW, application=GOOD)
    console = consoles(run(world, "release 2 runs already"))  # the power was off: it is tried again, and left out again
    assert console.count("application starts") == 6
    assert "application runs" in console
    assert "safe state" not in consoles(run(world, "sekisho: NOTHING"))


def test_restarts_that_lasted_or_were_wanted_do_not_count(product: Product) -> None:
    slow = "import asyncio, machine\nasync def main():\n    print('application starts')\n    await asyncio.sleep(200)\n"
    slow += "    machine.reset()\n"
    product.settings = {"poll": 86400}
    product.personalities.default = product.personality(application=slow)
    world = product.factory(OLD, speed=400)
    console = consoles(list(power_cycle(world, limits=Limits(20), max_boots=9)))
    assert console.count("application starts") >= 8
    assert "safe state" not in console


@pytest.mark.requirement("UPE14")
def test_without_its_data_the_device_goes_by_what_it_was_built_with(product: Product) -> None:
    product.personalities.default = product.personality(application=TELLS)
    world = product.factory(OLD)
    source = config.render(product.device)
    source += f"SETTINGS = {{'server': {product.server!r}, 'wifi': [['sekisho', 'sekisho-lab']], 'poll': 30}}\n"
    product.personalities.default = product.personality(application=TELLS).with_modules(sekisho_config=source)
    damage(world, "data")
    product.offer(2, NEW)
    console = consoles(run(world, "release 2 runs already"))
    assert "sekisho: safe state: data-damaged" in console
    assert "application runs" in console  # it may live without
    assert "confirmed" in console


BREAKS_AGENT = """
import sekisho.agent
look, count = sekisho.agent.Agent.look, [0]
async def broken(self):
    count[0] += 1
    if count[0] <= 3:
        raise KeyError("a fault of ours")
    return await look(self)
sekisho.agent.Agent.look = broken
async def main():
    print("application runs")
"""


def test_an_agent_that_breaks_down_begins_again_with_growing_pauses(product: Product) -> None:
    product.personalities.default = product.personality(application=BREAKS_AGENT)
    world = product.factory(OLD, speed=20)
    console = consoles(run(world, "sekisho: NOTHING"))
    assert console.count("a fault of ours") == 3
    assert console.count("application runs") == 1  # which is not disturbed
    assert "safe state: agent-broke" in console


NO_AGENT = """
import sekisho
make, count = sekisho._make_agent, [0]
def broken(class_id):
    count[0] += 1
    if count[0] <= 2:
        raise MemoryError("no room for an agent")
    return make(class_id)
sekisho._make_agent = broken
sekisho.run("application")
"""


def test_an_agent_that_cannot_be_made_is_made_later(product: Product) -> None:
    changed = product.personality(application=GOOD).with_modules(main=NO_AGENT)
    product.personalities.default = changed
    world = product.factory(OLD, speed=20)
    product.offer(2, NEW, application=GOOD)
    console = consoles(run(world, "release 2 runs already"))
    assert console.index("application runs") < console.index("safe state left") < console.index("staged")


PIN = """
import machine
class Pin:
    OUT = 3
    def __init__(self, number, mode):
        print("pin", number)
    def value(self, on):
        print("led", on)
machine.Pin = Pin
"""
LED = f"""{PIN}
import asyncio
async def main():
    raise OSError("no sensor")
"""


def test_the_led_blinks_the_number_of_the_reason(product: Product) -> None:
    source = config.render(product.device) + "LED = 2\n"
    product.personalities.default = product.personality(application=LED).with_modules(sekisho_config=source)
    world = product.factory(OLD, speed=10)
    console = consoles(run(world, "led 1\nled 0\nled 1\nled 0\nled 1\nled 0\n"))
    assert "pin 2" in console


def test_a_light_that_is_not_there_stops_nothing(product: Product) -> None:
    source = config.render(product.device) + "LED = 'none'\n"
    broken = LED.replace('print("pin", number)', "raise ValueError(number)")
    product.personalities.default = product.personality(application=broken).with_modules(sekisho_config=source)
    assert "no LED" in consoles(run(product.factory(OLD), "sekisho: NOTHING"))


@pytest.mark.requirement("UPE14")
def test_without_a_server_the_console_brings_the_update(tmp_path: Path) -> None:
    """Offline, with an application that breaks down: the person beside the device mends it."""
    broken = "async def main():\n    raise OSError('no sensor')\n"
    with Device(tmp_path, wifi=[], modules={"application": broken}) as device:
        device.wait_for("safe state: application-broke")
        browser = device.browser().set_up()
        assert "The application does not run: application-broke" in browser.get("/").text
        assert "Something is wrong with this device." in device.browser().get("/").text
        device.modules = {"application": GOOD}
        source = config.render(device.product.device) + device.extra
        good = device.product.personality(application=GOOD).with_modules(sekisho_config=source)
        device.product.personalities.images[imagefile.parse(NEW).digest.hex()] = good
        browser.upload(device.product.release(2, NEW))
        browser.upload(NEW)
        device.wait_for("sekisho: confirmed", 60)
        device.text = ""
        assert "Something is wrong" not in device.browser().get("/").text


@pytest.mark.requirement("UPE14")
def test_a_stock_device_says_why_blinks_and_takes_the_next_release(product: Product) -> None:
    world = product.stock(PIN + "async def main():\n    raise OSError('no sensor')\n")
    console = consoles(run(world, "led 1\nled 0\nled 1\nled 0\nled 1\nled 0\n"))
    assert "sekisho: safe state: application-broke" in console
    assert "pin 2" in console
    product.offer(2, firmware("official, next version"))
    run(world, "release 2, on trial", seconds=90)


@pytest.mark.requirement("UPE14")
def test_a_stock_device_whose_application_restarts_it_over_and_over_leaves_it_out(product: Product) -> None:
    world = product.stock("import machine\nasync def main():\n    print('application starts')\n    machine.reset()\n")
    console = consoles(run(world, "sekisho: safe state: application-loops"))
    assert console.count("application starts") in (5, 6)
    assert "application starts" not in console.split("safe state")[1]


def test_every_reason_has_a_word_and_a_line_in_the_document() -> None:
    text = Path(safe.__file__).read_text()
    numbers = re.findall(r"^([A-Z_]+) = const\((\d+)\)  # [A-Z]", text, re.MULTILINE)
    assert [int(number) for _, number in numbers] == list(range(1, len(safe.WORDS)))
    page = (Path(__file__).parents[1] / "docs" / "safe-state.md").read_text()
    for number, word in enumerate(safe.WORDS[1:], 1):
        assert f"| {number} | `{word}` |" in page
