"""The two compression functions of SHA-512 agree, and the faster one is used only where it is known to be right."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import mp32
import pytest
from helpers import micropython
from sekisho_boot import sha512 as module
from sekisho_tools import device_code
from sekisho_tools.measure import compile_module

WHICH = """
from sekisho_boot import sha512 as module
print("portable" if module.compress is module.portable else "native", module.sha512(b"abc").hex()[:8])
"""
NATIVE, PORTABLE = "native ddaf35a1\n", "portable ddaf35a1\n"


def _room(tmp_path: Path, suffix: str, arch: str = "host") -> Path:
    """A directory with the two modules as sources or as `.mpy`."""
    room = tmp_path / "sekisho_boot"
    room.mkdir()
    for name in ("__init__", "sha512", "sha512_native"):
        source = device_code.BOOT / "sekisho_boot" / f"{name}.py"
        if suffix == ".py":
            shutil.copy(source, room)
        else:
            compile_module(source, room / f"{name}.mpy", arch if name == "sha512_native" else "host")
    return tmp_path


def _unix(room: Path, program: str = WHICH, heap: str = "100k") -> str:
    start = f"import sys\nsys.path[:] = ['.frozen', {str(room)!r}]\n{program}"
    command = [micropython.executable(), "-X", f"heapsize={heap}", "-c", start]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("suffix", [".py", ".mpy"])
def test_machine_code_is_used_from_source_and_precompiled(tmp_path: Path, suffix: str) -> None:
    assert _unix(_room(tmp_path, suffix)) == NATIVE


@pytest.mark.parametrize("arch", ["xtensawin", "rv32imc", "armv7m"])
def test_machine_code_for_another_chip_is_left_alone(tmp_path: Path, arch: str) -> None:
    assert _unix(_room(tmp_path, ".mpy", arch)) == PORTABLE


def test_without_the_native_module_the_portable_code_runs(tmp_path: Path) -> None:
    room = _room(tmp_path, ".py")
    (room / "sekisho_boot" / "sha512_native.py").unlink()
    assert _unix(room) == PORTABLE


@pytest.mark.parametrize(
    "bad",
    [
        "raise MemoryError",
        "raise SyntaxError('invalid micropython decorator')",
        "def constants(table): raise OSError(5)",
        "constants = compress = None",
        "constants = lambda table: None\ndef compress(state, block): pass",
        "constants = lambda table: None\ndef compress(state, block): state[63] ^= 1",
    ],
)
def test_machine_code_that_fails_or_is_wrong_decides_nothing(tmp_path: Path, bad: str) -> None:
    room = _room(tmp_path, ".py")
    (room / "sekisho_boot" / "sha512_native.py").write_text(bad + "\n")
    assert _unix(room) == PORTABLE


@pytest.mark.parametrize(
    ("good", "broken"),
    [
        ("x >> 24", "x >> 23"),
        ("xl < hl", "xl > hl"),
        ("el << 18", "el << 17"),
        ("e &= m", "pass"),
        ("t < 160", "t < 158"),
    ],
)
def test_a_broken_emitter_is_noticed_at_import(tmp_path: Path, good: str, broken: str) -> None:
    room = _room(tmp_path, ".py")
    path = room / "sekisho_boot" / "sha512_native.py"
    assert good in path.read_text()
    path.write_text(path.read_text().replace(good, broken))
    assert _unix(room) == PORTABLE


def test_machine_code_and_portable_code_agree_on_random_and_extreme_blocks(tmp_path: Path) -> None:
    program = """
import os
from sekisho_boot import sha512 as module
assert module.compress is not module.portable
one, two = bytearray(b"\\xff" * 64), bytearray(b"\\xff" * 64)
blocks = [bytes([b]) * 128 for b in (0, 255, 128, 127, 1)] + [os.urandom(128) for _ in range(200)]
for block in blocks:
    module.compress(one, block)
    module.portable(two, block)
    assert one == two, block
print(len(blocks))
"""
    assert _unix(_room(tmp_path, ".mpy"), program) == "205\n"


def test_the_32_bit_build_has_no_emitter_and_runs_the_portable_code() -> None:
    mp32.require()
    assert mp32.run(WHICH, [device_code.BOOT], heap=1 << 20) == PORTABLE


def test_both_are_sha512_on_cpython(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(module, ModuleType)
    assert module.compress is module.portable
    for size in (0, 1, 111, 112, 127, 128, 129, 500):
        data = os.urandom(size)
        assert module.sha512(data[:7], data[7:]) == hashlib.sha512(data).digest()
