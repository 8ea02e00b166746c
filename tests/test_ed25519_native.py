"""Machine code for field arithmetic: bounds by interval arithmetic, agreement with the portable code, fallback."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mp32
import pytest
from helpers import micropython
from sekisho_boot import ed25519
from sekisho_tools import device_code
from sekisho_tools.measure import compile_module

P = 2**255 - 19
SOURCE = device_code.BOOT / "sekisho_boot" / "ed25519_native.py"
WORD = 1 << 32


class Range:
    """The unsigned 32-bit numbers from lo to hi; an operation that could leave 32 bits fails."""

    def __init__(self, lo: int, hi: int | None = None) -> None:
        self.lo, self.hi = lo, lo if hi is None else hi
        assert 0 <= self.lo <= self.hi < WORD, (lo, hi)

    @staticmethod
    def of(value: Range | int) -> Range:
        return value if isinstance(value, Range) else Range(value)

    def __add__(self, other: Range | int) -> Range:
        return Range(self.lo + Range.of(other).lo, self.hi + Range.of(other).hi)

    __radd__ = __add__

    def __sub__(self, other: Range | int) -> Range:
        return Range(self.lo - Range.of(other).hi, self.hi - Range.of(other).lo)

    def __mul__(self, other: Range | int) -> Range:
        return Range(self.lo * Range.of(other).lo, self.hi * Range.of(other).hi)

    def __rshift__(self, count: int) -> Range:
        return Range(self.lo >> count, self.hi >> count)

    def __and__(self, mask: int) -> Range:
        assert mask & (mask + 1) == 0
        if self.lo == self.hi:
            return Range(self.lo & mask)
        return self if self.hi <= mask else Range(0, mask)


class Address:
    """A pointer as viper has them: a buffer, an offset in bytes, the bytes of an item."""

    def __init__(self, buffer: Any, offset: int = 0, width: int = 1) -> None:
        self.buffer, self.offset, self.width = buffer, offset, width

    def __add__(self, more: int) -> Address:
        return Address(self.buffer, self.offset + more, self.width)

    def _at(self, index: int) -> int:
        assert self.offset % self.width == 0
        return self.offset // self.width + index

    def __getitem__(self, index: int) -> Any:
        assert 0 <= self._at(index) < len(self.buffer)
        return self.buffer[self._at(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        assert 0 <= self._at(index) < len(self.buffer)
        assert Range.of(value).hi < 1 << 8 * self.width
        self.buffer[self._at(index)] = value


def loaded() -> dict[str, Any]:
    """The names of the native module, its viper functions run by CPython with checked words and addresses."""

    def pointer(width: int) -> Callable[[Any], Address]:
        def cast(value: Any) -> Address:
            if isinstance(value, Address):
                return Address(value.buffer, value.offset, width)
            return Address(value, 0, width)

        return cast

    def word(value: Any) -> Any:
        return value if isinstance(value, Address) else Range.of(value)

    def whole(value: Any) -> Any:
        return value if isinstance(value, Range) else int(value)

    names: dict[str, Any] = {"__name__": "native", "ptr8": pointer(1), "ptr16": pointer(2), "uint": word}
    fake = SimpleNamespace(viper=lambda function: function)
    source = SOURCE.read_text().replace("import micropython\n", "").replace("import struct\n", "")
    names.update(micropython=fake, struct=SimpleNamespace(unpack_from=lambda _, room, at: room[at // 2 : at // 2 + 20]))
    exec(compile(source, str(SOURCE), "exec"), names)
    names["_room"], names["_low"] = [0] * 1000, [0] * 20
    names["int"] = whole
    return names


MULTIPLY, ADD, SUBTRACT = b"\x00\x02\x00\x01", b"\x01\x02\x00\x01", b"\x02\x02\x00\x01"
TOP = [8191] * 20
TOP[1] = 8191 + 46
"""The largest limbs that any operation leaves."""


@pytest.mark.parametrize("program", [MULTIPLY, ADD, SUBTRACT])
def test_no_word_can_overflow_and_no_limb_can_grow(program: bytes) -> None:
    """What an operation makes of any numbers within the bounds is within the bounds, and so by induction for ever."""
    native = loaded()
    native["_room"][:40] = [Range(0, top) for top in TOP * 2]
    native["run"](program, 0)
    assert all(limb.hi <= top for limb, top in zip(native["_room"][40:60], TOP, strict=True))


def test_the_bound_of_a_limb_is_tight() -> None:
    native = loaded()
    native["_room"][:40] = [Range(0, top) for top in TOP * 2]
    native["run"](MULTIPLY, 0)
    assert native["_room"][41].hi == TOP[1]


def value(limbs: list[Any]) -> int:
    return sum(Range.of(limb).lo << 13 * i for i, limb in enumerate(limbs))


def test_operations_are_right_for_random_and_extreme_limbs() -> None:
    native = loaded()
    rng = random.Random(4)
    for n in range(60):
        limbs = [rng.choice((0, 1, top - 1, top, rng.randrange(top + 1))) for top in TOP * 2]
        if n < 4:
            limbs = [top * (n >> (i >= 20) & 1) for i, top in enumerate(TOP * 2)]
        for program, expected in (
            (MULTIPLY, value(limbs[:20]) * value(limbs[20:])),
            (ADD, value(limbs[:20]) + value(limbs[20:])),
            (SUBTRACT, value(limbs[:20]) - value(limbs[20:])),
        ):
            native["_room"][:40] = [Range(limb) for limb in limbs]
            native["run"](program, 0)
            assert value(native["_room"][40:60]) % P == expected % P


def test_signing_runs_the_same_programs_whatever_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequence of operations; which entry of the table is loaded and added or subtracted depends on the key."""
    from sekisho import signing

    native, traces = loaded(), []

    def note(program: bytes, entry: int) -> None:
        traces[-1].append(bytes(operation for operation in program[::4]).translate(bytes((0, 1, 1, *range(3, 256)))))

    monkeypatch.setitem(native, "run", note)
    monkeypatch.setitem(native, "load", lambda number, data, at, count: traces[-1].append((number, count)))
    monkeypatch.setattr(signing, "joint", native["joint"])
    monkeypatch.setattr(signing, "euclid", lambda p, z, size: (0, 1))
    for k in (0, 1, 2, 2**252, ed25519.L - 1, 0x1234567 << 200):
        traces.append([])
        signing._times_base(k, 1)
    assert all(trace == traces[0] for trace in traces)
    assert len(traces[0]) == 3 + 61 + 2 * 64


