"""What the ESP32 port refuses the simulated device refuses too: each fact with the C source it was read in.

The sources are MicroPython's (v1.26 and later). Code that a shim lets through and a chip does not would be found on the
chip only; `tests/test_shims.py` has the values that were measured.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from helpers.simulated import SOON, Bench, boots, causes
from sekisho import agent, door, peer, wifi
from sekisho_sim.device import machine
from sekisho_sim.personality import STOCK, default_sources
from test_shims import PRELUDE, flash

REFUSED = [
    # where it is read, expression, what is raised
    # -- ports/esp32/esp32_partition.c: arguments by position, numbers through mp_obj_get_int, memory through a buffer
    ("Partition takes no keywords", "Partition(id=1)", "TypeError"),
    ("Partition takes a number or a label", "Partition((1, 2))", "TypeError"),
    ("Partition has two numbers only", "Partition(2)", "ValueError"),
    ("Partition takes two arguments at most", "Partition(1, 4096, 0)", "TypeError"),
    ("readblocks fills what can be written", "part.readblocks(0, bytes(4), 0)", "TypeError"),
    ("readblocks takes no keywords", "part.readblocks(0, bytearray(4), off=0)", "TypeError"),
    ("readblocks takes whole numbers", "part.readblocks(0.5, bytearray(4))", "TypeError"),
    ("writeblocks takes memory", "part.writeblocks(0, [1], 0)", "TypeError"),
    ("writeblocks takes no keywords", "part.writeblocks(0, b'x', off=0)", "TypeError"),
    ("ioctl always has an argument", "part.ioctl(4)", "TypeError"),
    # -- ports/esp32/esp32_nvs.c
    ("NVS blobs are memory", "nvs.set_blob('a', 5)", "TypeError"),
    ("NVS numbers are whole", "nvs.set_i32('a', 1.5)", "TypeError"),
    ("NVS reads into what can be written", "nvs.get_blob('a', bytes(9))", "TypeError"),
    # -- ports/esp32/machine_wdt.c, machine_rtc.c, extmod/machine_mem.c, extmod/modmachine.c
    ("WDT counts whole milliseconds", "m.WDT(timeout=1e3)", "TypeError"),
    ("WDT counts in 32 bits", "m.WDT(timeout=1 << 31)", "OverflowError"),
    ("RTC memory is memory", "m.RTC().memory(5)", "TypeError"),
    ("registers are words", "m.mem32[0x3FF5A001]", "ValueError"),
    ("deepsleep takes no keywords", "m.deepsleep(time_ms=5)", "TypeError"),
    # -- extmod/modtime.c, extmod/asyncio/core.py
    ("sleep_ms takes whole numbers", "time.sleep_ms(0.5)", "TypeError"),
    ("ticks_add stays below half of the period", "time.ticks_add(0, 1 << 29)", "OverflowError"),
    ("asyncio cannot sleep for a week", "__import__('asyncio').sleep(7 * 86400)", "OverflowError"),
    # -- ports/esp32/network_wlan.c, network_common.c
    ("WLAN is one of two", "network.WLAN(2)", "ValueError"),
    ("connect names the network by position", "on().connect(ssid='a', key='b')", "TypeError"),
    ("connect takes text", "on().connect('a', 5)", "TypeError"),
    ("connect wants an active station", "sta().connect('a', 'b')", "OSError"),
    ("connect wants a station that has nothing to do", "[on().connect('a', 'b') for _ in range(2)]", "OSError"),
    ("disconnect wants an active station", "sta().disconnect()", "OSError"),
    ("scan wants an active station", "sta().scan()", "OSError"),
    ("config gives one value", "on().config()", "TypeError"),
    ("config either gives or takes", "on().config('mac', pm=0)", "TypeError"),
    ("config knows its names", "on().config('colour')", "ValueError"),
    ("config takes its names only", "on().config(colour=1)", "ValueError"),
    ("a station has no key to set", "on().config(key='12345678')", "OSError"),
    ("an access point does not reconnect", "point().config(reconnects=1)", "OSError"),
    ("an access point that is off takes nothing", "network.WLAN(1).config(ssid='a')", "OSError"),
    ("WPA2 wants eight characters", "point().config(ssid='a', key='short', security=3)", "OSError"),
    ("no signal without a connection", "on().status('rssi')", "OSError"),
    ("status knows two words", "on().status('colour')", "ValueError"),
    # -- ports/esp32/modsocket.c: nothing of the desk's sockets beyond these
    ("no socket addresses in bytes", "__import__('socket').inet_pton", "AttributeError"),
    # -- extmod/modhashlib.c, extmod/modtls_mbedtls.c
    ("a digest is final", "again(__import__('hashlib').sha256(b'a'))", "ValueError"),
    ("a certificate is bytes", "tls().load_verify_locations(bytearray(9))", "TypeError"),
    ("a certificate is the only argument", "tls().load_verify_locations(cadata=b'')", "TypeError"),
]
MORE = """
import network, time, machine as m
from esp32 import NVS
nvs = NVS("app")
def sta():
    return network.WLAN(0)
