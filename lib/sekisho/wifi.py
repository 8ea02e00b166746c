"""Brings Wi-Fi up: the networks of the settings in their order, each for a bounded time."""

import asyncio
import time

from micropython import const

MAX_NETWORKS = const(8)
PATIENCE = 15_000  # ms for each network; an ESP32 needs two to five seconds for one it knows
TRIES = const(3)  # to begin with a network
HASTE = 5_000  # ms for one that is not there or refuses the key: the driver says so, and goes on trying


async def _begin(station, ssid: str, key: str) -> bool:
    """Ends the attempt with the network before, begins one with this; False where the driver refuses name or key.

    It also refuses ("Wifi Internal Error") while it is still busy with the one before: micropython issue 17661.
    """
    for _ in range(TRIES):
        try:
            station.disconnect()
            station.connect(ssid, key or None)
            return True
        except OSError:
            await asyncio.sleep(0.5)
        except (ValueError, TypeError):
            break
    return False


async def up(networks) -> str:
    """Connects to the first of *networks* ([[ssid, key], ...]; key "" for an open one) that lets us in.

    Returns its name, or "" where none does. A connection that stands is kept, whichever network it is to.
    """
    import network

    station = network.WLAN(network.STA_IF)
    station.active(True)
    if station.isconnected():
        return station.config("ssid")
    for ssid, key in networks[:MAX_NETWORKS]:
        if not await _begin(station, ssid, key):
            continue
        start = time.ticks_ms()
        waited = 0
        while waited < PATIENCE:
            if station.isconnected():
                return ssid
            hopeless = station.status() in (network.STAT_NO_AP_FOUND, network.STAT_WRONG_PASSWORD)
            if hopeless and waited > HASTE:
                break
            await asyncio.sleep(0.1)
            waited = time.ticks_diff(time.ticks_ms(), start)
    return ""
