"""What the agent keeps on the `data` file system: its settings (see `values`), and what it tried last.

Neither is trusted or needed: without them the device runs and updates nothing. Only the engine's records decide what
may be installed.
"""

import json
import os

from micropython import const

SETTINGS = "/data/sekisho.json"  # of `sekisho image build`; counts until the first change
STATE = "/data/sekisho-state.json"
TOLD = "/data/sekisho-told.json"  # {event: the last release that people were told of}
MAX_FILE = const(4096)  # bytes; a longer file is not read


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


def load(trial: bool = False) -> dict:
    """All settings by name, ``ca`` as the DER bytes (or None) of the file it names.

    On trial the pending ones do not count: a wrong passphrase is no evidence against an image.
    """
    from .values import Settings  # only now: whoever just reads a file need not have all of it in memory

    values = Settings().all(not trial)
    values["server"] = values["server"].rstrip("/")
    name, values["ca"] = values["ca"], None
    try:
        if name:
            with open(name, "rb") as file:
                values["ca"] = file.read(MAX_FILE)
    except OSError:
        pass
    return values