def on():
    w = network.WLAN(0)
    w.active(True)
    return w
def point():
    w = network.WLAN(1)
    w.active(True)
    return w
def again(hasher):
    hasher.digest()
    hasher.digest()
def tls():
    import tls
    return tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
nvs.set_blob("a", b"123")
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a device raises for each of them; the access point and the station are switched off in between."""
    off = "network.WLAN(0).active(False); network.WLAN(1).active(False)"
    lines = [f"print(error(lambda: {expression})); {off}\n" for _, expression, _ in REFUSED]
    printed = Bench(tmp_path_factory.mktemp("port")).printed(PRELUDE + MORE + "".join(lines), flash=flash())
    assert len(printed) == len(REFUSED), printed[-3:]
    return printed


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[name for name, _, _ in REFUSED])
def test_refuses_what_the_port_refuses(answers: list[str], index: int) -> None:
    assert answers[index].startswith(f"('{REFUSED[index][2]}', "), answers[index]


def test_an_address_where_nothing_is_panics(tmp_path: Path) -> None:
    """`machine.mem32` reads what it is told to: on silicon a LoadStoreError."""
    assert Bench(tmp_path).run("import machine\nmachine.mem32[0x10000000]").cause == "panic"


def test_rtc_init_and_datetime_order_their_numbers_differently(tmp_path: Path) -> None:
    """ports/esp32/machine_rtc.c: the hour is the fourth number of `init` and the fifth of `datetime`."""
    main = """
import machine
rtc = machine.RTC()
rtc.datetime((2026, 1, 2, 0, 3, 4, 5, 0))
print(rtc.datetime()[:7])
rtc.init((2026, 1, 2, 3, 4, 5, 0, 0))
print(rtc.datetime()[:7])
"""
    assert Bench(tmp_path).printed(main) == ["(2026, 1, 2, 4, 3, 4, 5)"] * 2


# -- start-up: ports/esp32/main.c, shared/runtime/pyexec.c ------------------------------------------------------------


def test_main_does_not_run_after_a_boot_that_raised(tmp_path: Path) -> None:
    """main.c runs main.py only where boot.py came to its end."""
    modules = {"boot.py": "print('boot')\nraise ValueError('no')"}
    result = Bench(tmp_path).run("print('main')", modules=modules)
    assert result.cause == "idle"
    assert result.console.splitlines()[0] == "boot"
    assert "main" not in result.console.splitlines()


def test_nobody_looks_at_what_came_of_the_frozen_boot(tmp_path: Path) -> None:
    """main.c drops the result of _boot.py, SystemExit too; of boot.py and main.py that one is a soft reset."""
    for boot in ("raise SystemExit", "raise ValueError"):
        assert Bench(tmp_path).printed("print('main')", boot=boot)[-1] == "main"
    main = "import machine\nmachine.reset() if machine.RTC().memory() else machine.RTC().memory(b'1')\nraise SystemExit"
    assert causes(boots(Bench(tmp_path / "soft").world(main), max_boots=2)) == ["soft-reset", "reset"]


def test_what_official_firmware_freezes_ours_does_not(tmp_path: Path) -> None:
    """ports/esp32/boards/manifest.py (bundle-networking) against firmware/manifest.py."""
    main = (
        "for name in ('ssl', 'requests', 'mip'):\n try:\n  __import__(name)\n  print(name)\n except ImportError: pass"
    )
    assert Bench(tmp_path).printed(main) == []
    world = Bench(tmp_path / "stock").world(start=STOCK)
    assert machine().run(world, limits=SOON).cause == "idle"


# -- the driver of the radio -------------------------------------------------------------------------------------------


class Station:
    """One that refuses so many times, as while it is busy with the network before."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked: list[str] = []

    def active(self, _: bool) -> None:
        pass

    def isconnected(self) -> bool:
        return bool(self.asked) and self.asked[-1] == "home"

    def status(self) -> int:
        return 201

    def disconnect(self) -> None:
        pass

    def connect(self, ssid: str, _: str | None) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError("Wifi Internal Error")
        self.asked.append(ssid)


