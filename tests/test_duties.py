"""Settings, orders, policy, event log and reports at work beside the agent, on the simulated device (100 KB heap)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from helpers import powercut, site
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, consoles, firmware, run
from littlefs import LittleFS
from sekisho import orders
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.world import World
from sekisho_tools import cose, events, layout, suit
from sekisho_tools import report as desk_report
from sekisho_tools.device_code import FIRMWARE
from sekisho_tools.order import send
from sekisho_tools.serve import StaticServer

LAYOUT = layout.load(FIRMWARE / "partitions" / "4MiB.csv")
OLD, NEW = firmware("old", 60_000), firmware("new", 100_000)
TOLD = """
import sekisho
sekisho.on_notify(lambda what, sequence, reason: print("told", what, sequence))
async def main():
    print("device", sekisho.engine().port.device.hex())
"""


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path, keys=make_keyset(operators=1))
    with StaticServer(made.root) as server:
        made.server = server.url
        made.personalities.default = made.personality(application=TOLD)
        yield made


def files(world: World) -> dict[str, bytes]:
    part = LAYOUT["data"]
    fs = LittleFS(block_size=4096, block_count=part.size // 4096, lookahead_size=32, mount=False)
    fs.context.buffer = bytearray(world.flash_path.read_bytes()[part.offset :][: part.size])
    fs.mount()
    found = {}
    for name in fs.listdir("/"):
        with fs.open(name, "rb") as file:
            found[name] = bytes(file.read())
    return found


def log(world: World) -> list[str]:
    """The events of the log, oldest first, after checking its chain."""
    kept = files(world)
    parts = sorted((kept[name] for name in ("events.0", "events.1") if name in kept), key=lambda data: data[4:8][::-1])
    return [one.event for one in events.verify(b"".join(parts))]


class Operator:
    """Gives orders to the one device of a test through the static server."""

    def __init__(self, product: Product, world: World) -> None:
        self.product = product
        self.counter = 0
        console = consoles(run(world, "device "))
        self.device = UUID(hex=console.partition("device ")[2].split()[0])

    def order(self, action: str, argument: Any = None) -> bytes:
        self.counter += 1
        number = orders.ACTIONS[action][0]
        members = {1: number, 2: self.device.bytes, 4: ISSUED + YEAR, 6: self.counter}
        if argument is not None:
            members[5] = argument
        document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
        send(document, self.product.root, self.device)
        return document


@pytest.mark.requirement("STS05", "UPE04", "UPE05", "UPE06", "UPE07", "UPD11")
def test_updates_wait_for_what_the_operator_decides(product: Product) -> None:
    world = product.factory(OLD)
    operator = Operator(product, world)
    operator.order("settings", {"update_enabled": False, "notify": ["available", "installed"]})
    envelope = product.offer(2, NEW, application=TOLD)
    console = consoles(run(world, "sekisho: DISABLED"))
    assert "order obeyed" in console
    assert "staged" not in console
    operator.order("settings", {"update_enabled": True, "update_start": "administrator"})
    console = consoles(run(world, "sekisho: APPROVAL"))
    assert "staged" not in console
    manifest = suit.decode(envelope).digest.value
    operator.order("approve", manifest)
    console = consoles(run(world, "told installed 2"))
    assert "release 2 staged" in console
    assert "order obeyed" in console
    list(power_cycle(world, limits=Limits(6), max_boots=1))
    found = log(world)
    for event in ("ORDER", "SETTINGS", "AVAILABLE", "STAGED", "INSTALLED"):
        assert event in found, found


def test_a_wrong_network_is_taken_back_and_a_good_one_kept(product: Product) -> None:
    world = product.factory(OLD, speed=30)
    operator = Operator(product, world)
    operator.order("settings", {"wifi": [["nowhere", "12345678"]]})
    console = consoles(run(world, "the old settings are back", seconds=120))
    assert "order obeyed" in console
    run(world, "sekisho: NOTHING")
    kept = files(world)
    assert b"nowhere" not in max(kept["settings.0"], kept["settings.1"], key=lambda data: data[4])
    operator.order("settings", {"wifi": [["nowhere", "12345678"], ["sekisho", "sekisho-lab"]]})
    product.offer(1, OLD, application=TOLD)  # a server that answers 404 to everything proves nothing
    run(world, "runs already")
    list(power_cycle(world, limits=Limits(6), max_boots=2))
    kept = files(world)
    document = json.loads(max(kept["settings.0"], kept["settings.1"], key=lambda data: data[4])[16:])
    assert document["pending"] == {}
    assert document["values"]["wifi"][0] == ["nowhere", "12345678"]


@pytest.mark.requirement("SSS01", "SSS05")
def test_a_report_is_made_on_order(product: Product) -> None:
    world = product.factory(OLD)
    operator = Operator(product, world)
    operator.order("report", b"\x05\x06")
    for _ in range(5):
        list(power_cycle(world, limits=Limits(4), max_boots=1))
        if "report.cose" in files(world):
            break
    kept = files(world)
    public = max(kept.get("device.0", b""), kept.get("device.1", b""))[48:80]
    verdict = desk_report.verify(kept["report.cose"], public, nonce=b"\x05\x06")
    assert verdict.good, verdict.findings
    assert verdict.report.device == operator.device
    assert set(verdict.report.ours[desk_report.device.INTERFACES]) == {"repl", "ctrl-c"}


@pytest.mark.requirement("STS08", "HLC07")
def test_an_order_from_the_server_ends_the_life_of_a_device(product: Product) -> None:
    world = product.factory(OLD)
    operator = Operator(product, world)
    operator.order("decommission")
    results = list(power_cycle(world, limits=Limits(60), max_boots=8))
    assert "sekisho: decommissioned" in consoles(results)
    assert results[-1].cause == "deep-sleep"


@pytest.mark.requirement("STS11")
def test_development_mode_is_left_for_good_by_one_order(product: Product) -> None:
    world = product.factory(OLD)
    operator = Operator(product, world)
    operator.order("production")
    run(world, "sekisho: restarting")
    operator.order("report", b"")
    for _ in range(5):
        list(power_cycle(world, limits=Limits(4), max_boots=1))
        if "report.cose" in files(world):
            break
    told = desk_report.parse(files(world)["report.cose"])
    assert told.ours[desk_report.device.MODE] == 2
    assert told.ours[desk_report.device.INTERFACES] == ()


BROKEN = """
import sekisho
from sekisho import afresh
afresh.FIRST_PAUSE, afresh.MAX_PAUSE, sekisho.LASTED = 20, 100, 10
real = sekisho.main
async def main(app):
    {line}