def test_loading_takes_all_256_bits() -> None:
    native = loaded()
    for number in (0, 1, P - 1, 2**256 - 1, 0x0123456789ABCDEF << 190 | 77):
        native["int"] = int
        native["load"](2, bytes(5) + bytes(32) + number.to_bytes(32, "little"), 5, 2)
        assert not any(native["_room"][40:60])
        limbs = native["_room"][60:80]
        assert value(limbs) == number
        assert max(limbs) < 8192


# -- on MicroPython --------------------------------------------------------------------------------

WHICH = """
from sekisho_boot import ed25519
pair = ed25519.joint is ed25519.portable_joint, ed25519.power is ed25519.portable_power
print({(True, True): "portable", (False, False): "native"}.get(pair, "mixed"))
"""


def _room(tmp_path: Path, suffix: str, arch: str = "host") -> Path:
    room = tmp_path / "sekisho_boot"
    room.mkdir()
    for name in ("__init__", "sha512", "ed25519", "ed25519_table", "ed25519_native"):
        source = device_code.BOOT / "sekisho_boot" / f"{name}.py"
        if suffix == ".py":
            shutil.copy(source, room)
        else:
            compile_module(source, room / f"{name}.mpy", arch)
    return tmp_path


def _unix(room: Path, program: str = WHICH, heap: str = "120k") -> str:
    start = f"import sys\nsys.path[:] = ['.frozen', {str(room)!r}, {str(device_code.LIB)!r}]\n{program}"
    command = [micropython.executable(), "-X", f"heapsize={heap}", "-c", start]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("suffix", "arch", "which"),
    [(".py", "host", "native"), (".mpy", "host", "native"), (".mpy", "xtensawin", "portable")],
)
def test_machine_code_is_used_where_it_fits(tmp_path: Path, suffix: str, arch: str, which: str) -> None:
    assert _unix(_room(tmp_path, suffix, arch)) == which + "\n"