@pytest.mark.parametrize(("refusals", "name"), [(0, "home"), (2, "home"), (3, "")])
def test_a_driver_that_is_still_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch, refusals: int, name: str) -> None:
    """micropython issue 17661: `connect` raises while the attempt before goes on."""
    station = Station(refusals)
    fake = SimpleNamespace(STA_IF=0, STAT_NO_AP_FOUND=201, STAT_WRONG_PASSWORD=202, WLAN=lambda _: station)
    monkeypatch.setitem(sys.modules, "network", fake)
    monkeypatch.setattr(wifi, "time", Uptime(1))
    assert asyncio.run(wifi.up([["home", "12345678"]])) == name


def test_a_scan_finds_nothing_while_the_station_goes_on_trying(tmp_path: Path) -> None:
    """network_wlan.c drops what esp_wifi_scan_start says (ESP_ERR_WIFI_STATE): the console ends the attempt first."""
    main = """
import network
w = network.WLAN(0)
w.active(True)
w.connect("elsewhere", "12345678")
print(w.scan())
from sekisho.console_web import _scan
print(_scan())
"""
    modules = {name: text for name, text in default_sources().items() if name.startswith(("sekisho", "microdot"))}
    assert Bench(tmp_path).printed(main, modules=modules) == ["[]", "[('sekisho', -60, False)]"]


# -- ticks: extmod/modtime.c, MICROPY_PY_TIME_TICKS_PERIOD is 2^30 ms on 32-bit ports --------------------------------

DAY = 86_400


class Uptime:
    """`time` of a chip that has been on for some seconds."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def ticks_ms(self) -> int:
        return self.seconds * 1000 & (1 << 30) - 1

    @staticmethod
    def ticks_diff(one: int, other: int) -> int:
        return ((one - other + (1 << 29)) & (1 << 30) - 1) - (1 << 29)


@pytest.fixture
def uptime(monkeypatch: pytest.MonkeyPatch) -> Uptime:
    made = Uptime(100)
    for module in (agent, door, peer):
        assert isinstance(module, ModuleType)
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.mark.parametrize("days", [1, 7, 9])
def test_a_release_that_failed_days_ago_is_not_held_back(uptime: Uptime, days: int) -> None:
    device = SimpleNamespace(_since=uptime.ticks_ms(), _passed=0)
    for _ in range(2):  # a look at the server every so many days
        uptime.seconds += days * DAY
        assert agent.Agent._quiet(device) == agent.MAX_RETRY  # type: ignore[arg-type]
    device = SimpleNamespace(_since=uptime.ticks_ms(), _passed=0)
    uptime.seconds += 599
    assert agent.Agent._quiet(device) == 599  # type: ignore[arg-type]


@pytest.mark.parametrize("days", [1, 7, 9])
def test_a_release_that_nobody_went_on_bringing_blocks_the_agent_for_a_minute(uptime: Uptime, days: int) -> None:
    brought = SimpleNamespace(_plan=object(), _touched=uptime.ticks_ms())
    assert door.Door.active(brought)  # type: ignore[arg-type]
    uptime.seconds += days * DAY
    assert not door.Door.active(brought)  # type: ignore[arg-type]


@pytest.mark.parametrize("days", [1, 7, 9])
def test_a_promise_to_a_peer_ends_even_if_nobody_asks_for_days(uptime: Uptime, days: int) -> None:
    since = uptime.ticks_ms()
    uptime.seconds += peer.LEASE
    assert not peer._older(since, peer.LEASE)
    uptime.seconds += days * DAY
    assert peer._older(since, peer.LEASE)
