"""Which interfaces are open, and closing the others (STS11). Applied at every start, reported in every report.

Development devices keep the REPL and Ctrl-C, so that mpremote works beside the engine; a production device (by its key
set's environment, or since an order) opens what both the product (`INTERFACES` in `sekisho_config`) and the setting
`interfaces` name, and nothing else. A radio that is not in use is off.
"""

import sys

from .values import INTERFACES

ALWAYS_IN_DEVELOPMENT = ("repl", "ctrl-c")


def wanted(production: bool, product, setting) -> list:
    """The interfaces that may be open."""
    if production:
        return [one for one in INTERFACES if one in product and one in setting]
    return [one for one in INTERFACES if one in setting or one in ALWAYS_IN_DEVELOPMENT]


def apply(open_ones) -> list:
    """Closes every interface that is not in *open_ones*; returns the names of those that are open now.

    The REPL of a frozen firmware is reached only by interrupting `main.py`, so without Ctrl-C it is closed.
    """
    import micropython

    interrupt = "ctrl-c" in open_ones or "repl" in open_ones
    micropython.kbd_intr(3 if interrupt else -1)
    found = [one for one in ("repl", "ctrl-c") if interrupt]
    webrepl = sys.modules.get("webrepl")
    if webrepl:
        if "webrepl" in open_ones:
            found.append("webrepl")
        else:
            webrepl.stop()
    for name, active in (("bluetooth", _bluetooth), ("access-point", _access_point)):
        if active(name in open_ones):
            found.append(name)
    found += [one for one in ("console", "serial") if one in open_ones]  # whoever serves them asks here
    return found


def _bluetooth(may: bool) -> bool:
    bluetooth = sys.modules.get("bluetooth")  # never imported: never switched on
    if not bluetooth:
        return False
    radio = bluetooth.BLE()
    if not may:
        radio.active(False)
    return radio.active()


def _access_point(may: bool) -> bool:
    network = sys.modules.get("network")
    if not network:
        return False
    point = network.WLAN(network.AP_IF)
    if not may:
        point.active(False)
    return point.active()
