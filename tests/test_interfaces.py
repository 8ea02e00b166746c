"""Interfaces: what a production device has open, how development mode is left, and that every report says so."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import sekisho
from helpers.keys import make_keyset
from helpers.site import Product, consoles, firmware, run
from sekisho import interfaces, values
from sekisho_boot import keyset
from sekisho_sim.device import Limits, power_cycle

KEYBOARD = """
import sys
class Micropython:
    def __getattr__(self, name):
        return getattr(REAL, name)
    def kbd_intr(self, char):
        print("ctrl-c", char)
REAL = sys.modules["micropython"] if "micropython" in sys.modules else __import__("micropython")
sys.modules["micropython"] = Micropython()
"""


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A chip's `micropython`, `network` and `bluetooth`, with everything switched on."""
    chip = types.SimpleNamespace(interrupt=3, ap=True, ble=True, webrepl=True)
    micropython: Any = types.ModuleType("micropython")
    micropython.kbd_intr = lambda char: setattr(chip, "interrupt", char)
    micropython.const = lambda value: value

    def radio(name: str) -> Any:
        def active(*state: bool) -> bool:
            if state:
                setattr(chip, name, state[0])
            return bool(getattr(chip, name))

        return types.SimpleNamespace(active=active)

    network: Any = types.ModuleType("network")
    network.AP_IF = 1
    network.WLAN = lambda _: radio("ap")
    bluetooth: Any = types.ModuleType("bluetooth")
    bluetooth.BLE = lambda: radio("ble")
    webrepl: Any = types.ModuleType("webrepl")
    webrepl.stop = lambda: setattr(chip, "webrepl", False)
    for module in (micropython, network, bluetooth, webrepl):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return chip


@pytest.mark.requirement("STS11", "STS12")
def test_in_production_everything_is_closed_that_product_and_setting_do_not_both_name(chip: Any) -> None:
    assert interfaces.apply(interfaces.wanted(True, (), list(values.INTERFACES))) == []
    assert (chip.interrupt, chip.ap, chip.ble, chip.webrepl) == (-1, False, False, False)


@pytest.mark.requirement("STS11", "STS12")
@pytest.mark.parametrize("one", values.INTERFACES)
def test_each_interface_can_be_opened_alone(chip: Any, one: str) -> None:
    opened = interfaces.apply(interfaces.wanted(True, (one,), [one]))
    assert one in opened
    assert set(opened) <= ({"repl", "ctrl-c"} if one in ("repl", "ctrl-c") else {one})
    assert (chip.interrupt == 3) == (one in ("repl", "ctrl-c"))
    assert chip.ap == (one == "access-point")
    assert chip.ble == (one == "bluetooth")
    assert chip.webrepl == (one == "webrepl")


def test_a_development_device_keeps_repl_and_ctrl_c_and_nothing_else(chip: Any) -> None:
    assert interfaces.apply(interfaces.wanted(False, (), [])) == ["repl", "ctrl-c"]
    assert (chip.interrupt, chip.ap, chip.ble, chip.webrepl) == (3, False, False, False)


@pytest.mark.requirement("STS11")
@pytest.mark.parametrize(("environment", "char"), [(keyset.RELEASE, -1), (keyset.RELEASE + 1, 3)])
def test_without_the_functions_only_a_development_device_gets_ctrl_c_back(
    chip: Any, monkeypatch: pytest.MonkeyPatch, environment: int, char: int
) -> None:
    monkeypatch.setattr(keyset, "parse", lambda _: types.SimpleNamespace(environment=environment))
    monkeypatch.setattr(sekisho, "engine", lambda: types.SimpleNamespace(port=types.SimpleNamespace(
        config=types.SimpleNamespace(KEYSET=b""))))  # fmt: skip
    monkeypatch.setattr(sekisho, "_agent", None)
    chip.interrupt = -1
    sekisho._reopen()
    assert chip.interrupt == char


@pytest.mark.requirement("STS11")
@pytest.mark.parametrize("environment", ["development", "release"])
def test_an_application_that_ends_python_reaches_the_repl_on_development_devices_only(
    tmp_path: Path, environment: str
) -> None:
    product = Product(tmp_path, server="http://nowhere", keys=make_keyset(environment=environment))
    ends = "import sys\nasync def main():\n    print('application')\n    sys.exit()\n"
    product.personalities.default = product.personality(application=ends)
    world = product.factory(firmware("old", 20_000), speed=20)
    results = list(power_cycle(world, limits=Limits(40), max_boots=3))
    result = next(result for result in results if "application" in result.console)
    assert (result.cause == "reset") == (environment == "release"), (result.cause, result.console)


@pytest.mark.requirement("STS11")
def test_on_the_device_ctrl_c_is_closed_from_the_first_line_and_opened_in_development_only(tmp_path: Path) -> None:
    said = {}
    for environment in ("development", "release"):
        product = Product(tmp_path / environment, server="http://nowhere", keys=make_keyset(environment=environment))
        main = KEYBOARD + "import micropython\nmicropython.kbd_intr(-1)\nimport sekisho\nsekisho.run()\n"
        product.personalities.default = product.personality(main=main)
        world = product.factory(firmware("old", 20_000))
        said[environment] = consoles(run(world, "sekisho: NETWORK"))
    chars = {
        name: [line.split()[1] for line in text.splitlines() if line.startswith("ctrl-c")]
        for name, text in said.items()
    }
    assert chars == {"development": ["-1", "3"], "release": ["-1", "-1"]}
