"""Makes the device packages (`sekisho_boot`, `sekisho`) importable on CPython, and tells where their sources are.

Device code imports `micropython`, which CPython lacks; a stand-in with the identity `const` is enough for the pure
modules. Import this module before any device package. In a wheel the sources lie under `sekisho_tools/_device`.
"""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

_PACKAGED = Path(__file__).parent / "_device"
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2]
"""The directory that holds `boot/`, `lib/` and `firmware/`."""

BOOT, LIB, FIRMWARE = ROOT / "boot", ROOT / "lib", ROOT / "firmware"


def boot_digest() -> str:
    """SHA-256 (hex) of the engine's sources, names and contents in order: what evidence was recorded for."""
    digest = hashlib.sha256()
    for path in sorted((BOOT / "sekisho_boot").glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _stand_in() -> types.ModuleType:
    module = types.ModuleType("micropython")
    for name in ("const", "native", "viper"):
        setattr(module, name, lambda value: value)
    return module


sys.modules.setdefault("micropython", _stand_in())
for _path in (str(BOOT), str(LIB)):
    if _path not in sys.path:
        sys.path.append(_path)
