"""What the agent keeps on the `data` file system: its settings, and what it tried last.

Neither is trusted or needed: without them the device runs and updates nothing. Only the engine's records decide what
may be installed.
"""

import json
import os

from micropython import const

SETTINGS = "/data/sekisho.json"
STATE = "/data/sekisho-state.json"
MAX_FILE = const(4096)  # bytes; a longer file is not read

POLL = const(3600)  # s between two looks at the server, where the settings say nothing
MIN_POLL = const(30)
MAX_POLL = const(86400)


def read(path: str) -> dict:
    """The JSON object in the file, or {} where there is none that can be read."""
    try:
        if os.stat(path)[6] > MAX_FILE:
            return {}
        with open(path) as file:
            values = json.load(file)
    except (OSError, ValueError, MemoryError):
        return {}
    return values if isinstance(values, dict) else {}


def write(path: str, values: dict) -> bool:
    """Replaces the file in one step; False where the file system is absent, full or damaged."""
    try:
        with open(path + ".new", "w") as file:
            json.dump(values, file)
        os.rename(path + ".new", path)
    except OSError:
        return False
    return True


def load() -> dict:
    """The settings with every member of the right type: server (URL or ""), wifi ([[ssid, key], ...]), poll (s), ca
    (DER bytes or None; the file names a DER file in "ca")."""
    raw = read(SETTINGS)
    server = raw.get("server")
    poll = raw.get("poll")
    ca = None
    try:
        if raw.get("ca"):
            with open(raw["ca"], "rb") as file:
                ca = file.read(MAX_FILE)
    except (OSError, TypeError):
        pass
    return {
        "server": server.rstrip("/") if isinstance(server, str) else "",
        "wifi": _networks(raw.get("wifi")),
        "poll": min(max(poll, MIN_POLL), MAX_POLL) if isinstance(poll, int) else POLL,
        "ca": ca,
    }


def _networks(raw) -> list:
    if not isinstance(raw, list):
        return []
    return [pair for pair in raw if isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)]