@pytest.mark.parametrize(
    ("good", "broken"),
    [
        ("y = b0 * x + c0", "y = b0 * x"),
        ("c0 = b1 * x + c1 + (y >> 13)", "c0 = b1 * x + c1"),
        ("* 608 + uint(o[0])", "* 607 + uint(o[0])"),
        ("x = uint(16382)", "x = uint(16383)"),
        ("c7 = b8 * x + c8", "c7 = b8 * x + c9"),
        ("at += 13", "at += 12"),
        ("i += entry - 128", "i -= 128"),
        ("def joint(", "def other("),
        ("n -= 4", "n = 0"),
        ("import struct", "raise MemoryError"),
    ],
)
def test_machine_code_that_fails_or_is_wrong_decides_nothing(tmp_path: Path, good: str, broken: str) -> None:
    path = _room(tmp_path, ".py") / "sekisho_boot" / "ed25519_native.py"
    assert good in path.read_text()
    path.write_text(path.read_text().replace(good, broken))
    assert _unix(tmp_path) == "portable\n"


AGREE = """
import os
from sekisho_boot import ed25519
from sekisho_boot.ed25519 import BASE, L, P
assert ed25519.joint is not ed25519.portable_joint
def number():
    n = int.from_bytes(os.urandom(33), "little")
    return (n % P, P - 1 - n % 5, n % 5, P >> 1)[n >> 256 & 3]
for turn in range(TURNS):
    z = number()
    assert ed25519.power(z, ed25519._POWER) == ed25519.portable_power(z, ed25519._POWER), z
    lists = [[(number(), number(), number(), 0 if i == 0 else number()) for i in range(4)] for _ in (0, 1)]
    tables = (BASE,) * 4 + tuple(lists)
    todo = []
    for _ in range(12):
        n = 1
        for c in os.urandom(2):
            if c & 64:
                n = n << 7 | (c & 23 | 64) if c & 32 else n << 7 | c & 63
        todo.append(n)
    assert ed25519.joint(todo, tables) == ed25519.portable_joint(todo, tables), todo
print("agree")
"""


def test_machine_code_and_portable_code_agree(tmp_path: Path) -> None:
    program = AGREE.replace("TURNS", "40")
    assert _unix(_room(tmp_path, ".mpy"), program, "1m") == "agree\n"


def test_verdicts_are_the_same_without_machine_code(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    room = _room(tmp_path, ".mpy")
    cases = []
    for n in range(6):
        key, message = Ed25519PrivateKey.from_private_bytes(os.urandom(32)), os.urandom(40 * n)
        signature = key.sign(message)
        changed = bytearray(signature)
        changed[n * 9] ^= 1 << n
        cases += [(key.public_key().public_bytes_raw(), message, bytes(s)) for s in (signature, changed)]
    program = f"from sekisho_boot import ed25519\nprint([ed25519.verify(*case) for case in {cases!r}])\n" + WHICH
    native = _unix(room, program)
    (room / "sekisho_boot" / "ed25519_native.mpy").unlink()
    portable = _unix(room, program)
    assert native == f"{[True, False] * 6}\nnative\n"
    assert portable == f"{[True, False] * 6}\nportable\n"


def test_the_32_bit_build_runs_the_portable_code() -> None:
    mp32.require()
    assert mp32.run(WHICH, [device_code.BOOT], heap=1 << 20) == "portable\n"
    assert ed25519.joint is ed25519.portable_joint