sekisho.main = main
sekisho.run()
"""


@pytest.mark.requirement("HLC04")
def test_a_device_that_breaks_down_again_and_again_waits_longer_each_time_up_to_a_limit(product: Product) -> None:
    product.personalities.default = product.personality(main=BROKEN.format(line='raise RuntimeError("broken")'))
    world = product.factory(OLD, speed=30)
    results = list(power_cycle(world, limits=Limits(30), max_boots=7))
    found = [int(line.split()[-2]) for line in consoles(results).splitlines() if "starting afresh" in line]
    for pause, middle in zip(found, (20, 40, 80, 100, 100), strict=False):
        assert middle * 7 // 8 <= pause <= middle * 9 // 8, found
    assert len(found) >= 5, consoles(results)
    product.personalities.default = product.personality(main=BROKEN.format(line="await real(app)"))
    list(power_cycle(world, limits=Limits(5), max_boots=1))
    product.personalities.default = product.personality(main=BROKEN.format(line='raise RuntimeError("broken")'))
    results = list(power_cycle(world, limits=Limits(8), max_boots=1))
    assert 17 <= int(consoles(results).partition("afresh in ")[2].split()[0]) <= 22, "it had lasted in between"


def test_the_functions_are_not_needed_for_an_update(product: Product) -> None:
    broken = "raise MemoryError\n"
    world = product.factory(OLD)
    product.personalities.default = product.personality(**{"sekisho/duties": broken})
    product.offer(2, NEW)
    console = consoles(run(world, "release 2 staged"))
    assert "no orders, no event log" in console


HEAP = """
import sekisho, gc
async def main():
    import asyncio
    await asyncio.sleep(3)
    gc.collect()
    print("free", gc.mem_free(), "with", sekisho._agent.duties is not None)
"""


def test_agent_and_functions_leave_the_application_half_of_a_heap_of_100_kb(product: Product) -> None:
    product.personalities.default = product.personality(application=HEAP)
    world = product.factory(OLD)
    powercut.settle(world)
    line = consoles(site.run(world, "with True")).partition("free ")[2]
    assert int(line.split()[0]) > 50_000, line


def test_the_first_network_of_a_device_is_taken_while_its_radio_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`esp_wifi_disconnect` refuses before the radio was switched on (ports/esp32/network_wlan.c); orders that come by
    serial line or card may be there earlier."""
    from sekisho import duties

    class Station:
        on = False
        left = 0

        def active(self) -> bool:
            return self.on

        def disconnect(self) -> None:
            if not self.on:
                raise OSError("Wifi Not Started")
            self.left += 1

    station = Station()
    monkeypatch.setitem(sys.modules, "network", SimpleNamespace(STA_IF=0, WLAN=lambda _: station))
    options = {"server": "", "protocol": "static", "controller": "", "tenant": "", "poll": 60, "ca": None}
    monkeypatch.setattr(duties.settings, "load", lambda: {**options, "wifi": [["home", "12345678"]]})
    agent = SimpleNamespace(options={**options, "wifi": []}, networks=[], again=lambda: None)
    duties.Duties.reload(SimpleNamespace(restart=False), agent)  # type: ignore[arg-type]
    assert agent.networks == [["home", "12345678"]]
    station.on, agent.networks = True, []
    duties.Duties.reload(SimpleNamespace(restart=False), agent)  # type: ignore[arg-type]
    assert station.left == 1
